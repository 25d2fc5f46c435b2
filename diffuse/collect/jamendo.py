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
from diffuse.collect.download import Downloader, DownloadError
from diffuse.collect.media import is_longer_than, read_audio_segment, save_audio
from diffuse.collect.table import PROVENANCE_COLUMNS, CollectionStats, MetadataTable

API_URL = "https://api.jamendo.com/v3.0/tracks/"
COLUMNS = ("file_name", "image", "caption", "label", *PROVENANCE_COLUMNS)
PAGE_SIZE = 100  # tracks an answer
MAX_COVER_SIZE = 600  # pixels, the largest that the API serves
CREATIVE_COMMONS = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)")
PUBLIC_DOMAIN = re.compile(r"creativecommons\.org/publicdomain/(zero|mark)/")


class MissingAPIKeyError(ValueError):
    """JAMENDO_CLIENT_ID is not set."""


def license_name(address: str) -> str:
    """The short name of a licence's address: "CC-BY-SA-3.0", "CC0", or "" if it is not known."""
    found = CREATIVE_COMMONS.search(address)
    if found:
        return f"CC-{found[1].upper()}-{found[2]}"
    return "CC0" if PUBLIC_DOMAIN.search(address) else ""


def is_allowed_license(name: str, wanted: Sequence[str]) -> bool:
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


class JamendoClient:
    """Tracks of Jamendo, page by page.

    Args:
        fetcher: gets addresses.
        client_id: the API key.
        api: the tracks' address.
    """

    def __init__(self, downloader: Downloader, client_id: str, api_url: str = API_URL) -> None:
        self.downloader = downloader
        self._client_id = client_id
        self._api_url = api_url

    @classmethod
    def from_environment(cls, downloader: Downloader, api_url: str = API_URL) -> JamendoClient:
        """With the key that stands in JAMENDO_CLIENT_ID.

        Raises:
            KeyMissing: none does.
        """
        key = os.environ.get("JAMENDO_CLIENT_ID", "").strip()
        if not key:
            raise MissingAPIKeyError(
                "set JAMENDO_CLIENT_ID to your API key; devportal.jamendo.com gives one for free"
            )
        return cls(downloader, key, api_url)

    def tracks(self, tags: Sequence[str]) -> Iterator[dict[str, Any]]:
        """All tracks that carry one of the tags, the most popular first.

        Raises:
            FetchError: the API does not answer, or refuses; its own words are in the message.
        """
        query = {"fuzzytags": " ".join(tags)} if tags else {}
        fixed = {"format": "json", "limit": PAGE_SIZE, "include": "musicinfo licenses"}
        more = {"imagesize": MAX_COVER_SIZE, "audioformat": "mp32", "order": "popularity_total"}
        offset = 0
        while True:
            place = {"client_id": self._client_id, "offset": offset}
            response = self.downloader.json(self._api_url, fixed | more | query | place)
            head = response.get("headers", {}) if isinstance(response, dict) else {}
            if head.get("status") != "success":
                reason = head.get("error_message") or "no reason given"
                raise DownloadError(f"Jamendo refuses the request: {reason}")
            yield from response["results"]
            if len(response["results"]) < PAGE_SIZE:
                return
            offset += PAGE_SIZE


def collect(
    client: JamendoClient,
    output_dir: Path,
    tags: Sequence[str],
    licenses: Sequence[str],
    max_samples: int,
    clip_length_s: float,
) -> CollectionStats:
    """Saves snippets and covers until `limit` tracks are in the folder.

    Args:
        source: where tracks come from.
        out: where sounds/, images/ and metadata.csv go.
        tags: of which a track carries at least one; all tracks without any.
        licences: families that are kept, as "CC-BY".
        limit: tracks in the folder at the end, those of earlier calls included.
        snippet_s: seconds of a snippet, cut from a track's middle.
    """
    table, tally = MetadataTable(output_dir, COLUMNS, "file_name"), CollectionStats()
    tally.existing = len(table.keys)
    for track in client.tracks(tags):
        if len(table.keys) >= max_samples:
            break
        stem, name = f"jamendo-{track['id']}", license_name(track.get("license_ccurl", ""))
        if f"audio/{stem}.flac" in table.keys:
            continue
        if not is_allowed_license(name, licenses):
            tally.skip(stem, "under another licence", name or "no known licence")
        elif not track.get("audio") or not track.get("image"):
            tally.skip(stem, "without sound or cover")
        else:
            _add(client.downloader, track, stem, name, clip_length_s, table, tally)
    return tally


def _add(
    downloader: Downloader,
    track: dict[str, Any],
    stem: str,
    name: str,
    clip_length_s: float,
    table: MetadataTable,
    tally: CollectionStats,
) -> None:
    audio, image = f"audio/{stem}.flac", f"images/{stem}.jpg"
    whole = table.folder / f"audio/{stem}.mp3"
    try:
        downloader.save(track["image"], table.folder / image)
        _check_image(table.folder / image)
        downloader.save(track["audio"], whole)
        middle = (float(track.get("duration") or 0) - clip_length_s) / 2
        start_s = middle if middle > 0 and is_longer_than(whole, middle) else 0.0
        save_audio(read_audio_segment(whole, start_s, clip_length_s), table.folder / audio)
    except (DownloadError, AudioError, OSError) as error:
        kind = "not to be fetched" if isinstance(error, DownloadError) else "unreadable or silent"
        tally.skip(stem, kind, str(error))
        (table.folder / image).unlink(missing_ok=True)
        return
    finally:
        whole.unlink(missing_ok=True)
    tags = track.get("musicinfo", {}).get("tags", {}).get("genres", [])
    text_columns = {"caption": caption(track), "label": tags[0] if tags else "music"}
    provenance = (track["name"], track["artist_name"], track.get("shareurl", ""), name)
    row = {"file_name": audio, "image": image, **text_columns}
    table.add(row | dict(zip(PROVENANCE_COLUMNS, provenance, strict=True)), audio)
    tally.saved += 1


def _check_image(path: Path) -> None:
    """Raises OSError if it is none."""
    with Image.open(path) as image:
        image.verify()


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m diffuse.collect.jamendo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="the folder to fill")
    parser.add_argument("--tags", nargs="+", default=[], help="genres, moods, instruments")
    parser.add_argument(
        "--licenses",
        nargs="+",
        default=["CC0", "CC-BY", "CC-BY-SA"],
        help="licence families kept (default: those that allow any use with credit)",
    )
    parser.add_argument(
        "--max_samples", type=int, default=100, help="tracks in the folder at the end"
    )
    parser.add_argument("--clip_length_s", type=float, default=10.0, help="seconds of a snippet")
    parser.add_argument("--api_url", default=API_URL, help="address of the tracks' API")
    options = parser.parse_args(arguments)
    if options.clip_length_s < 1 or options.max_samples < 1:
        parser.error("--snippet_s and --limit are at least 1")
    try:
        client = JamendoClient.from_environment(Downloader(), options.api_url)
        tally = collect(
            client,
            options.output_dir,
            options.tags,
            options.licenses,
            options.max_samples,
            options.clip_length_s,
        )
    except (ValueError, DownloadError, OSError) as error:
        raise SystemExit(f"diffuse.collect.jamendo: {error}") from error
    print(tally.report(options.output_dir))


if __name__ == "__main__":
    main()
