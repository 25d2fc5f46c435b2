"""Distillation through the base model's cross-attention keys and values."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn
from torch.nn import functional as F


class KeyValueDistillation(nn.Module):
    """Distance between the cross-attention keys and values of predicted and target embeds.

    A UNet depends on a prompt only through the keys and values of its cross-attention layers. They
    are linear in the embeds, so one matrix product compares all layers at once, without images or
    noise.

    Args:
        unet: UNet2DConditionModel; its weights are copied and frozen.
        embeds: Text embeds that set each layer's scale: (C, L, D), or blocks of (n, L, D).

    Raises:
        ValueError: The UNet has no cross-attention of this width.
    """

    weight: torch.Tensor

    def __init__(self, unet: nn.Module, embeds: Iterable[torch.Tensor]) -> None:
        super().__init__()
        scatter, count = _scatter(embeds)
        width = len(scatter)
        layers = [
            module.weight.detach().float().cpu()
            for name, module in unet.named_modules()
            if name.endswith(("attn2.to_k", "attn2.to_v"))
        ]
        if not layers or any(layer.shape[1] != width for layer in layers):
            raise ValueError(f"the base model's UNet has no cross-attention of width {width}")
        # Normalize by output std and width, so that every layer has the same influence.
        scaled = [
            layer / _output_std(layer, scatter, count).clamp(min=1e-6) / len(layer) ** 0.5
            for layer in layers
        ]
        weight = torch.cat(scaled) / len(layers) ** 0.5
        # |Wx|^2 depends on W only through W'W, and D x D is far smaller than all layers.
        root = torch.linalg.cholesky(_regularized_gram(weight.double()))
        self.register_buffer("weight", root.T.float().contiguous())

    def forward(self, predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Mean squared difference, a scalar, of the keys and values of embeds (B, L, D)."""
        difference = predicted.float() - target.float()
        with torch.autocast(difference.device.type, enabled=False):
            difference = F.linear(difference, self.weight)
        return difference.square().sum(-1).mean()


def _scatter(blocks: Iterable[torch.Tensor]) -> tuple[torch.Tensor, int]:
    """Returns the embeds' scatter matrix (D, D) around each position's mean, and their number.

    Reads blocks of (n, L, D) or (L, D) once.
    """
    captions, total, square = 0, torch.zeros(()), torch.zeros(())
    for block in blocks:
        rows = block.double().cpu().reshape(-1, *block.shape[-2:])
        captions, total = captions + len(rows), total + rows.sum(0)
        flat = rows.flatten(0, 1)
        square = square + flat.T @ flat
    return square - total.T @ total / captions, captions * len(total)


def _output_std(layer: torch.Tensor, scatter: torch.Tensor, count: int) -> torch.Tensor:
    """Standard deviation of a layer's outputs for centered embeds."""
    weight = layer.double()
    square = ((weight @ scatter) * weight).sum()
    return (square / (count * len(weight) - 1)).clamp(min=0).sqrt().float()


def _regularized_gram(weight: torch.Tensor) -> torch.Tensor:
    gram = weight.T @ weight
    return gram + 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
