"""Save and load audio adapters: configuration, weights, LoRA and model card."""

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
LIBRARY_NAME = "soundprompt-adapter"  # identifies the config.json of an adapter

MODEL_CARD = """---
tags: [audio-to-image, stable-diffusion, soundprompt]
base_model: {base_model}
---

# An audio adapter for {base_model}

Gated audio attention for the UNet of `{base_model}`: {layers} cross-attention layers attend to
{tokens} audio tokens per clip (attention type: {attention_type}; routing: {routing}). The adapter
has {parameters:,} parameters{lora}.

    from diffuse import SoundPipeline

    pipe = SoundPipeline.from_pretrained("{base_model}", encoder=ENCODER, adapter=THIS_FOLDER)
    pipe("dog.wav", prompt="a picture at night").images[0].save("night.png")

It requires the encoder that it was trained with (prompt space `{prompt_space}`) and inherits the
license terms of the base model, the encoder and the training data.
"""


def file_for_weight(name: str) -> str:
    """Return the name of the file that stores a weight of an adapter.

    Args:
        name: Name of the weight.
    """
    if name.endswith(".gate") or name in ("level_logits", "temperature"):
        return "gates.safetensors"
    is_projector = name.startswith(("projector.", "retrieval_memory."))
    return "projector.safetensors" if is_projector else "attention.safetensors"


def weights_by_file(adapter: SoundAdapter) -> dict[str, dict[str, torch.Tensor]]:
    """Return the weights of an adapter by file and name.

    Args:
        adapter: The adapter.
    """
    found: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in adapter.state_dict().items():
        found.setdefault(file_for_weight(name), {})[name] = value.detach().cpu().contiguous()
    return found


def save_adapter(
    adapter: SoundAdapter, folder: str | Path, unet: Any = None, name: str = "adapter"
) -> None:
    """Save an adapter, including its LoRA if it has one.

    Args:
        adapter: Adapter to save.
        folder: Output directory.
        unet: UNet with the adapter's LoRA.
        name: Name that the adapter is attached by.

    Raises:
        ValueError: If the adapter has a LoRA and no UNet is given.
    """
    from align.models.weights import save_file

    if adapter.config.lora_rank and unet is None:
        raise ValueError("the adapter's LoRA is in its UNet: pass the UNet to save it")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    for file, weights in weights_by_file(adapter).items():
        save_file(weights, path / file)
    if adapter.config.lora_rank:
        save_lora(unet, name, path)
    text = json.dumps({"library": LIBRARY_NAME, **asdict(adapter.config)}, indent=1)
    (path / CONFIG_NAME).write_text(text + "\n")
    (path / "README.md").write_text(model_card(adapter))


def model_card(adapter: SoundAdapter) -> str:
    """Return the text of the model card.

    Args:
        adapter: The adapter.
    """
    config = adapter.config
    lora = f" and a LoRA of rank {config.lora_rank}" if config.lora_rank else ""
    return MODEL_CARD.format(
        **asdict(config) | {"layers": len(config.layers)},
        tokens=adapter.projector.mixture.shape[0],
        parameters=sum(p.numel() for p in adapter.parameters()),
        lora=lora,
    )


def load_adapter(folder: str | Path) -> SoundAdapter:
    """Load an adapter; its LoRA is loaded when the adapter is attached.

    Args:
        folder: Folder of the adapter.

    Returns:
        The adapter.

    Raises:
        ValueError: If the folder contains no adapter, or an incomplete one.
    """
    from safetensors.torch import load_file

    path = Path(folder)
    config = read_config(path)
    adapter = SoundAdapter(config)
    weights: dict[str, torch.Tensor] = {}
    for file in weights_by_file(adapter):
        if not (path / file).is_file():
            raise ValueError(f"the adapter in {path} is incomplete: {file} is missing")
        weights |= load_file(path / file)
    missing, unknown = adapter.load_state_dict(weights, strict=False)
    if missing or unknown:
        wrong = ", ".join([*missing, *unknown][:3])
        raise ValueError(f"the adapter in {path} does not match its config.json: {wrong}")
    if config.lora_rank:
        if not (path / LORA_WEIGHTS_NAME).is_file():
            raise ValueError(f"the adapter in {path} is incomplete: {LORA_WEIGHTS_NAME} is missing")
        adapter.lora_folder = path
    return adapter


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: Path of the file.

    Returns:
        Its content, or None if the file does not exist.

    Raises:
        ValueError: If the file is not valid JSON.
    """
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON: {error}") from error


def read_config(folder: Path) -> AdapterConfig:
    """Read the configuration of an adapter.

    Args:
        folder: Folder of the adapter.

    Returns:
        The configuration.

    Raises:
        ValueError: If the folder contains no adapter, or the configuration is invalid.
    """
    path = folder / CONFIG_NAME
    values = read_json(path)
    if not isinstance(values, dict) or values.pop("library", None) != LIBRARY_NAME:
        raise ValueError(
            f"there is no sound adapter in {str(folder)!r}: give a folder written by diffuse.train"
        )
    unknown = set(values) - {f.name for f in fields(AdapterConfig)}
    if unknown:
        raise ValueError(f"{path} has unknown keys: {', '.join(sorted(unknown))}")
    return AdapterConfig(**values)


def save_gates(adapter: SoundAdapter, file: str | Path) -> None:
    """Save only the gates, level weights and temperature, for example one small file per domain.

    Args:
        adapter: The adapter.
        file: Output file.
    """
    from align.models.weights import save_file

    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights_by_file(adapter)["gates.safetensors"], path)


def load_gates(adapter: SoundAdapter, file: str | Path) -> None:
    """Load gates, level weights and temperature saved by `save_gates`.

    Args:
        adapter: Adapter to change.
        file: File to load.

    Raises:
        ValueError: If the file does not exist or belongs to an adapter with other layers.
    """
    from safetensors.torch import load_file

    path = Path(file)
    if not path.is_file():
        raise ValueError(f"the file of gates {path} does not exist")
    gates, own = load_file(path), weights_by_file(adapter)["gates.safetensors"]
    if gates.keys() != own.keys():
        raise ValueError(f"{path} contains gates of other layers than the adapter's")
    adapter.load_state_dict(gates, strict=False)
