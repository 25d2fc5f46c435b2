"""Download the models and datasets of a recipe from the Hugging Face Hub.

Prints sizes and licenses first. Cached files are not downloaded again, and interrupted downloads
resume.
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


COMMAND = "python -m align.download"
EXAMPLES = (
    f"{COMMAND} fsd50k        the models and the dataset of a recipe",
    f"{COMMAND} fsd50k --yes  without asking for confirmation",
)


@dataclass
class DownloadArguments:
    """Options of the download."""

    yes: bool = field(default=False, metadata={"help": "Download without asking for confirmation."})


def main(arguments: Sequence[str] | None = None) -> None:
    """List what a recipe needs from the Hub, ask for confirmation, and download it."""
    options, download = parse_options(
        COMMAND, arguments, DownloadArguments, check=check_model, examples=EXAMPLES
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
            print(f"--init_from {init_from} does not exist: train that encoder first")
        if size:
            check_disk_space(size)
            if not (download.yes or confirm(size)):
                print("Nothing was downloaded.")
                return
        for repo, files in zip(found, missing, strict=True):
            fetch(repo, list(files))
    except (DataError, ValueError, OSError) as error:
        raise SystemExit(f"align.download: {error}") from error
    if found and not encoder_missing:
        print("Everything the recipe needs is downloaded: it now runs offline.")


def summarize(found: Sequence[RequiredRepo], missing: Sequence[dict[str, int]]) -> str:
    """Describe the repositories, one line each: part, size, license.

    Args:
        found: Required repositories.
        missing: Sizes of the files that are not cached, in bytes, for each repository.
    """
    if not found:
        return "The recipe needs nothing from the Hub."
    lines = []
    for repo, files in zip(found, missing, strict=True):
        whole = sum(size for _, size in repo.sizes)
        left = sum(files.values())
        here = "" if left == whole else f", {format_bytes(whole - left)} of it cached"
        gated = ", gated: accept its terms on its page" if repo.gated else ""
        lines.append(
            f"{repo.part}: {repo.repo_id}, {format_bytes(whole)}{here}; "
            f"license: {repo.license}{gated}"
        )
    return "\n".join(lines)


def check_disk_space(size: int) -> None:
    """Check that the download fits on the disk.

    Args:
        size: Size of the download in bytes.

    Raises:
        OSError: If there is not enough free space.
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    cache.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(cache).free
    if size > free:
        raise OSError(
            f"the download needs {format_bytes(size)} and {cache} has {format_bytes(free)} free: "
            "free up space, or set HF_HOME to a folder on another disk"
        )


def confirm(size: int) -> bool:
    """Ask whether to download `size` bytes and return whether the reply is yes."""
    try:
        reply = input(f"Download {format_bytes(size)}? [y/N] ")
    except EOFError:
        print("\nThere is no terminal to ask on: pass --yes to download without confirmation.")
        return False
    return reply.strip().lower() in ("y", "yes")


def fetch(repo: RequiredRepo, files: Sequence[str]) -> None:
    """Download files of a repository into the Hub's cache, and prepare the rows of a dataset.

    Args:
        repo: The repository.
        files: Names of the files in it.

    Raises:
        DataError: If the files of the dataset cannot be read.
        HubError: If the Hub cannot be reached or denies access.
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
