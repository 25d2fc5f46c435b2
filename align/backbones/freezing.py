"""Which of a backbone's weights train."""

from __future__ import annotations

from align.backbones.loading import Backbone


def freeze(backbone: Backbone, trained: str) -> None:
    """Sets which of a backbone's weights train.

    Args:
        backbone: changed in place.
        trained: "none", "all", "lora" (what `align.backbones.lora.add` put in), or a number N: the
            last N of its layers.

    Raises:
        ValueError: anything else, or more layers than there are, or no LoRA in it.
    """
    if trained not in ("none", "all", "lora") and not trained.isdigit():
        raise ValueError(
            f"a backbone trains 'none', 'all', 'lora' or a number of layers, not {trained!r}"
        )
    backbone.requires_grad_(trained == "all")
    spare = getattr(backbone.model, "masked_spec_embed", None)
    if spare is not None:
        # Only transformers' own SpecAugment reads it, which is off: it would never get a gradient.
        spare.requires_grad_(False)
    if trained == "lora":
        _train_lora(backbone)
    if not trained.isdigit():
        return
    count = int(trained)
    if not 0 < count <= len(backbone.layers):
        raise ValueError(
            f"the backbone has {len(backbone.layers)} layers; {count} cannot be trained"
        )
    for layer in backbone.layers[-count:]:
        layer.requires_grad_(True)


def _train_lora(backbone: Backbone) -> None:
    names = [name for name, _ in backbone.named_parameters() if ".lora_" in name]
    if not names:
        raise ValueError("the backbone has no LoRA to train")
    for name in names:
        backbone.get_parameter(name).requires_grad_(True)
