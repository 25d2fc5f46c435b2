"""Whether a prompt fits a pipeline; and the prompt by the pipeline's own keywords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from align.keywords import needs_prompt, of_those
from align.pipelines import Reader


def check_prompt(pipeline: Any, prompt: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """The prompt by a pipeline's own keywords, once it is known to fit.

        pipeline(**check_prompt(pipeline, load_file("dog.safetensors")))

    A negative is left out where the pipeline takes none; `prompt=None` is added where its call
    insists on a prompt.

    Raises:
        ValueError: by name, what is missing or has the wrong width, length, dtype or device.
    """
    reader = Reader.of(pipeline)
    ours = {theirs: name for name, theirs in reader.keywords.items()}
    prompt = {
        ours.get(name, name): value[:, 0] if value.ndim == 3 and "pooled" in name else value
        for name, value in prompt.items()
        if value is not None
    }
    _check_whole(reader, prompt)
    found: dict[str, Any] = {
        reader.keywords[name]: value[:, None] if reader.keywords[name][-6:] == "pooled" else value
        for name, value in prompt.items()
        if name in reader.keywords
    }
    _check_blind(pipeline, found)
    beside = "prompt_embeds" in found and needs_prompt(pipeline)
    return found | {"prompt": None} if beside else found


def _check_whole(reader: Reader, prompt: Mapping[str, torch.Tensor]) -> None:
    widths = {"prompt_embeds": reader.width, "negative_prompt_embeds": reader.width}
    if reader.pooled_width:
        widths["pooled_prompt_embeds"] = reader.pooled_width
        widths["negative_pooled_prompt_embeds"] = reader.pooled_width
    optional = {name for name in widths if name.startswith("negative")}
    for name in sorted(set(widths) - optional - set(prompt)):
        raise ValueError(f"{name} is missing: {reader.wants}")
    for name, value in prompt.items():
        if name not in widths:
            raise ValueError(f"{name} is not read here: {reader.wants}")
        _check(name, value, widths[name] or value.shape[-1], reader)
    for name in optional & set(prompt):
        _check_pair(name.removeprefix("negative_"), name, prompt)
    batches = {len(value) for value in prompt.values()}
    if len(batches) > 1:
        raise ValueError(f"the embeds are of different numbers of prompts: {sorted(batches)}")


def _check_blind(pipeline: Any, found: Mapping[str, Any]) -> None:
    """Whether a pipeline without text encoder lets embeds pass, as Stable Cascade's do not."""
    name = type(pipeline).__name__
    settings = {
        "device": pipeline._execution_device,
        "do_classifier_free_guidance": any(k.startswith("negative") for k in found),
        "num_images_per_prompt": 1,
        "batch_size": len(next(iter(found.values()))),
        **dict.fromkeys(("prompt", "prompt_2", "prompt_3")),
    }
    # Combined pipelines hold those that they are combined of.
    for part in (pipeline, *vars(pipeline).values()):
        absent = _absent(part)
        if not absent or not hasattr(part, "encode_prompt"):
            continue
        try:
            part.encode_prompt(**of_those(part.encode_prompt, settings | dict(found)))
        except (AttributeError, TypeError) as error:
            if "NoneType" in str(error):
                raise ValueError(
                    f"{name} asks its text encoder even where embeds are given: load it with "
                    f"{' and '.join(absent)}"
                ) from error


def _absent(pipeline: Any) -> list[str]:
    parts = getattr(pipeline, "__dict__", {})
    return [k for k, v in parts.items() if k.startswith("text_encoder") and v is None]


def _check(name: str, value: torch.Tensor, width: int, reader: Reader) -> None:
    axes = ("prompts", "width") if "pooled" in name else ("prompts", "positions", "width")
    if value.ndim != len(axes):
        raise ValueError(f"{name} must be ({', '.join(axes)}), not {tuple(value.shape)}")
    if value.shape[-1] != width:
        raise ValueError(f"{name} is {value.shape[-1]} wide, but {reader.wants}")
    if value.dtype != reader.dtype:
        raise ValueError(f"{name} is {value.dtype}, but this {reader.name} runs in {reader.dtype}")
    if value.device.type != reader.device.type:
        raise ValueError(f"{name} is on {value.device}, but this {reader.name} on {reader.device}")


def _check_pair(name: str, negative: str, prompt: Mapping[str, torch.Tensor]) -> None:
    if prompt[name].shape != prompt[negative].shape:
        raise ValueError(
            f"{name} and {negative} must be of one shape, not {tuple(prompt[name].shape)} and "
            f"{tuple(prompt[negative].shape)}"
        )
