"""Collect music with cover images from Jamendo.

Uses the Jamendo API v3.0 (https://developer.jamendo.com/v3.0/tracks). The API key ("client id") is
read from the environment variable JAMENDO_CLIENT_ID and is not saved. metadata.csv contains the
artist, the page and the license of every track.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from align.audio.files import AudioError
from align.cli import CommandParser, argument_group
from diffuse.collect.download import Downloader, DownloadError
from diffuse.collect.media import is_longer_than, read_audio_segment, save_audio
from diffuse.collect.table import (
    PROVENANCE_COLUMNS,
    CollectionStats,
    MetadataTable,
    add_output_dir,
)

API_URL = "https://api.jamendo.com/v3.0/tracks/"
COLUMNS = ("file_name", "image", "caption", "label", *PROVENANCE_COLUMNS)
PAGE_SIZE = 100  # tracks per response
MAX_COVER_SIZE = 600  # maximum of the API, in pixels
CREATIVE_COMMONS = re.compile(r"creativecommons\.org/licenses/([a-z-]+)/(\d\.\d)")
PUBLIC_DOMAIN = re.compile(r"creativecommons\.org/publicdomain/(zero|mark)/")


COMMAND = "python -m diffuse.collect.jamendo"
EXAMPLES = (
    f"{COMMAND} --tags ambient piano --output_dir jamendo",
    f"{COMMAND} --tags rock --licenses CC0 CC-BY --max_samples 1000 --output_dir jamendo",
)


class MissingAPIKeyError(ValueError):
    """JAMENDO_CLIENT_ID is not set."""


def license_name(address: str) -> str:
    """Return the short name of a license: "CC-BY-SA-3.0", "CC0", or "" if it is unknown.

    Args:
        address: URL of the license.
    """
    found = CREATIVE_COMMONS.search(address)
    if found:
        return f"CC-{found[1].upper()}-{found[2]}"
    return "CC0" if PUBLIC_DOMAIN.search(address) else ""


def is_allowed_license(name: str, wanted: Sequence[str]) -> bool:
    """Return whether a license belongs to one of the allowed families, in any version.

    Args:
        name: Short name of the license.
        wanted: Families such as "CC-BY" and "CC0".
    """
    family = re.sub(r"-\d\.\d$", "", name)
    return bool(name) and family in {w.upper() for w in wanted}


def caption(track: dict[str, Any]) -> str:
    """Return a caption of a track from its tags, or its title without tags.

    Args:
        track: Track of the API.
    """
    tags = track.get("musicinfo", {}).get("tags", {})
    genres, instruments = tags.get("genres", []), tags.get("instruments", [])
    if not genres and not instruments:
        return f"music: {track['name']}"
    kind = " ".join([*genres[:2], "music"])
    return f"{kind} with {' and '.join(instruments[:2])}" if instruments else kind


class JamendoClient:
    """Client of the Jamendo tracks API.

    Args:
        downloader: Downloads URLs.
        client_id: API key.
        api_url: URL of the tracks API.
    """

    def __init__(self, downloader: Downloader, client_id: str, api_url: str = API_URL) -> None:
        self.downloader = downloader
        self._client_id = client_id
        self._api_url = api_url

    @classmethod
    def from_environment(cls, downloader: Downloader, api_url: str = API_URL) -> JamendoClient:
        """Create a client with the API key in JAMENDO_CLIENT_ID.

        Args:
            downloader: Downloads URLs.
            api_url: URL of the tracks API.

        Raises:
            MissingAPIKeyError: If JAMENDO_CLIENT_ID is not set.
        """
        key = os.environ.get("JAMENDO_CLIENT_ID", "").strip()
        if not key:
            raise MissingAPIKeyError(
                "set JAMENDO_CLIENT_ID to your API key; get a free one at devportal.jamendo.com"
            )
        return cls(downloader, key, api_url)

    def tracks(self, tags: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Return all tracks with any of the tags, the most popular first.

        Args:
            tags: Genres, moods or instruments; all tracks if empty.

        Raises:
            DownloadError: If the API fails or rejects the request; the message includes its reason.
        """
        query = {"fuzzytags": " ".join(tags)} if tags else {}
        fixed = {"format": "json", "limit": PAGE_SIZE, "include": "musicinfo licenses"}
        more = {"imagesize": MAX_COVER_SIZE, "audioformat": "mp32", "order": "popularity_total"}
        offset = 0
        while True:
            page = {"client_id": self._client_id, "offset": offset}
            response = self.downloader.json(self._api_url, fixed | more | query | page)
            head = response.get("headers", {}) if isinstance(response, dict) else {}
            if head.get("status") != "success":
                reason = head.get("error_message") or "no reason given"
                raise DownloadError(f"Jamendo rejected the request: {reason}")
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
    """Save clips and covers until the output directory has `max_samples` tracks.

    Args:
        client: Client of the Jamendo API.
        output_dir: Output directory of audio/, images/ and metadata.csv.
        tags: Tags, of which a track has at least one; all tracks if empty.
        licenses: License families to keep, such as "CC-BY".
        max_samples: Maximum number of tracks in the output directory, including earlier ones.
        clip_length_s: Length of a clip in seconds, from the middle of the track.
    """
    table, stats = MetadataTable(output_dir, COLUMNS, "file_name"), CollectionStats()
    stats.existing = len(table.keys)
    for track in client.tracks(tags):
        if len(table.keys) >= max_samples:
            break
        stem, name = f"jamendo-{track['id']}", license_name(track.get("license_ccurl", ""))
        if f"audio/{stem}.flac" in table.keys:
            continue
        if not is_allowed_license(name, licenses):
            stats.skip(stem, "with another license", name or "no known license")
        elif not track.get("audio") or not track.get("image"):
            stats.skip(stem, "without audio or cover")
        else:
            _add(client.downloader, track, stem, name, clip_length_s, table, stats)
    return stats


def _add(
    downloader: Downloader,
    track: dict[str, Any],
    stem: str,
    name: str,
    clip_length_s: float,
    table: MetadataTable,
    stats: CollectionStats,
) -> None:
    audio, image = f"audio/{stem}.flac", f"images/{stem}.jpg"
    full_track = table.folder / f"audio/{stem}.mp3"
    try:
        downloader.save(track["image"], table.folder / image)
        _check_image(table.folder / image)
        downloader.save(track["audio"], full_track)
        middle = (float(track.get("duration") or 0) - clip_length_s) / 2
        start_s = middle if middle > 0 and is_longer_than(full_track, middle) else 0.0
        save_audio(read_audio_segment(full_track, start_s, clip_length_s), table.folder / audio)
    except (DownloadError, AudioError, OSError) as error:
        kind = "not downloadable" if isinstance(error, DownloadError) else "unreadable or silent"
        stats.skip(stem, kind, str(error))
        (table.folder / image).unlink(missing_ok=True)
        return
    finally:
        full_track.unlink(missing_ok=True)
    tags = track.get("musicinfo", {}).get("tags", {}).get("genres", [])
    text_columns = {"caption": caption(track), "label": tags[0] if tags else "music"}
    provenance = (track["name"], track["artist_name"], track.get("shareurl", ""), name)
    row = {"file_name": audio, "image": image, **text_columns}
    table.add(row | dict(zip(PROVENANCE_COLUMNS, provenance, strict=True)), audio)
    stats.saved += 1


def _check_image(path: Path) -> None:
    """Raise OSError if a file is not an image."""
    with Image.open(path) as image:
        image.verify()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    data = argument_group(parser, "data")
    data.add_argument(
        "--tags", nargs="+",
        help="Genres, moods or instruments; a track matches if it has any of them.",
    )  # fmt: skip
    data.add_argument(
        "--licenses", nargs="+", default=["CC0", "CC-BY", "CC-BY-SA"],
        help="License families to keep.",
    )  # fmt: skip
    data.add_argument(
        "--max_samples", type=int, default=100,
        help="Maximum number of tracks in the output directory, including earlier ones.",
    )  # fmt: skip
    data.add_argument(
        "--clip_length_s", type=float, default=10.0, help="Length of each clip in seconds."
    )
    data.add_argument("--api_url", default=API_URL, help="URL of the Jamendo tracks API.")
    add_output_dir(parser)
    options = parser.parse_args(arguments)
    if options.clip_length_s < 1 or options.max_samples < 1:
        parser.error("--clip_length_s and --max_samples must be at least 1")
    try:
        client = JamendoClient.from_environment(Downloader(), options.api_url)
        stats = collect(
            client,
            options.output_dir,
            options.tags or [],
            options.licenses,
            options.max_samples,
            options.clip_length_s,
        )
    except (ValueError, DownloadError, OSError) as error:
        raise SystemExit(f"diffuse.collect.jamendo: {error}") from error
    print(stats.report(options.output_dir))


if __name__ == "__main__":
    main()
