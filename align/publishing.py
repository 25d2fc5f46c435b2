"""What an encoder does to be found again: its card beside its weights, and its way to the hub."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from align.cards import FIGURES, SHEET, TOLD, public, write_card


class Publishing:
    """Saving with a card, and `push_to_hub`: for a `PreTrainedModel` with a feature extractor."""

    extractor: Any

    def save_pretrained(
        self, where: str | os.PathLike[str], *args: Any, push_to_hub: bool = False, **kwargs: Any
    ) -> None:
        """Saves the whole encoder to a folder: weights, feature extractor, model card."""
        named = {k: kwargs.pop(k) for k in ("repo_id", "private", "revision") if k in kwargs}
        super().save_pretrained(where, *args, **kwargs)  # type: ignore[misc]
        if kwargs.get("is_main_process", True):
            self.extractor.save_pretrained(where)
            write_card(Path(where))
        if push_to_hub:
            repo_id = named.pop("repo_id", None) or Path(where).resolve().name
            self.push_to_hub(repo_id, run=where, token=kwargs.get("token"), **named)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        run: str | os.PathLike[str] | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload encoder",
    ) -> str:
        """Uploads the encoder with its card to the hub, and a run's figures and samples.

        Checkpoints, captions and the paths of local data stay here.

        Args:
            repo_id: OWNER/NAME, or NAME of one's own.
            run: the folder in which `align.train` left this encoder's figures.
            private: whether a new repository is private; the owner's default if not given.
            token: to log in with; the stored one by default.
            revision: the branch; it is made where it is not there.
            commit_message: of the upload.

        Returns:
            The address of the upload.

        Raises:
            HubError: the hub cannot be reached, or refuses.
        """
        from huggingface_hub import HfApi

        from align.hub import asking

        api = HfApi(library_name="soundprompt", token=token)
        with asking(repo_id), TemporaryDirectory() as folder:
            whole = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            if revision is not None:
                api.create_branch(whole, branch=revision, exist_ok=True)
            gather(self, Path(folder), None if run is None else Path(run), whole)
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
