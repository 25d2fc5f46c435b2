"""Alignment losses between predicted and target prompt embeds, as pure functions.

Throughout, `predicted` and `target` are (B, L, D): standardized prompt embeds predicted from audio
and of the captions. `agreement` is (B, B), symmetric, between 0 and 1: how far clip i and caption j
match. `weights` is (B, L): optional weight of each position of a row's caption; only their ratios
matter.

Losses are computed in float32 whatever the model's precision, and in float64 for float64 inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Smallest norm to divide by: a vector of nearly zero length has no meaningful direction.
NORM_FLOOR = 1e-3
# Cosines in memory at once (64 MiB in float32); beyond that, positions are checkpointed.
MAX_COSINES = 1 << 24


def sequence_mse(
    predicted: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error over all positions and dimensions: a scalar.

    It determines the scale of the embeds, which a contrastive loss leaves undetermined.
    """
    if weights is None:
        return F.mse_loss(_at_least_float32(predicted), _at_least_float32(target))
    error = (_at_least_float32(predicted) - _at_least_float32(target)).square().mean(-1)
    return (error * weights).sum() / weights.sum()


def positional_similarity(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cosine similarity of every pair at every position: (L, B, B).

    Computed as a matrix product of unit vectors, without a (B, B, L, D) tensor.
    """
    left, right = _unit_vectors(predicted), _unit_vectors(target)
    # Autocast would compute the product in half precision.
    with torch.autocast(left.device.type, enabled=False):
        return torch.einsum("itd,jtd->tij", left, right)


def same_group(groups: torch.Tensor) -> torch.Tensor:
    """Boolean (B, B) mask of the pairs with equal group ids (B,)."""
    return groups[:, None] == groups[None, :]


def soft_positives(
    positives: torch.Tensor, target: torch.Tensor, threshold: float = 1.0
) -> torch.Tensor:
    """Agreement (B, B) between 0 and 1 that treats paraphrases as soft positives.

    The agreement of two captions rises linearly from 0 at the threshold to 1 at a cosine of 1 of
    their whole standardized sequences; unrelated captions have a cosine near 0. The idea follows
    SoftCLIP (Gao et al. 2023, arXiv 2303.17561), with a threshold instead of its softmax, so that
    many unrelated captions together never outweigh the right one.

    Args:
        positives: (B, B) bool, pairs with an agreement of 1.
        target: Caption embeds (B, L, D).
        threshold: Cosine above which two captions agree; 1 disables soft positives.
    """
    if threshold >= 1:
        return positives.float()
    whole = _unit_vectors(target.flatten(1))
    with torch.autocast(whole.device.type, enabled=False):
        similarity = whole @ whole.T
    soft = ((similarity - threshold) / (1 - threshold)).clamp(0, 1)
    return torch.maximum(positives.to(soft.dtype), soft)


def sequence_info_nce(
    predicted: torch.Tensor,
    target: torch.Tensor,
    agreement: torch.Tensor,
    temperature: float | torch.Tensor = 0.15,
    direction: str = "both",
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """InfoNCE at every position: a scalar.

    The sequence-level contrastive loss of audio2img (audio to text only, there), symmetric by
    default as in CLIP (Radford et al. 2021, arXiv 2103.00020). Positives share the target
    probability (as in Khosla et al. 2020, arXiv 2004.11362) instead of being negatives of each
    other. On its own, it leaves the scale of the embeds undetermined.

    Args:
        predicted: Predicted embeds (B, L, D).
        target: Caption embeds (B, L, D).
        agreement: (B, B), bool or between 0 and 1.
        temperature: Divisor of the cosines; lower values sharpen the distribution.
        direction: audio_to_text classifies captions for each clip, text_to_audio clips for each
            caption, both averages the two.
        weights: Position weights (B, L).
    """
    target_probs = _row_normalize(_like(agreement, predicted))

    def loss_at(cosines: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        logits = cosines / temperature
        terms = []
        if direction != "text_to_audio":
            terms.append(logits.logsumexp(2) - torch.einsum("ij,tij->ti", target_probs, logits))
        if direction != "audio_to_text":
            terms.append(logits.logsumexp(1) - torch.einsum("ji,tij->tj", target_probs, logits))
        return (torch.stack(terms).mean(0) * counts).sum()

    return _over_positions(loss_at, predicted, target, weights)


def sequence_sigmoid(
    predicted: torch.Tensor,
    target: torch.Tensor,
    agreement: torch.Tensor,
    temperature: float | torch.Tensor = 0.1,
    bias: float | torch.Tensor = -10.0,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Sigmoid loss of every pair at every position: a scalar.

    The SigLIP loss (Zhai et al. 2023, arXiv 2303.15343): log(1 + exp(-z)) for positive pairs and
    log(1 + exp(z)) for others, z = cosine / temperature + bias, summed over captions and averaged
    over clips. It needs no large batch. The initial bias reflects that nearly all pairs are
    negatives; learn it, since a fixed bias far from the optimum degrades the result.

    Args:
        predicted: Predicted embeds (B, L, D).
        target: Caption embeds (B, L, D).
        agreement: (B, B), bool or between 0 and 1.
        temperature: Divisor of the cosines.
        bias: Bias of the logits.
        weights: Position weights (B, L).
    """
    labels = _like(agreement, predicted)

    def loss_at(cosines: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        logits = cosines / temperature + bias
        return ((F.softplus(logits) - labels * logits).sum(2) * counts).sum()

    return _over_positions(loss_at, predicted, target, weights)


def sequence_margin(
    predicted: torch.Tensor,
    target: torch.Tensor,
    agreement: torch.Tensor,
    margin: float = 0.2,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Cosine embedding loss of every pair at every position: a scalar.

    `torch.nn.CosineEmbeddingLoss` over all pairs: each clip's mean of 1 - cosine over its
    positives, plus its mean of max(0, cosine - margin) over the others. Unlike InfoNCE, its
    gradient does not grow for hard negatives.

    Args:
        predicted: Predicted embeds (B, L, D).
        target: Caption embeds (B, L, D).
        agreement: (B, B), bool or between 0 and 1.
        margin: Cosine below which negatives have no loss.
        weights: Position weights (B, L).
    """
    agreement = _like(agreement, predicted)
    positive, negative = _row_normalize(agreement), _row_normalize(1 - agreement)

    def loss_at(cosines: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        terms = positive * (1 - cosines) + negative * F.relu(cosines - margin)
        return (terms.sum(2) * counts).sum()

    return _over_positions(loss_at, predicted, target, weights)


def _over_positions(
    loss_at: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    predicted: torch.Tensor,
    target: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    """Weighted mean over positions of `loss_at(cosines (l, B, B), counts (l, B))`, which sums.

    If the cosines of all positions exceed `MAX_COSINES`, positions are processed in chunks and
    recomputed in the backward pass.
    """
    rows, length = predicted.shape[:2]
    if weights is None:
        weights = _like(predicted.new_ones(rows, length), predicted)

    def part(
        predictions: torch.Tensor, targets: torch.Tensor, counts: torch.Tensor
    ) -> torch.Tensor:
        return loss_at(positional_similarity(predictions, targets), counts.T)

    step = max(1, MAX_COSINES // rows**2)
    if step >= length:
        return part(predicted, target, weights) / weights.sum()
    columns = zip(*(x.split(step, 1) for x in (predicted, target, weights)), strict=True)
    checkpoint_kwargs: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    parts = [checkpoint(part, *column, **checkpoint_kwargs) for column in columns]
    return torch.stack(parts).sum() / weights.sum()


def _row_normalize(agreement: torch.Tensor) -> torch.Tensor:
    """Scales rows to a sum of 1; zero rows remain 0."""
    return agreement / agreement.sum(1, keepdim=True).clamp(min=1e-6)


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Returns float64 unchanged and other types as float32."""
    return values if values.dtype == torch.float64 else values.float()


def _like(agreement: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
    """Casts the agreement to the type in which a loss of these embeds is computed."""
    return agreement.to(_at_least_float32(embeds[:0]).dtype)


def _unit_vectors(vectors: torch.Tensor) -> torch.Tensor:
    """Unit vectors along the last axis, without overflow for large bfloat16 values."""
    vectors = _at_least_float32(vectors)
    largest = vectors.detach().abs().amax(-1, keepdim=True).clamp(min=1)
    return F.normalize(vectors / largest, dim=-1, eps=NORM_FLOOR)
