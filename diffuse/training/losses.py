"""What training the UNet minimises: pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from align.losses.functional import sequence_info_nce, sequence_mse
from diffuse.config.arguments import LossArguments
from diffuse.config.stages import Stage
from diffuse.models.levels import LEVELS, TOKENS, entropy, norm_error, orthogonality, places
from diffuse.training.model import HearingUNet

PREDICTIONS = ("epsilon", "v_prediction")
SAME = 1e-2  # standardised tokens that differ by less ask for the same


def check_prediction(scheduler: Any) -> str:
    """What a base's UNet predicts.

    Raises:
        ValueError: it is neither the noise nor the velocity.
    """
    kind = str(scheduler.config.get("prediction_type", "epsilon"))
    if kind not in PREDICTIONS or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"{type(scheduler).__name__} with prediction_type {kind!r} cannot be trained here: "
            f"bases that predict {' or '.join(PREDICTIONS)} can"
        )
    return kind


def training_scheduler(scheduler: Any) -> Any:
    """The noise schedule that a base was trained with, whatever sampler it has.

    Raises:
        ValueError: the base predicts neither the noise nor the velocity.
    """
    from diffusers import DDPMScheduler

    check_prediction(scheduler)
    return DDPMScheduler.from_config(scheduler.config)


def offset_noise(noise: torch.Tensor, level: torch.Tensor, strength: float) -> torch.Tensor:
    """Noise (B, C, H, W) with a shift of every channel as a whole, so that brightness is learned.

    Args:
        noise: standard normal.
        level: (B, C, 1, 1) standard normal.
        strength: of the shift; 0 for none.
    """
    return noise + strength * level


def min_snr_weights(scheduler: Any, times: torch.Tensor, gamma: float) -> torch.Tensor:
    """Weights (B,) of times: min(SNR, gamma) of the clean latents' error, in the UNet's own terms.

    Hang et al. 2023 (arXiv 2303.09556): easy times, where little noise is left, stop outweighing
    the others. In terms of the noise it is divided by the SNR, of the velocity by SNR + 1. At an
    SNR of zero the first is taken at its limit, one.

    Raises:
        ValueError: gamma is not positive.
    """
    from diffusers.training_utils import compute_snr

    if gamma <= 0:
        raise ValueError(f"min-SNR's gamma is positive, not {gamma}")
    snr = compute_snr(scheduler, times)
    if scheduler.config.prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1.0)
    return snr.clamp(max=gamma) / (snr + 1)


def denoising_loss(
    answer: torch.Tensor, wanted: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of latents (B, C, H, W), each row weighted by `weights` (B,)."""
    error = (answer.float() - wanted.float()).square().flatten(1).mean(1)
    return (error if weights is None else error * weights).mean()


def level_loss(
    tokens: torch.Tensor, wanted: torch.Tensor, there: torch.Tensor, spread: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of level tokens to those of their phrases, in units of the spread.

    Args:
        tokens: (B, J, D).
        wanted: (B, J, D).
        there: (B,) bool: rows whose phrases are known; without any the loss is 0.
        spread: (D,) of the text space.
    """
    error = ((tokens.float() - wanted.float()) / spread).square().mean((1, 2))
    return (error * there).sum() / there.sum().clamp(min=1)


def alignment_loss(tokens: torch.Tensor, wanted: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE and MSE of standardised level tokens (B, J, D), with which a projector trains alone.

    SonicDiffusion's first stage (arXiv 2405.00878): both, with equal weight. The contrast is level
    by level, and rows that ask for the same at a level are each other's positives there: most
    recordings have nothing in the background.
    """
    contrast = tokens.new_zeros(())
    for level, count in LEVELS.items():
        part = places(level)
        asked = wanted[:, part].flatten(1)
        same = torch.cdist(asked, asked, p=float("inf")) < SAME
        found = sequence_info_nce(tokens[:, part], wanted[:, part], same, temperature)
        contrast = contrast + count / TOKENS * found
    return contrast + sequence_mse(tokens, wanted)


def class_weights(labels: Sequence[str]) -> dict[str, float]:
    """Weights of labels that make every label count alike; their mean over the rows is one."""
    counts = Counter(labels)
    return {label: len(labels) / (len(counts) * n) for label, n in counts.items()}


class Criterion(nn.Module):
    """A stage's loss.

    Args:
        stage: says which.
        arguments: the weights of its terms.
        scheduler: the base's.
        mean: (J, D) of the level tokens that phrases ask for.
        spread: (D,) of the text space, the unit of the tokens' errors.
    """

    mean: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self,
        stage: Stage,
        arguments: LossArguments,
        scheduler: Any,
        mean: torch.Tensor,
        spread: torch.Tensor,
    ) -> None:
        super().__init__()
        self.stage, self.arguments = stage, arguments
        self.scheduler = training_scheduler(scheduler)
        self.register_buffer("mean", mean)
        self.register_buffer("spread", spread)

    def forward(
        self, model: nn.Module, inner: HearingUNet, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Every term by name, each a scalar.

        Args:
            model: what is called: the hearing UNet as the Trainer wraps it.
            inner: the hearing UNet itself.
            batch: of `TrainingPairs`.
        """
        sound = {name: batch[name] for name in ("tokens", "mask", "embeds")}
        if self.stage.loss == "alignment":
            levels, _ = model(**sound)
            return self._aligned(levels, batch) | self._shape(levels, inner)
        noise = batch["noise"]
        if self.arguments.noise_offset:
            noise = offset_noise(noise, batch["level"], self.arguments.noise_offset)
        noisy = self.scheduler.add_noise(batch["clean"], noise, batch["times"])
        levels, answer = model(
            **sound,
            noisy=noisy,
            times=batch["times"],
            text=batch["text"],
            pooled=batch.get("pooled"),
            keep=batch["keep"],
            behind=batch["behind"],
            substitute=self.stage.loss == "substitution",
        )
        terms = {"denoising": self._denoising(answer, batch, noise)}
        if self.arguments.level_weight and "projector" in self.stage.trains:
            error = level_loss(levels, batch["wanted"], batch["known"], self.spread)
            terms["levels"] = self.arguments.level_weight * error
        return terms | self._shape(levels, inner)

    def _denoising(
        self, answer: torch.Tensor, batch: dict[str, torch.Tensor], noise: torch.Tensor
    ) -> torch.Tensor:
        times, gamma = batch["times"], self.arguments.min_snr_gamma
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        wanted = self.scheduler.get_velocity(batch["clean"], noise, times) if velocity else noise
        weights = batch["weight"]
        if gamma:
            weights = weights * min_snr_weights(self.scheduler, times, gamma)
        return denoising_loss(answer, wanted, weights)

    def _aligned(
        self, levels: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The alignment loss of rows whose phrases are known."""
        known = batch["known"]
        if known.sum() < 2:  # nothing to contrast; the graph must still reach the weights
            return {"alignment": 0.0 * levels.float().sum()}
        standard, wanted = (
            (tokens[known].float() - self.mean) / self.spread
            for tokens in (levels, batch["wanted"])
        )
        temperature = self.arguments.contrast_temperature
        return {"alignment": alignment_loss(standard, wanted, temperature)}

    def _shape(self, levels: torch.Tensor, inner: HearingUNet) -> dict[str, torch.Tensor]:
        """What the levels and their weights should be like, whatever is heard."""
        given, terms = self.arguments, {}
        if given.orthogonality_weight:
            terms["orthogonality"] = given.orthogonality_weight * orthogonality(levels.float())
        if given.norm_weight:
            terms["norm"] = given.norm_weight * norm_error(levels.float(), given.norm_target)
        if given.entropy_weight:
            terms["entropy"] = -given.entropy_weight * entropy(inner.adapter.level_weights())
        return terms
