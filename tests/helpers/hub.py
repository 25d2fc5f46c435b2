"""A local mock of the Hub's HTTP API, for uploads and downloads of files.

Repositories are stored in memory. Files with `LARGE` extensions use the LFS protocol.
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
    """The mock Hub: its address, repositories and requests."""

    url: str = ""
    repos: dict[tuple[str, str], Repo] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    served: dict[str, int] = field(default_factory=dict)  # bytes of each file
    cut_after: int | None = None  # bytes after which the next large download is interrupted
    uploads: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, folder: Path, kind: str = "models", **more: Any) -> Repo:
        """Add a repository with the files of a folder."""
        paths = [path for path in folder.rglob("*") if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        self.repos[kind, name] = Repo(files, **more)
        return self.repos[kind, name]


@contextmanager
def running() -> Iterator[Hub]:
    """Run a mock Hub on a local port."""
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
    """Connect the Hub client of this process to the mock, with a separate cache.

    The client reads HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE on import; this sets the same
    values.
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
