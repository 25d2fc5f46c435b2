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
from align.preprocessing.cache import format_bytes
from align.training.validation import check_model

if TYPE_CHECKING:
    from align.hub.requirements import RequiredRepo


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
    from align.hub.requirements import required_repos

    try:
        found = required_repos(options)
        missing = [repo.missing() for repo in found]
        size = sum(sum(files.values()) for files in missing)
        print(summarize(found, missing))
        init_from = options.model.init_from
        fetched = any(repo.part == "encoder" for repo in found)
        encoder_missing = (
            init_from is not None and not fetched and not Path(init_from).expanduser().exists()
        )
        if encoder_missing:
            print(f"--init_from {init_from} is not here: train first what leaves it there")
        if size:
            check_disk_space(size)
            if not (download.yes or confirm(size)):
                print("Nothing was fetched.")
                return
        for repo, files in zip(found, missing, strict=True):
            fetch(repo, list(files))
    except (DataError, ValueError, OSError) as error:
        raise SystemExit(f"align.download: {error}") from error
    if found and not encoder_missing:
        print("All that the recipe needs is here: it runs without a network from now on.")


def summarize(found: Sequence[RequiredRepo], missing: Sequence[dict[str, int]]) -> str:
    """A line for each repository: what for, how much, under which licence."""
    if not found:
        return "The recipe needs nothing of the hub."
    lines = []
    for repo, files in zip(found, missing, strict=True):
        whole = sum(size for _, size in repo.sizes)
        left = sum(files.values())
        here = "" if left == whole else f", {format_bytes(whole - left)} of it here already"
        gated = ", gated: accept its terms on its page" if repo.gated else ""
        lines.append(
            f"{repo.part}: {repo.repo_id}, {format_bytes(whole)}{here}; licence: {repo.license}{gated}"
        )
    return "\n".join(lines)


def check_disk_space(size: int) -> None:
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
            f"{format_bytes(size)} are to be fetched and {cache} has room for {format_bytes(free)}: "
            "make room, or set HF_HOME to a folder on another disk"
        )


def confirm(size: int) -> bool:
    """Whether the user says yes."""
    try:
        reply = input(f"Fetch {format_bytes(size)}? [y/N] ")
    except EOFError:
        print("\nNobody answers here: give --yes to fetch without asking.")
        return False
    return reply.strip().lower() in ("y", "yes")


def fetch(repo: RequiredRepo, files: Sequence[str]) -> None:
    """Brings files of a repository into the hub's cache, and unpacks a data set's rows.

    Raises:
        DataError: the data set's files cannot be read.
        HubError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import hf_hub_download

    from align.hub.errors import hub_errors

    with hub_errors(repo.repo_id):
        for name in files:
            hf_hub_download(repo.repo_id, name, repo_type=repo.repo_type)
    if repo.repo_type == "dataset":
        from align.data.tables import prepare_hub

        prepare_hub(repo.repo_id)


if __name__ == "__main__":
    main()
