"""Music with its covers from Jamendo: `python -m diffuse.collect.jamendo --out F --tags ambient`.

Uses Jamendo's API v3.0 (https://developer.jamendo.com/v3.0/tracks). The API key ("client id") is
read from the environment variable JAMENDO_CLIENT_ID when the command runs, and is written nowhere.
Every track keeps its artist, its page and its licence in metadata.csv.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from align.audio.files import AudioError
from diffuse.collect.download import Fetcher, FetchError
from diffuse.collect.media import lasts, save_sound, sound_between
from diffuse.collect.table import ORIGIN, Table, Tally

API = "https://api.jamendo.com/v3.0/tracks/"
COLUMNS = ("file_name", "image", "caption", "label", *ORIGIN)
PAGE = 100  # tracks an answer
LARGEST_COVER = 600  # pixels, the largest that the API serves
CREATIVE_COMMONS = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)")
PUBLIC_DOMAIN = re.compile(r"creativecommons\.org/publicdomain/(zero|mark)/")


class KeyMissing(ValueError):
    """JAMENDO_CLIENT_ID is not set."""


def licence(address: str) -> str:
    """The short name of a licence's address: "CC-BY-SA-3.0", "CC0", or "" if it is not known."""
    found = CREATIVE_COMMONS.search(address)
    if found:
        return f"CC-{found[1].upper()}-{found[2]}"
    return "CC0" if PUBLIC_DOMAIN.search(address) else ""


def allowed(name: str, wanted: Sequence[str]) -> bool:
    """Whether a licence's short name is one of those wanted ("CC-BY", "CC0"), of any version."""
    family = re.sub(r"-\d\.\d$", "", name)
    return bool(name) and family in {w.upper() for w in wanted}


def caption(track: dict[str, Any]) -> str:
    """What a track sounds like, by its tags; its title where it has none."""
    tags = track.get("musicinfo", {}).get("tags", {})
    genres, instruments = tags.get("genres", []), tags.get("instruments", [])
    if not genres and not instruments:
        return f"music: {track['name']}"
    kind = " ".join([*genres[:2], "music"])
    return f"{kind} with {' and '.join(instruments[:2])}" if instruments else kind


class Jamendo:
    """Tracks of Jamendo, page by page.

    Args:
        fetcher: gets addresses.
        client_id: the API key.
        api: the tracks' address.
    """

    def __init__(self, fetcher: Fetcher, client_id: str, api: str = API) -> None:
        self.fetcher = fetcher
        self._client_id = client_id
        self._api = api

    @classmethod
    def from_environment(cls, fetcher: Fetcher, api: str = API) -> Jamendo:
        """With the key that stands in JAMENDO_CLIENT_ID.

        Raises:
            KeyMissing: none does.
        """
        key = os.environ.get("JAMENDO_CLIENT_ID", "").strip()
        if not key:
            raise KeyMissing(
                "set JAMENDO_CLIENT_ID to your API key; devportal.jamendo.com gives one for free"
            )
        return cls(fetcher, key, api)

    def tracks(self, tags: Sequence[str]) -> Iterator[dict[str, Any]]:
        """All tracks that carry one of the tags, the most popular first.

        Raises:
            FetchError: the API does not answer, or refuses; its own words are in the message.
        """
        wanted = {"fuzzytags": " ".join(tags)} if tags else {}
        fixed = {"format": "json", "limit": PAGE, "include": "musicinfo licenses"}
        more = {"imagesize": LARGEST_COVER, "audioformat": "mp32", "order": "popularity_total"}
        offset = 0
        while True:
            place = {"client_id": self._client_id, "offset": offset}
            answer = self.fetcher.json(self._api, fixed | more | wanted | place)
            head = answer.get("headers", {}) if isinstance(answer, dict) else {}
            if head.get("status") != "success":
                reason = head.get("error_message") or "no reason given"
                raise FetchError(f"Jamendo refuses the request: {reason}")
            yield from answer["results"]
            if len(answer["results"]) < PAGE:
                return
            offset += PAGE


def collect(
    source: Jamendo,
    out: Path,
    tags: Sequence[str],
    licences: Sequence[str],
    limit: int,
    snippet_s: float,
) -> Tally:
    """Saves snippets and covers until `limit` tracks are in the folder.

    Args:
        source: where tracks come from.
        out: where sounds/, images/ and metadata.csv go.
        tags: of which a track carries at least one; all tracks without any.
        licences: families that are kept, as "CC-BY".
        limit: tracks in the folder at the end, those of earlier calls included.
        snippet_s: seconds of a snippet, cut from a track's middle.
    """
    table, tally = Table(out, COLUMNS, "file_name"), Tally()
    tally.there = len(table.keys)
    for track in source.tracks(tags):
        if len(table.keys) >= limit:
            break
        stem, name = f"jamendo-{track['id']}", licence(track.get("license_ccurl", ""))
        if f"sounds/{stem}.flac" in table.keys:
            continue
        if not allowed(name, licences):
            tally.leave_out(stem, "under another licence", name or "no known licence")
        elif not track.get("audio") or not track.get("image"):
            tally.leave_out(stem, "without sound or cover")
        else:
            _add(source.fetcher, track, stem, name, snippet_s, table, tally)
    return tally


def _add(
    fetcher: Fetcher,
    track: dict[str, Any],
    stem: str,
    name: str,
    snippet_s: float,
    table: Table,
    tally: Tally,
) -> None:
    sound, image = f"sounds/{stem}.flac", f"images/{stem}.jpg"
    whole = table.folder / f"sounds/{stem}.mp3"
    try:
        fetcher.save(track["image"], table.folder / image)
        _check_picture(table.folder / image)
        fetcher.save(track["audio"], whole)
        middle = (float(track.get("duration") or 0) - snippet_s) / 2
        start_s = middle if middle > 0 and lasts(whole, middle) else 0.0
        save_sound(sound_between(whole, start_s, snippet_s), table.folder / sound)
    except (FetchError, AudioError, OSError) as error:
        kind = "not to be fetched" if isinstance(error, FetchError) else "unreadable or silent"
        tally.leave_out(stem, kind, str(error))
        (table.folder / image).unlink(missing_ok=True)
        return
    finally:
        whole.unlink(missing_ok=True)
    tags = track.get("musicinfo", {}).get("tags", {}).get("genres", [])
    said = {"caption": caption(track), "label": tags[0] if tags else "music"}
    origin = (track["name"], track["artist_name"], track.get("shareurl", ""), name)
    row = {"file_name": sound, "image": image, **said}
    table.add(row | dict(zip(ORIGIN, origin, strict=True)), sound)
    tally.saved += 1


def _check_picture(path: Path) -> None:
    """Raises OSError if it is none."""
    with Image.open(path) as picture:
        picture.verify()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m diffuse.collect.jamendo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--tags", nargs="+", default=[], help="genres, moods, instruments")
    parser.add_argument(
        "--licences",
        nargs="+",
        default=["CC0", "CC-BY", "CC-BY-SA"],
        help="licence families kept (default: those that allow any use with credit)",
    )
    parser.add_argument("--limit", type=int, default=100, help="tracks in the folder at the end")
    parser.add_argument("--snippet_s", type=float, default=10.0, help="seconds of a snippet")
    parser.add_argument("--api", default=API, help="address of the tracks' API")
    options = parser.parse_args(arguments)
    if options.snippet_s < 1 or options.limit < 1:
        parser.error("--snippet_s and --limit are at least 1")
    try:
        source = Jamendo.from_environment(Fetcher(), options.api)
        tally = collect(
            source, options.out, options.tags, options.licences, options.limit, options.snippet_s
        )
    except (ValueError, FetchError, OSError) as error:
        raise SystemExit(f"diffuse.collect.jamendo: {error}") from error
    print(tally.report(options.out))


if __name__ == "__main__":
    main()
