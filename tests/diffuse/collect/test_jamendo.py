"""The Jamendo collector with a local stand-in of the API."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from diffuse.collect import jamendo
from diffuse.collect.download import Downloader
from diffuse.collect.table import CollectionStats
from tests.conftest import RATE, tone
from tests.helpers.web import FAST, Response, Server


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.close()


def encoded(samples: np.ndarray, rate: int, kind: str) -> bytes:
    data = io.BytesIO()
    soundfile.write(data, samples, rate, format=kind)
    return data.getvalue()


def jpeg(color: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (60, 60), color).save(data, "JPEG")
    return data.getvalue()


def track(server: Server, number: int, **changes: object) -> dict[str, object]:
    name = f"/{number}"
    return {
        "id": str(number),
        "name": f"Song, {number}",
        "artist_name": "An Artist",
        "duration": 4,
        "shareurl": f"https://www.jamendo.com/track/{number}",
        "license_ccurl": "http://creativecommons.org/licenses/by/3.0/",
        "audio": server.serve(name + ".mp3", (200, {}, encoded(tone(300, 4), RATE, "MP3"))),
        "image": server.serve(name + ".jpg", (200, {}, jpeg("blue"))),
        "musicinfo": {"tags": {"genres": ["ambient"], "instruments": ["piano"]}},
    } | changes


def serve_tracks(server: Server, tracks: list[dict[str, object]]) -> str:
    def respond(n: int, query: dict[str, list[str]]) -> Response:
        start, page = int(query["offset"][0]), int(query["limit"][0])
        good = query["client_id"] == ["the key"]
        head = {"status": "success"} if good else {"status": "failed", "error_message": "bad key"}
        found = tracks[start : start + page] if good else []
        return 200, {}, json.dumps({"headers": head, "results": found}).encode()

    server.responses["/tracks"] = respond
    return server.address + "/tracks"


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as file:
        return list(csv.DictReader(file))


KEPT = ["CC0", "CC-BY"]


def collect(server: Server, api: str, out: Path, limit: int) -> CollectionStats:
    source = jamendo.JamendoClient(Downloader(**FAST), "the key", api)
    return jamendo.collect(source, out, ["ambient"], KEPT, limit, 2.0)


def test_jamendo_saves_author_and_license(server: Server, tmp_path: Path) -> None:
    api = serve_tracks(server, [track(server, n) for n in range(3)])
    assert collect(server, api, tmp_path, 2).saved == 2
    rows = rows_of(tmp_path)
    assert [row["license"] for row in rows] == ["CC-BY-3.0"] * 2
    assert rows[0]["source_author"] == "An Artist"
    assert rows[0]["source_url"].endswith("/track/0")
    assert rows[0]["caption"] == "ambient music with piano"
    samples, rate = soundfile.read(tmp_path / rows[0]["file_name"])
    assert len(samples) / rate == pytest.approx(2.0)
    assert Image.open(tmp_path / rows[0]["image"]).size == (60, 60)
    assert not list(tmp_path.rglob("*.mp3"))


def test_jamendo_resumes(server: Server, tmp_path: Path) -> None:
    api = serve_tracks(server, [track(server, n) for n in range(3)])
    collect(server, api, tmp_path, 2)
    with (tmp_path / "metadata.csv").open("a") as file:
        file.write("audio/half a li")  # an interrupted write
    again = collect(server, api, tmp_path, 3)
    assert (again.saved, again.existing) == (1, 2)
    assert [row["source_title"] for row in rows_of(tmp_path)] == [f"Song, {n}" for n in range(3)]
    assert server.requests["/0.mp3"] == 1


def test_jamendo_reports_skipped_tracks(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = [
        track(server, 0, license_ccurl="http://creativecommons.org/licenses/by-nc/3.0/"),
        track(server, 1, image=""),
        track(server, 2, audio=server.serve("/2.bad", (200, {}, b"not audio"))),
        track(server, 3, image=server.address + "/nowhere.jpg"),
        track(server, 4, image=server.serve("/4.bad", (200, {}, b"not an image"))),
        track(server, 5, license_ccurl=""),
        track(server, 6),
    ]
    stats = collect(server, serve_tracks(server, tracks), tmp_path, 10)
    assert stats.saved == 1
    assert stats.skipped == {
        "with another license": 2,
        "without audio or cover": 1,
        "unreadable or silent": 2,
        "not downloadable": 1,
    }
    assert "jamendo-3: http" in capsys.readouterr().out
    assert len(list((tmp_path / "images").iterdir())) == 1
    assert "6 skipped" in stats.report(tmp_path)


def test_jamendo_reads_all_pages(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jamendo, "PAGE_SIZE", 2)
    api = serve_tracks(server, [{"id": str(n)} for n in range(5)])
    source = jamendo.JamendoClient(Downloader(**FAST), "the key", api)
    assert [found["id"] for found in source.tracks([])] == list("01234")
    assert server.requests["/tracks"] == 3


def test_jamendo_requires_an_api_key(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = serve_tracks(server, [])
    line = ["--output_dir", str(tmp_path), "--api_url", api]
    monkeypatch.delenv("JAMENDO_CLIENT_ID", raising=False)
    with pytest.raises(SystemExit, match="set JAMENDO_CLIENT_ID"):
        jamendo.main(line)
    monkeypatch.setenv("JAMENDO_CLIENT_ID", "another key")
    with pytest.raises(SystemExit, match="bad key"):
        jamendo.main(line)
    monkeypatch.setenv("JAMENDO_CLIENT_ID", "the key")
    jamendo.main(line)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("http://creativecommons.org/licenses/by-nc-nd/3.0/", "CC-BY-NC-ND-3.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "CC0"),
        ("http://artlibre.org/licence/lal", ""),
    ],
)
def test_license_names(address: str, name: str) -> None:
    assert jamendo.license_name(address) == name
    assert jamendo.is_allowed_license(name, ["cc0"]) == (name == "CC0")
