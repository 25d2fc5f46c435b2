"""A local stand-in of the hub's HTTP: as much of it as uploads and downloads of files ask for.

Repositories lie in memory. Files of `LARGE` endings go by the LFS protocol, as on the hub.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.helpers.hub_http import Handler
from tests.helpers.hub_repos import Repo


@dataclass
class Hub:
    """The stand-in: its address, what lies in it, and what was asked of it."""

    url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)  # bytes of each file
    cut_after: int | None = None  # the next large download breaks off after so many bytes
    uploads: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, folder: Path, kind: str = "models", **more: Any) -> Repo:
        """A repository with a folder's files."""
        paths = [path for path in folder.rglob("*") if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self.repos[kind, name] = Repo(files, **more)
        return self.repos[kind, name]


@contextmanager
def running() -> Iterator[Hub]:
    """A stand-in that answers on a port of this machine."""
    hub = Hub()
    handler = type("Handler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def connect(monkeypatch: pytest.MonkeyPatch, hub: Hub, home: Path, token: str | None) -> None:
    """Makes this process's hub client talk to the stand-in, with a cache of its own.

    What the client reads from the environment it has read when it was imported: the same places
    are set that HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE set.
    """
    import transformers.utils.hub
    from huggingface_hub import close_session, constants, hf_api

    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
    monkeypatch.setattr(transformers.utils.hub, "_hf_api", None, raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    if token is not None:
        monkeypatch.setenv("HF_TOKEN", token)
    close_session()
