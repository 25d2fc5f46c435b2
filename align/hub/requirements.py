"""What a run needs of the hub: which repositories, and which of their files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from align.hub.errors import asking
from align.hub.model_card import CARD
from align.hub.provenance import UNSTATED, origin

if TYPE_CHECKING:
    from align.config.options import Options


WEIGHTS = (".safetensors", ".bin")  # the first kind that is there is what is loaded
READ = (".json", ".txt", ".model")
DATA = (
    ".parquet", ".csv", ".tsv", ".json", ".jsonl", ".arrow", ".zip", ".tar", ".gz", ".tgz",
    ".wav", ".flac", ".mp3", ".ogg",
)  # fmt: skip
DRAWS = ("unet", "transformer", "vae")


@dataclass(frozen=True)
class Need:
    """Files of one repository.

    Attributes:
        part: what they are for: base, backbone, data, ….
        repo_id: on the hub.
        repo_type: "model" or "dataset".
        licence: as the hub states it.
        sizes: bytes by file, of all that is needed.
        commit: which state of the repository.
        gated: whether its terms must be accepted first.
    """

    part: str
    repo_id: str
    repo_type: str = "model"
    licence: str = UNSTATED
    sizes: tuple[tuple[str, int], ...] = ()
    commit: str = ""
    gated: bool = False

    def missing(self) -> dict[str, int]:
        """Bytes by file of what is not in the cache yet."""
        from huggingface_hub import try_to_load_from_cache

        def here(name: str) -> bool:
            path = try_to_load_from_cache(
                self.repo_id, name, revision=self.commit, repo_type=self.repo_type
            )
            return isinstance(path, str)

        return {name: size for name, size in self.sizes if not here(name)}


def needs(options: Options) -> list[Need]:
    """What the options ask of the hub; what lies here or comes with this package is left out.

    Raises:
        HubError: the hub cannot be reached, or has no such repository.
    """
    evaluation, loss, data = options.evaluation, options.loss, options.data
    draws = evaluation.pictures or evaluation.samples or loss.distillation_weight
    named: list[tuple[str, str, str | None]] = [("base", "base", b) for b in options.model.base]
    if options.model.start is None:
        named.append(("backbone", "backbone", options.model.backbone))
    else:
        named.append(("encoder", "backbone", options.model.start))
    if not data.streaming:  # else it passes while it trains
        named.append(("data", "data", data.data))
    named += [("test data", "data", data.eval_data), ("more data", "data", data.extra_data)]
    named.append(("captioner", "captioner", data.captioner))
    found = []
    for part, kind, name in named:
        hub = None if name is None else origin(kind, name).hub
        if hub is not None:
            found.append(asked(part, hub, bool(draws)))
    return found


def asked(part: str, repo_id: str, draws: bool) -> Need:
    """What of a repository is needed for a part of a run, as the hub answers.

    Raises:
        HubError: the hub cannot be reached, or has no such repository.
    """
    from huggingface_hub import HfApi

    repo_type = "dataset" if part.endswith("data") else "model"
    with asking(repo_id):
        ask = HfApi().dataset_info if repo_type == "dataset" else HfApi().model_info
        info: Any = ask(repo_id, files_metadata=True)
        sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
        need = Need(part, repo_id, repo_type, commit=info.sha or "", gated=bool(info.gated))
        wanted = _wanted(need, sizes, draws)
    card = info.card_data or {}
    stated = card.get("license_name") or card.get("license")
    if isinstance(stated, list):
        stated = ", ".join(stated)
    kind = part if part in ("base", "captioner") else "backbone"
    kind = "data" if repo_type == "dataset" else kind
    return replace(
        need,
        licence=stated or origin(kind, repo_id).licence,
        sizes=tuple((name, sizes[name]) for name in sorted(wanted)),
    )


def _wanted(need: Need, names: Iterable[str], draws: bool) -> set[str]:
    names = list(names)
    if need.repo_type == "dataset":
        found = {name for name in names if name.endswith(DATA)}
    elif need.part == "base":
        parts = _base_parts(need, draws)
        found = {"model_index.json"}
        for folder in parts:
            found |= loaded_files([n for n in names if str(PurePosixPath(n).parent) == folder])
    else:
        found = loaded_files([name for name in names if "/" not in name])
    return (found | {CARD}) & set(names)


def _base_parts(need: Need, draws: bool) -> list[str]:
    """The folders of a pipeline that are loaded: see `align.prompts.loading`."""
    from huggingface_hub import hf_hub_download

    index = json.loads(Path(hf_hub_download(need.repo_id, "model_index.json")).read_text())
    parts = {k: v for k, v in index.items() if isinstance(v, list) and v[0]}
    large = {k for k, (_, kind) in parts.items() if str(kind).startswith("T5")}
    large |= {name.replace("text_encoder", "tokenizer") for name in large}
    left_out = {"safety_checker", "image_encoder", *large, *(() if draws else DRAWS)}
    kept = [name for name in parts if name not in left_out]
    # Where nothing is drawn, a transformer's configuration still tells the prompt's width.
    return [*kept, *(["transformer"] if "transformer" in parts and not draws else [])]


def loaded_files(names: Sequence[str]) -> set[str]:
    """Of one folder's files those that from_pretrained reads: no variants, one kind of weights."""
    plain = [name for name in names if not _is_variant(PurePosixPath(name).name)]
    found = {name for name in plain if name.endswith(READ)}
    for kind in WEIGHTS:
        weights = {name for name in plain if name.endswith(kind)}
        if weights:
            return found | weights
    return found


def _is_variant(name: str) -> bool:
    # model.fp16.safetensors, and model.fp16.safetensors.index.json of one in several files.
    return len(name.removesuffix(".index.json").split(".")) > 2
