"""Downloads from a local server with temporary and permanent errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diffuse.collect.download import Downloader, DownloadError
from tests.helpers.web import FAST, Response, Server


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


OK = (200, {}, b"whole")


@pytest.mark.parametrize(
    "first",
    [
        (429, {"Retry-After": "0"}, b""),
        (503, {}, b""),
        (0, {}, b""),
        (200, {"Content-Length": "9"}, b"half"),
        (200, {}, b""),
    ],
    ids=["too many", "busy", "timeout", "half a file", "empty"],
)
def test_temporary_errors_are_retried(server: Server, tmp_path: Path, first: Response) -> None:
    address = server.serve("/file", first, OK)
    Downloader(**FAST).save(address, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert server.requests["/file"] == 2


@pytest.mark.parametrize(
    "always",
    [(429, {}, b""), (0, {}, b""), (200, {"Content-Length": "9"}, b"half"), (200, {}, b"")],
    ids=["too many", "timeout", "half a file", "empty"],
)
def test_download_fails_after_all_attempts(
    server: Server, tmp_path: Path, always: Response
) -> None:
    address = server.serve("/file", always)
    with pytest.raises(DownloadError, match="failed after 3 attempts"):
        Downloader(**FAST).save(address + "?key=secret", tmp_path / "file")
    assert server.requests["/file"] == 3
    assert list(tmp_path.iterdir()) == []


def test_permanent_errors_are_not_retried(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="404") as caught:
        Downloader(**FAST).save(server.address + "/missing?key=secret", tmp_path / "file")
    assert server.requests["/missing"] == 1
    assert "secret" not in str(caught.value)
    with pytest.raises(DownloadError, match="not a URL"):
        Downloader(**FAST).save("", tmp_path / "file")


def test_retry_after_is_limited(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("diffuse.collect.download.time.sleep", waits.append)
    responses = [(429, {"Retry-After": seconds}, b"") for seconds in ("7", "86400")]
    address = server.serve("/file", *responses, OK)
    Downloader(**FAST).save(address, tmp_path / "file")
    assert waits[:2] == [7.0, 60.0]
