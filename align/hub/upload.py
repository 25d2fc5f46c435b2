"""What an encoder does to be found again: its card beside its weights, and its way to the hub."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from huggingface_hub import HfApi

from align.hub.errors import hub_errors
from align.hub.model_card import (
    METRICS_NAME,
    RUN_RECORD_NAME,
    SAMPLE_SHEET_NAME,
    strip_local_path,
    write_card,
)


def upload(
    encoder: Any,
    repo_id: str,
    *,
    run_dir: str | os.PathLike[str] | None,
    private: bool | None,
    token: bool | str | None,
    revision: str | None,
    commit_message: str,
) -> str:
    """Uploads an encoder; `AudioPromptEncoder.push_to_hub` says what its arguments are."""
    api = HfApi(library_name="soundprompt", token=token)
    with hub_errors(repo_id), TemporaryDirectory() as folder:
        whole = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(whole, branch=revision, exist_ok=True)
        collect_files(encoder, Path(folder), None if run_dir is None else Path(run_dir), whole)
        done = api.upload_folder(
            repo_id=whole, folder_path=folder, revision=revision, commit_message=commit_message
        )
    return str(done.commit_url)


def collect_files(encoder: Any, folder: Path, run_dir: Path | None, name: str) -> None:
    """Fills a folder with all that goes up.

    Args:
        encoder: what is published.
        folder: empty.
        run: where its figures and samples lie.
        name: what the card calls it.
    """
    encoder.save_pretrained(folder)
    if run_dir is not None:
        for file in (RUN_RECORD_NAME, METRICS_NAME, SAMPLE_SHEET_NAME):
            if (run_dir / file).is_file():
                shutil.copy(run_dir / file, folder / file)
    write_card(folder, name)
    # The card has told of the run what others need; its captions may be nobody else's business.
    (folder / RUN_RECORD_NAME).unlink(missing_ok=True)
    if (folder / METRICS_NAME).is_file():
        metrics = json.loads((folder / METRICS_NAME).read_text())
        metrics["evaluated_on"] = strip_local_path(metrics["evaluated_on"])
        (folder / METRICS_NAME).write_text(json.dumps(metrics, indent=2) + "\n")
