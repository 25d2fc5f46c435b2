"""The folder of a sound adapter: configuration, weights by part, LoRA and a model card."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from diffuse.models.adapter import SoundAdapter
from diffuse.models.configuration import AdapterConfig
from diffuse.models.lora import LORA_WEIGHTS_NAME, save_lora

CONFIG_NAME = "config.json"
LIBRARY_NAME = "soundprompt-adapter"  # how a config.json says that it is one of these

MODEL_CARD = """---
tags: [audio-to-image, stable-diffusion, soundprompt]
base_model: {base}
---

# A sound adapter for {base}

Gated audio attention for the UNet of `{base}`: {layers} cross-attentions hear {tokens} level tokens
of a recording (form: {form}; routing: {routing}), {parameters:,} weights{lora}.

    from diffuse import SoundPipeline

    pipe = SoundPipeline.from_pretrained("{base}", encoder=ENCODER, adapter=THIS_FOLDER)
    pipe("dog.wav", prompt="a picture at night").images[0].save("night.png")

It belongs to the encoder that it was trained with (prompt space `{space}`) and inherits the terms
of the base, the encoder and the data that it was trained on.
"""


def file_for_weight(name: str) -> str:
    """The file that holds a weight of an adapter, by the weight's name."""
    if name.endswith(".gate") or name in ("level_logits", "temperature"):
        return "gates.safetensors"
    is_projector = name.startswith(("projector.", "retrieval_memory."))
    return "projector.safetensors" if is_projector else "attention.safetensors"


def weights_by_file(adapter: SoundAdapter) -> dict[str, dict[str, torch.Tensor]]:
    """An adapter's weights by file and name."""
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in adapter.state_dict().items():
        found.setdefault(file_for_weight(name), {})[name] = value.detach().cpu().contiguous()
    return found


def save_adapter(
    adapter: SoundAdapter, folder: str | Path, unet: Any = None, name: str = "adapter"
) -> None:
    """Writes an adapter, and its LoRA on a UNet if it has one.

    Raises:
        ValueError: the adapter has a LoRA, and the UNet that it lives in is not given.
    """
    from align.models.weights import save_file

    if adapter.config.lora_rank and unet is None:
        raise ValueError("the adapter's LoRA lives in its UNet: give the UNet to save it")
    where = Path(folder)
    where.mkdir(parents=True, exist_ok=True)
    for file, weights in weights_by_file(adapter).items():
        save_file(weights, where / file)
    if adapter.config.lora_rank:
        save_lora(unet, name, where)
    text = json.dumps({"library": LIBRARY_NAME, **asdict(adapter.config)}, indent=1)
    (where / CONFIG_NAME).write_text(text + "\n")
    (where / "README.md").write_text(model_card(adapter))


def model_card(adapter: SoundAdapter) -> str:
    """The model card's text."""
    config = adapter.config
    lora = f" and a LoRA of rank {config.lora_rank}" if config.lora_rank else ""
    return MODEL_CARD.format(
        **asdict(config) | {"layers": len(config.layers)},
        tokens=adapter.projector.mixture.shape[0],
        parameters=sum(p.numel() for p in adapter.parameters()),
        lora=lora,
    )


def load_adapter(folder: str | Path) -> SoundAdapter:
    """Reads an adapter; its LoRA is put on the UNet when the adapter is attached.

    Raises:
        ValueError: the folder holds no adapter, or not a whole one.
    """
    from safetensors.torch import load_file

    where = Path(folder)
    config = read_config(where)
    adapter = SoundAdapter(config)
    weights: dict[str, torch.Tensor] = {}
    for file in weights_by_file(adapter):
        if not (where / file).is_file():
            raise ValueError(f"the adapter in {where} is not whole: {file} is missing")
        weights |= load_file(where / file)
    missing, unknown = adapter.load_state_dict(weights, strict=False)
    if missing or unknown:
        wrong = ", ".join([*missing, *unknown][:3])
        raise ValueError(f"the adapter in {where} does not fit its config.json: {wrong}")
    if config.lora_rank:
        if not (where / LORA_WEIGHTS_NAME).is_file():
            raise ValueError(f"the adapter in {where} is not whole: {LORA_WEIGHTS_NAME} is missing")
        adapter.lora_folder = where
    return adapter


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is none.

    Raises:
        ValueError: it is not JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def read_config(folder: Path) -> AdapterConfig:
    """The configuration of an adapter's folder.

    Raises:
        ValueError: the folder holds no adapter, or a broken one.
    """
    path = folder / CONFIG_NAME
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("library", None) != LIBRARY_NAME:
        raise ValueError(
            f"there is no sound adapter in {str(folder)!r}: give a folder that diffuse.train wrote"
        )
    unknown = set(values) - {f.name for f in fields(AdapterConfig)}
    if unknown:
        raise ValueError(f"{path} has keys that are not known: {', '.join(sorted(unknown))}")
    return AdapterConfig(**values)


def save_gates(adapter: SoundAdapter, file: str | Path) -> None:
    """Writes the gates and the levels' weights alone: one small file a domain."""
    from align.models.weights import save_file

    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights_by_file(adapter)["gates.safetensors"], path)


def load_gates(adapter: SoundAdapter, file: str | Path) -> None:
    """Sets the gates and the levels' weights that `save_gates` wrote.

    Raises:
        ValueError: the file holds other gates than this adapter has.
    """
    from safetensors.torch import load_file

    path = Path(file)
    if not path.is_file():
        raise ValueError(f"there is no file of gates {path}")
    gates, own = load_file(path), weights_by_file(adapter)["gates.safetensors"]
    if gates.keys() != own.keys():
        raise ValueError(f"{path} holds {len(gates)} gates of other layers than the adapter's")
    adapter.load_state_dict(gates, strict=False)
