"""Upload of an encoder to the Hugging Face Hub."""

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
    """Upload an encoder with its model card.

    Args:
        encoder: The encoder.
        repo_id: Hub repository.
        run_dir: Folder of the run, with metrics and samples.
        private: Whether a new repository is private.
        token: Access token, as in `huggingface_hub`.
        revision: Branch to upload to.
        commit_message: Message of the commit.

    Returns:
        Address of the commit.

    Raises:
        HubError: If the Hub cannot be reached or denies access.
    """
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
    """Collect the files to upload.

    Args:
        encoder: The encoder.
        folder: Empty folder for the files.
        run_dir: Folder of the run, with metrics and samples.
        name: Name of the encoder in the model card.
    """
    encoder.save_pretrained(folder)
    if run_dir is not None:
        for file in (RUN_RECORD_NAME, METRICS_NAME, SAMPLE_SHEET_NAME):
            if (run_dir / file).is_file():
                shutil.copy(run_dir / file, folder / file)
    write_card(folder, name)
    # The model card has what others need of the record; the training captions stay private.
    (folder / RUN_RECORD_NAME).unlink(missing_ok=True)
    if (folder / METRICS_NAME).is_file():
        metrics = json.loads((folder / METRICS_NAME).read_text())
        metrics["evaluated_on"] = strip_local_path(metrics["evaluated_on"])
        (folder / METRICS_NAME).write_text(json.dumps(metrics, indent=2) + "\n")
