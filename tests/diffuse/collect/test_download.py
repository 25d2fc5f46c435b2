"""Fetching from a server that misbehaves: what passes is tried again, with an end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from diffuse.collect.download import Downloader, DownloadError
from tests.helpers.web import FAST, Answer, Server


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
def test_what_passes_is_tried_again(server: Server, tmp_path: Path, first: Answer) -> None:
    address = server.gives("/file", first, OK)
    Downloader(**FAST).save(address, tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert server.asked["/file"] == 2


@pytest.mark.parametrize(
    "always",
    [(429, {}, b""), (0, {}, b""), (200, {"Content-Length": "9"}, b"half"), (200, {}, b"")],
    ids=["too many", "timeout", "half a file", "empty"],
)
def test_attempts_end_and_leave_nothing(server: Server, tmp_path: Path, always: Answer) -> None:
    address = server.gives("/file", always)
    with pytest.raises(DownloadError, match="given up after 3 attempts"):
        Downloader(**FAST).save(address + "?key=secret", tmp_path / "file")
    assert server.asked["/file"] == 3
    assert list(tmp_path.iterdir()) == []


def test_what_does_not_pass_is_asked_for_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="404") as caught:
        Downloader(**FAST).save(server.address + "/missing?key=secret", tmp_path / "file")
    assert server.asked["/missing"] == 1
    assert "secret" not in str(caught.value)
    with pytest.raises(DownloadError, match="not an address"):
        Downloader(**FAST).save("", tmp_path / "file")


def test_the_wait_a_server_asks_for_has_an_end(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("diffuse.collect.download.time.sleep", waits.append)
    asks = [(429, {"Retry-After": seconds}, b"") for seconds in ("7", "86400")]
    address = server.gives("/file", *asks, OK)
    Downloader(**FAST).save(address, tmp_path / "file")
    assert waits[:2] == [7.0, 60.0]
