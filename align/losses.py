"""Alignment losses between predicted and target prompt embeds: pure functions of tensors.

Throughout, `predicted` and `target` are (B, L, D): standardised prompt embeds of B recordings
and of their captions, position by position. Losses are computed in float32 whatever the
model's precision.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F


def sequence_mse(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared error over all positions and dimensions: a scalar.

    It fixes the embeds' scale, which a contrastive loss leaves open.
    """
    return F.mse_loss(predicted.float(), target.float())


def positional_similarity(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cosine similarity at every position between every pair: (L, B, B).

    Computed as a matrix product of unit vectors, never through a (B, B, L, D) tensor.
    """
    left = F.normalize(predicted.float(), dim=-1)
    right = F.normalize(target.float(), dim=-1)
    # Autocast would round the product to half precision, whatever goes in.
    with torch.autocast(left.device.type, enabled=False):
        return torch.einsum("itd,jtd->tij", left, right)


def same_group(groups: torch.Tensor) -> torch.Tensor:
    """Which pairs of a batch say the same: (B, B) bool from group numbers (B,)."""
    return groups[:, None] == groups[None, :]


def sequence_info_nce(
    predicted: torch.Tensor,
    target: torch.Tensor,
    positives: torch.Tensor,
    temperature: float = 0.15,
) -> torch.Tensor:
    """InfoNCE at every position, in both directions: a scalar.

    The sequence-level contrast of audio2img (there from audio to text alone), symmetric as in
    CLIP (Radford et al. 2021, arXiv 2103.00020). Rows that say the same share the probability
    evenly (as in Khosla et al. 2020, arXiv 2004.11362) instead of being each other's negatives.

    Args:
        predicted: (B, L, D) from sound.
        target: (B, L, D) from captions.
        positives: (B, B) bool, true where row i's sound and row j's caption agree.
        temperature: divides the cosines; smaller is harder.
    """
    logits = positional_similarity(predicted, target) / temperature
    wanted = positives.float()
    wanted = wanted / wanted.sum(1, keepdim=True)
    heard = -(wanted * logits.log_softmax(2)).sum(2).mean()
    read = -(wanted * logits.transpose(1, 2).log_softmax(2)).sum(2).mean()
    return (heard + read) / 2
