"""Alignment losses between predicted and target prompt embeds: pure functions of tensors.

Throughout, `predicted` and `target` are (B, L, D): standardised prompt embeds of B recordings
and of their captions, position by position. `agreement` is (B, B), symmetric, between 0 and 1:
how far row i's sound and row j's caption say the same. `weights`, where given, are (B, L): what
each position of each row's caption counts beside the others; only their ratios matter.

Losses are computed in float32 whatever the model's precision, and in float64 if given it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Norms below this count as this: what has hardly any length has no direction to learn.
NORM_FLOOR = 1e-3
# Cosines held at once, 64 MiB of float32: more positions are computed again in the backward pass.
MAX_COSINES = 1 << 24


def sequence_mse(
    predicted: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error over all positions and dimensions: a scalar.

    It fixes the embeds' scale, which a contrastive loss leaves open.
    """
    if weights is None:
        return F.mse_loss(_at_least_float32(predicted), _at_least_float32(target))
    error = (_at_least_float32(predicted) - _at_least_float32(target)).square().mean(-1)
    return (error * weights).sum() / weights.sum()


def positional_similarity(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Cosine similarity at every position between every pair: (L, B, B).

    Computed as a matrix product of unit vectors, never through a (B, B, L, D) tensor.
    """
    left, right = _unit_vectors(predicted), _unit_vectors(target)
    # Autocast would round the product to half precision, whatever goes in.
    with torch.autocast(left.device.type, enabled=False):
        return torch.einsum("itd,jtd->tij", left, right)


def same_group(groups: torch.Tensor) -> torch.Tensor:
    """Which pairs of a batch say the same: (B, B) bool from group numbers (B,)."""
    return groups[:, None] == groups[None, :]


def soft_positives(
    positives: torch.Tensor, target: torch.Tensor, threshold: float = 1.0
) -> torch.Tensor:
    """Agreement where paraphrases are not negatives: (B, B) between 0 and 1.

    Two captions agree by as much as the cosine of their whole standardised sequences exceeds the
    threshold, up to 1 where it is 1; unrelated captions have a cosine near 0. The idea of
    SoftCLIP (Gao et al. 2023, arXiv 2303.17561), with a threshold in place of its softmax, so
    that many unrelated captions together never outweigh the right one.

    Args:
        positives: (B, B) bool, pairs that agree in any case.
        target: (B, L, D) from captions.
        threshold: cosine from which on two captions begin to agree; at 1, none do.
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

    The sequence-level contrast of audio2img (there from audio to text alone), symmetric by
    default as in CLIP (Radford et al. 2021, arXiv 2103.00020). Rows that say the same share the
    probability (as in Khosla et al. 2020, arXiv 2004.11362) instead of being each other's
    negatives. Without another loss beside it, the embeds' scale stays open.

    Args:
        predicted: (B, L, D) from sound.
        target: (B, L, D) from captions.
        agreement: (B, B), bool or between 0 and 1.
        temperature: divides the cosines; smaller is harder.
        direction: audio_to_text finds each sound's caption among all, text_to_audio each
            caption's sound, both is the mean of the two.
        weights: (B, L).
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
    """Every pair judged by itself, at every position: a scalar.

    The sigmoid loss of SigLIP (Zhai et al. 2023, arXiv 2303.15343): log(1 + exp(-z)) for pairs
    that agree and log(1 + exp(z)) for others, z = cosine / temperature + bias, summed over
    captions, averaged over sounds. It needs no large batch; the bias starts it where nearly all
    pairs are negatives. A poor choice with a fixed bias far from what the data need: learn it.

    Args:
        predicted: (B, L, D) from sound.
        target: (B, L, D) from captions.
        agreement: (B, B), bool or between 0 and 1.
        temperature: divides the cosines.
        bias: added to the logits.
        weights: (B, L).
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
    """Cosines drawn to 1 where pairs agree and below a margin where they do not: a scalar.

    The cosine embedding loss (`torch.nn.CosineEmbeddingLoss`) over all pairs at every position:
    each sound's mean of 1 - cosine over its captions, and its mean of max(0, cosine - margin)
    over the others. Its gradient does not grow for hard negatives, as InfoNCE's does.

    Args:
        predicted: (B, L, D) from sound.
        target: (B, L, D) from captions.
        agreement: (B, B), bool or between 0 and 1.
        margin: the cosine that unrelated pairs may have.
        weights: (B, L).
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
    """The weighted mean of `at(cosines (l, B, B), counts (l, B))`, a sum, over all positions.

    Where all cosines together take too much memory, only those of some positions are there at a
    time: they are computed once more in the backward pass.
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
    """Rows that sum to 1; one that has nothing stays 0."""
    return agreement / agreement.sum(1, keepdim=True).clamp(min=1e-6)


def _at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Float64 as it is, anything else as float32."""
    return values if values.dtype == torch.float64 else values.float()


def _like(agreement: torch.Tensor, embeds: torch.Tensor) -> torch.Tensor:
    """Agreement in the type that a loss of these embeds is computed in."""
    return agreement.to(_at_least_float32(embeds[:0]).dtype)


def _unit_vectors(vectors: torch.Tensor) -> torch.Tensor:
    """Unit vectors along the last axis; bfloat16's largest numbers do not overflow."""
    vectors = _at_least_float32(vectors)
    largest = vectors.detach().abs().amax(-1, keepdim=True).clamp(min=1)
    return F.normalize(vectors / largest, dim=-1, eps=NORM_FLOOR)
