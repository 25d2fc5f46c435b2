"""Fetches what a recipe needs: `python -m align.download [RECIPE] [--yes] [--option value ...]`.

Sizes and licences are said first. What is here already is not fetched again, and what broke off
goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from align.config.options import parse_options
from align.preprocessing.cache import human
from align.training.validation import check_model

if TYPE_CHECKING:
    from align.hub.requirements import Need


@dataclass
class DownloadArguments:
    """How to fetch."""

    yes: bool = field(default=False, metadata={"help": "fetch without asking"})


def main(arguments: Sequence[str] | None = None) -> None:
    """Says what a recipe needs of the hub, asks, and fetches it."""
    options, download = parse_options(
        "python -m align.download", arguments, DownloadArguments, check=check_model
    )
    from align.data.errors import DataError
    from align.hub.requirements import needs

    try:
        found = needs(options)
        missing = [need.missing() for need in found]
        size = sum(sum(files.values()) for files in missing)
        print(told(found, missing))
        start = options.model.start
        fetched = any(need.part == "encoder" for need in found)
        lacking = start is not None and not fetched and not Path(start).expanduser().exists()
        if lacking:
            print(f"--start {start} is not here: train first what leaves it there")
        if size:
            check_room(size)
            if not (download.yes or agreed(size)):
                print("Nothing was fetched.")
                return
        for need, files in zip(found, missing, strict=True):
            fetch(need, list(files))
    except (DataError, ValueError, OSError) as error:
        raise SystemExit(f"align.download: {error}") from error
    if found and not lacking:
        print("All that the recipe needs is here: it runs without a network from now on.")


def told(found: Sequence[Need], missing: Sequence[dict[str, int]]) -> str:
    """A line for each repository: what for, how much, under which licence."""
    if not found:
        return "The recipe needs nothing of the hub."
    lines = []
    for need, files in zip(found, missing, strict=True):
        whole = sum(size for _, size in need.sizes)
        left = sum(files.values())
        here = "" if left == whole else f", {human(whole - left)} of it here already"
        gated = ", gated: accept its terms on its page" if need.gated else ""
        lines.append(
            f"{need.part}: {need.repo_id}, {human(whole)}{here}; licence: {need.licence}{gated}"
        )
    return "\n".join(lines)


def check_room(size: int) -> None:
    """Refuses what does not fit on the disk.

    Raises:
        OSError: there is not enough room.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if size > free:
        raise OSError(
            f"{human(size)} are to be fetched and {cache} has room for {human(free)}: "
            "make room, or set HF_HOME to a folder on another disk"
        )


def agreed(size: int) -> bool:
    """Whether the user says yes."""
    try:
        answer = input(f"Fetch {human(size)}? [y/N] ")
    except EOFError:
        print("\nNobody answers here: give --yes to fetch without asking.")
        return False
    return answer.strip().lower() in ("y", "yes")


def fetch(need: Need, files: Sequence[str]) -> None:
    """Brings files of a repository into the hub's cache, and unpacks a data set's rows.

    Raises:
        DataError: the data set's files cannot be read.
        HubError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import hf_hub_download

    from align.hub.errors import asking

    with asking(need.repo_id):
        for name in files:
            hf_hub_download(need.repo_id, name, repo_type=need.repo_type)
    if need.repo_type == "dataset":
        from align.data.tables import unpack_hub

        unpack_hub(need.repo_id)


if __name__ == "__main__":
    main()
