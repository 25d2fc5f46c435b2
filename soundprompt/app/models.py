"""Find and load base models, encoders and adapters."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from align.registry import first_line
from diffuse.models.saving import LIBRARY_NAME
from soundprompt.app.arguments import AppArguments

MINI, NO_ADAPTER = "mini", "none"
MODEL_KINDS = ("base_model", "encoder", "adapter")
HUB_ID_PATTERN = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
MAX_DEPTH = 4  # search depth below the models folder


class ModelError(ValueError):
    """A requested model does not exist or cannot be loaded."""


@dataclass(frozen=True)
class ModelChoice:
    """Names of the selected models."""

    base_model: str = MINI
    encoder: str = MINI
    adapter: str = NO_ADAPTER


@dataclass
class AvailableModels:
    """Paths of the available base models, encoders and adapters by name."""

    base_model: dict[str, str] = field(default_factory=lambda: {MINI: MINI})
    encoder: dict[str, str] = field(default_factory=dict)
    adapter: dict[str, str] = field(default_factory=dict)


def model_kind(folder: Path) -> str | None:
    """Detect the kind of model in a folder.

    Args:
        folder: Folder of a model.

    Returns:
        "base_model", "encoder", "adapter", or None if it is neither.
    """
    if (folder / "model_index.json").is_file():
        return "base_model"
    config = _read(folder / "config.json")
    if config.get("library") == LIBRARY_NAME:
        return "adapter"
    return "encoder" if config.get("model_type") == "audio_prompt" else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def find_models(options: AppArguments) -> AvailableModels:
    """Search the folders of models and of runs. The name of the `mini` encoder is "mini".

    Args:
        options: Options of the app, for the folders.
    """
    found = AvailableModels(encoder={MINI: str(mini_encoder_dir(options))})
    for root in (Path(options.models_dir), Path(options.runs_dir)):
        for folder in _folders(root, MAX_DEPTH):
            kind = model_kind(folder)
            if kind is not None and folder != mini_encoder_dir(options):
                getattr(found, kind)[str(folder)] = str(folder)
    return found


def mini_encoder_dir(options: AppArguments) -> Path:
    """Folder of the `mini` encoder, whether it is trained yet or not.

    Args:
        options: Options of the app, for the folder of runs.
    """
    return Path(options.runs_dir) / "align" / "mini"


def _folders(root: Path, depth: int) -> Iterator[Path]:
    if not root.is_dir():
        return
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name.startswith((".", "checkpoint-")):
            continue
        yield folder
        if depth > 1 and model_kind(folder) is None:
            yield from _folders(folder, depth - 1)


def base_model_of(encoder: str, found: AvailableModels) -> str | None:
    """Find the base model that an encoder was trained for.

    Args:
        encoder: Name of the encoder.
        found: Available models.

    Returns:
        Name of the base model, or None if the encoder is not in `found`.
    """
    if encoder not in found.encoder:
        return None
    config = _read(Path(found.encoder[encoder]) / "config.json")
    base_model = config.get("default_space") or MINI
    return next(
        (name for name, path in found.base_model.items() if base_model in (name, path)), base_model
    )


def resolve_model(kind: str, name: str, options: AppArguments) -> str:
    """Resolve the name of a model to its folder or Hub id.

    Args:
        kind: One of `MODEL_KINDS`.
        name: Name that the user selected or entered.
        options: Options of the app.

    Raises:
        ModelError: There is no such model.
    """
    name = name.strip()
    available: dict[str, str] = getattr(find_models(options), kind)
    if name in available:
        return available[name]
    known, title = ", ".join(available) or "none", kind.replace("_", " ")
    if not options.allow_hub or kind == "adapter":  # adapters are read from folders only
        raise ModelError(f"There is no {title} {name!r}. Available: {known}.")
    if not HUB_ID_PATTERN.fullmatch(name) or Path(name).exists():
        raise ModelError(
            f"There is no {title} {name!r}: select an available one ({known}) or enter a Hub id "
            "such as owner/name."
        )
    return name


class PipelineCache:
    """Least-recently-used cache of pipelines by base model and encoder.

    Adapters are attached to a cached pipeline when they are selected.

    Args:
        options: Options of the app, for the available models and the cache size.
        load: Function that loads a pipeline from the base model, the encoder, and a cached
            pipeline with the same base model or None.
    """

    def __init__(self, options: AppArguments, load: Callable[..., Any] | None = None) -> None:
        self._options = options
        self._load = load or _load_pipeline
        self._pipelines: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self.lock = threading.Lock()  # held while a pipeline is loaded or generates

    def get(self, choice: ModelChoice) -> Any:
        """Return the pipeline of the selected models; call it with `lock` held.

        Args:
            choice: Names of the selected models.

        Raises:
            ModelError: A model does not exist or cannot be loaded.
            ValueError: The models are incompatible.
        """
        options = self._options
        adapter = None
        if choice.adapter != NO_ADAPTER:
            adapter = resolve_model("adapter", choice.adapter, options)
        base_model = resolve_model("base_model", choice.base_model, options)
        key = (base_model, resolve_model("encoder", choice.encoder, options))
        if key not in self._pipelines:
            like = next((p for (name, _), p in self._pipelines.items() if name == base_model), None)
            # Evict before loading, or memory would hold one pipeline more.
            while len(self._pipelines) >= options.max_loaded_models:
                self._pipelines.popitem(last=False)
            self._pipelines[key] = self._load(*key, like)
        self._pipelines.move_to_end(key)
        self._pipelines[key].set_adapter(adapter)
        return self._pipelines[key]

    def __len__(self) -> int:
        return len(self._pipelines)


def _load_pipeline(base_model: str, encoder: str, shared: Any) -> Any:
    from align.models.encoder import load_encoder
    from diffuse.pipelines.sound_pipeline import SoundPipeline

    try:
        if shared is None:
            return SoundPipeline.from_pretrained(base_model, encoder=encoder)
        stock = shared.pipeline  # the base model is loaded only once
        return SoundPipeline(stock, load_encoder(encoder).to(stock.device), base_model=base_model)
    except OSError as error:
        reason = first_line(error)
        raise ModelError(f"{base_model} + {encoder} could not be loaded: {reason}") from error
