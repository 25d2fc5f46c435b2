"""Repositories and files that a run needs from the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from align.hub.errors import hub_errors
from align.hub.model_card import MODEL_CARD_NAME
from align.hub.provenance import UNSTATED, provenance_of

if TYPE_CHECKING:
    from align.config.options import Options


WEIGHT_EXTENSIONS = (".safetensors", ".bin")  # the first existing kind is loaded
CONFIG_EXTENSIONS = (".json", ".txt", ".model")
DATA_EXTENSIONS = (
    ".parquet", ".csv", ".tsv", ".json", ".jsonl", ".arrow", ".zip", ".tar", ".gz", ".tgz",
    ".wav", ".flac", ".mp3", ".ogg",
)  # fmt: skip
IMAGE_COMPONENTS = ("unet", "transformer", "vae")


@dataclass(frozen=True)
class RequiredRepo:
    """Required files of one repository.

    Attributes:
        part: Part of the run: base_model, backbone, encoder, dataset, captioner, ….
        repo_id: Id on the Hub.
        repo_type: "model" or "dataset".
        license: License as stated on the Hub.
        sizes: Pairs of file name and size in bytes.
        commit: Commit hash of the repository.
        gated: Whether its terms must be accepted first.
    """

    part: str
    repo_id: str
    repo_type: str = "model"
    license: str = UNSTATED
    sizes: tuple[tuple[str, int], ...] = ()
    commit: str = ""
    gated: bool = False

    def missing(self) -> dict[str, int]:
        """Return the sizes in bytes of the files that are not cached, by name."""
        from huggingface_hub import try_to_load_from_cache

        def is_cached(name: str) -> bool:
            path = try_to_load_from_cache(
                self.repo_id, name, revision=self.commit, repo_type=self.repo_type
            )
            return isinstance(path, str)

        return {name: size for name, size in self.sizes if not is_cached(name)}


def required_repos(options: Options) -> list[RequiredRepo]:
    """Return the repositories that a run needs, without local files and parts of this package.

    Args:
        options: Options of the run.

    Raises:
        HubError: If the Hub cannot be reached, or a repository does not exist.
    """
    evaluation, loss, data = options.evaluation, options.loss, options.data
    generates_images = (
        evaluation.num_images or evaluation.num_sheet_samples or loss.distillation_weight
    )
    named: list[tuple[str, str, str | None]] = [
        ("base_model", "base_model", b) for b in options.model.base_model
    ]
    if options.model.init_from is None:
        named.append(("backbone", "backbone", options.model.backbone))
    else:
        named.append(("encoder", "backbone", options.model.init_from))
    if not data.streaming:  # streamed datasets are not downloaded
        named.append(("dataset", "dataset", data.dataset))
    named += [
        ("test dataset", "dataset", data.eval_dataset),
        ("more dataset", "dataset", data.extra_dataset),
    ]
    named.append(("captioner", "captioner", data.captioner))
    found = []
    for part, kind, name in named:
        repo_id = None if name is None else provenance_of(kind, name).repo_id
        if repo_id is not None:
            found.append(repo_files(part, repo_id, bool(generates_images)))
    return found


def repo_files(part: str, repo_id: str, generates_images: bool) -> RequiredRepo:
    """Return the files of a repository that a part of a run needs.

    Args:
        part: Part of the run, see `RequiredRepo`.
        repo_id: Id on the Hub.
        generates_images: Whether the run generates images or uses the UNet.

    Raises:
        HubError: If the Hub cannot be reached, or the repository does not exist.
    """
    from huggingface_hub import HfApi

    repo_type = "dataset" if part.endswith("dataset") else "model"
    with hub_errors(repo_id):
        get_info = HfApi().dataset_info if repo_type == "dataset" else HfApi().model_info
        info: Any = get_info(repo_id, files_metadata=True)
        sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
        repo = RequiredRepo(part, repo_id, repo_type, commit=info.sha or "", gated=bool(info.gated))
        required = _required_files(repo, sizes, generates_images)
    card = info.card_data or {}
    stated = card.get("license_name") or card.get("license")
    if isinstance(stated, list):
        stated = ", ".join(stated)
    kind = part if part in ("base_model", "captioner") else "backbone"
    kind = "dataset" if repo_type == "dataset" else kind
    return replace(
        repo,
        license=stated or provenance_of(kind, repo_id).license,
        sizes=tuple((name, sizes[name]) for name in sorted(required)),
    )


def _required_files(repo: RequiredRepo, names: Iterable[str], generates_images: bool) -> set[str]:
    names = list(names)
    if repo.repo_type == "dataset":
        found = {name for name in names if name.endswith(DATA_EXTENSIONS)}
    elif repo.part == "base_model":
        parts = _base_parts(repo, generates_images)
        found = {"model_index.json"}
        for folder in parts:
            found |= loaded_files([n for n in names if str(PurePosixPath(n).parent) == folder])
    else:
        found = loaded_files([name for name in names if "/" not in name])
    return (found | {MODEL_CARD_NAME}) & set(names)


def _base_parts(repo: RequiredRepo, generates_images: bool) -> list[str]:
    """Return the folders of a pipeline that `align.prompts.loading` loads."""
    from huggingface_hub import hf_hub_download

    index = json.loads(Path(hf_hub_download(repo.repo_id, "model_index.json")).read_text())
    parts = {k: v for k, v in index.items() if isinstance(v, list) and v[0]}
    large = {k for k, (_, kind) in parts.items() if str(kind).startswith("T5")}
    large |= {name.replace("text_encoder", "tokenizer") for name in large}
    unused = {
        "safety_checker",
        "image_encoder",
        *large,
        *(() if generates_images else IMAGE_COMPONENTS),
    }
    kept = [name for name in parts if name not in unused]
    # Without images, the configuration of a transformer still defines the width of the prompt.
    return [*kept, *(["transformer"] if "transformer" in parts and not generates_images else [])]


def loaded_files(names: Sequence[str]) -> set[str]:
    """Return the files that `from_pretrained` loads: no variants, one format of weights."""
    plain = [name for name in names if not _is_variant(PurePosixPath(name).name)]
    found = {name for name in plain if name.endswith(CONFIG_EXTENSIONS)}
    for kind in WEIGHT_EXTENSIONS:
        weights = {name for name in plain if name.endswith(kind)}
        if weights:
            return found | weights
    return found


def _is_variant(name: str) -> bool:
    # model.fp16.safetensors, or model.fp16.safetensors.index.json of sharded weights.
    return len(name.removesuffix(".index.json").split(".")) > 2
