"""What an encoder does to be found again: its card beside its weights, and its way to the hub."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi

from align.hub.errors import asking
from align.hub.model_card import FIGURES, SHEET, TOLD, public, write_card


def upload(
    encoder: Any,
    repo_id: str,
    *,
    run: str | os.PathLike[str] | None,
    private: bool | None,
    token: bool | str | None,
    revision: str | None,
    commit_message: str,
) -> str:
    """Uploads an encoder; `AudioPromptEncoder.push_to_hub` says what its arguments are."""
    api = HfApi(library_name="soundprompt", token=token)
    with asking(repo_id), TemporaryDirectory() as folder:
        whole = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(whole, branch=revision, exist_ok=True)
        gather(encoder, Path(folder), None if run is None else Path(run), whole)
        done = api.upload_folder(
            repo_id=whole, folder_path=folder, revision=revision, commit_message=commit_message
        )
    return str(done.commit_url)


def gather(encoder: Any, folder: Path, run: Path | None, name: str) -> None:
    """Fills a folder with all that goes up.

    Args:
        encoder: what is published.
        folder: empty.
        run: where its figures and samples lie.
        name: what the card calls it.
    """
    encoder.save_pretrained(folder)
    if run is not None:
        for file in (TOLD, FIGURES, SHEET):
            if (run / file).is_file():
                shutil.copy(run / file, folder / file)
    write_card(folder, name)
    # The card has told of the run what others need; its captions may be nobody else's business.
    (folder / TOLD).unlink(missing_ok=True)
    if (folder / FIGURES).is_file():
        figures = json.loads((folder / FIGURES).read_text())
        figures["measured_on"] = public(figures["measured_on"])
        (folder / FIGURES).write_text(json.dumps(figures, indent=2) + "\n")
