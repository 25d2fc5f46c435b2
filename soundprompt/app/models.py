"""Bases, encoders and adapters: found in folders or named by hub id, loaded once and kept."""

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
from diffuse.models.saving import LIBRARY
from soundprompt.app.arguments import StudioOptions

MINIATURE, NONE = "mini", "none"
KINDS = ("base", "encoder", "adapter")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
DEEPEST = 4  # folders below the models folder that are looked through


class ModelError(ValueError):
    """A model that was asked for cannot be had; the message says what to do."""


@dataclass(frozen=True)
class Choice:
    """What a visitor chose: a name of each kind."""

    base: str = MINIATURE
    encoder: str = MINIATURE
    adapter: str = NONE


@dataclass
class Found:
    """What lies in the folders, by name: the paths of bases, encoders and adapters."""

    base: dict[str, str] = field(default_factory=lambda: {MINIATURE: MINIATURE})
    encoder: dict[str, str] = field(default_factory=dict)
    adapter: dict[str, str] = field(default_factory=dict)


def kind_of(folder: Path) -> str | None:
    """What a folder holds: a base, an encoder, an adapter, or None of them."""
    if (folder / "model_index.json").is_file():
        return "base"
    config = _read(folder / "config.json")
    if config.get("library") == LIBRARY:
        return "adapter"
    return "encoder" if config.get("model_type") == "audio_prompt" else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def find(options: StudioOptions) -> Found:
    """Looks through the folders of models and of runs. The miniature's own encoder is "mini"."""
    found = Found(encoder={MINIATURE: str(miniature_folder(options))})
    for root in (Path(options.models), Path(options.runs)):
        for folder in _folders(root, DEEPEST):
            kind = kind_of(folder)
            if kind is not None and folder != miniature_folder(options):
                getattr(found, kind)[str(folder)] = str(folder)
    return found


def miniature_folder(options: StudioOptions) -> Path:
    """Where the miniature's own encoder lies, or will be trained into."""
    return Path(options.runs) / "align" / "mini"


def _folders(root: Path, depth: int) -> Iterator[Path]:
    if not root.is_dir():
        return
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name.startswith((".", "checkpoint-")):
            continue
        yield folder
        if depth > 1 and kind_of(folder) is None:
            yield from _folders(folder, depth - 1)


def base_of(encoder: str, found: Found) -> str | None:
    """The base whose prompts an encoder found in the folders answers in."""
    if encoder not in found.encoder:
        return None
    config = _read(Path(found.encoder[encoder]) / "config.json")
    base = config.get("default_space") or MINIATURE
    return next((name for name, path in found.base.items() if base in (name, path)), base)


def resolve(kind: str, name: str, options: StudioOptions) -> str:
    """The folder or hub id of a model by what the visitor called it.

    Raises:
        ModelError: nothing of this kind is called so.
    """
    name = name.strip()
    there: dict[str, str] = getattr(find(options), kind)
    if name in there:
        return there[name]
    known = ", ".join(there) or "none yet"
    if not options.hub or kind == "adapter":  # adapters are read from folders only
        raise ModelError(f"There is no {kind} {name!r} here. There are: {known}.")
    if not HUB_ID.fullmatch(name) or Path(name).exists():
        raise ModelError(
            f"There is no {kind} {name!r}: choose one that is here ({known}) or give a hub id "
            "such as owner/name."
        )
    return name


class Shelf:
    """Pipelines by base and encoder, the last few kept; adapters are put on as they are chosen.

    Args:
        options: which models may be used and how many are kept.
        load: makes a pipeline of a base, an encoder, and a kept pipeline of the same base or None.
    """

    def __init__(self, options: StudioOptions, load: Callable[..., Any] | None = None) -> None:
        self._options = options
        self._load = load or _load
        self._kept: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self.lock = threading.Lock()  # held while a pipeline is loaded or draws

    def take(self, choice: Choice) -> Any:
        """The pipeline of a choice, loaded if it is not kept; call it with the lock held.

        Raises:
            ModelError: a model is not there.
            ValueError: they do not go together.
        """
        options = self._options
        adapter = None
        if choice.adapter != NONE:
            adapter = resolve("adapter", choice.adapter, options)
        base = resolve("base", choice.base, options)
        key = (base, resolve("encoder", choice.encoder, options))
        if key not in self._kept:
            like = next((p for (name, _), p in self._kept.items() if name == base), None)
            while len(self._kept) >= options.kept:  # before loading, or memory holds one more
                self._kept.popitem(last=False)
            self._kept[key] = self._load(*key, like)
        self._kept.move_to_end(key)
        self._kept[key].exchange(adapter)
        return self._kept[key]

    def __len__(self) -> int:
        return len(self._kept)


def _load(base: str, encoder: str, like: Any) -> Any:
    from align.models.encoder import load_encoder
    from diffuse.pipelines.sound_pipeline import SoundPipeline

    try:
        if like is None:
            return SoundPipeline.from_pretrained(base, encoder=encoder)
        stock = like.pipeline  # the base is not loaded twice
        return SoundPipeline(stock, load_encoder(encoder).to(stock.device), base=base)
    except OSError as error:
        reason = first_line(error)
        raise ModelError(f"{base} + {encoder} could not be loaded: {reason}") from error
