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
from diffuse.models.levels import (
    LEVELS,
    NUM_LEVEL_TOKENS,
    entropy,
    level_slice,
    norm_error,
    orthogonality,
)
from diffuse.training.model import UNetWithAudio

PREDICTIONS = ("epsilon", "v_prediction")
SAME_TARGET_TOLERANCE = 1e-2  # standardised tokens that differ by less ask for the same


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


def offset_noise(noise: torch.Tensor, offset: torch.Tensor, strength: float) -> torch.Tensor:
    """Noise (B, C, H, W) with a shift of every channel as a whole, so that brightness is learned.

    Args:
        noise: standard normal.
        level: (B, C, 1, 1) standard normal.
        strength: of the shift; 0 for none.
    """
    return noise + strength * offset


def min_snr_weights(scheduler: Any, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
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
    snr = compute_snr(scheduler, timesteps)
    if scheduler.config.prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1.0)
    return snr.clamp(max=gamma) / (snr + 1)


def denoising_loss(
    model_pred: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean squared error of latents (B, C, H, W), each row weighted by `weights` (B,)."""
    error = (model_pred.float() - target.float()).square().flatten(1).mean(1)
    return (error if weights is None else error * weights).mean()


def level_loss(
    tokens: torch.Tensor, targets: torch.Tensor, has_target: torch.Tensor, spread: torch.Tensor
) -> torch.Tensor:
    """Mean squared error of level tokens to those of their phrases, in units of the spread.

    Args:
        tokens: (B, J, D).
        wanted: (B, J, D).
        there: (B,) bool: rows whose phrases are known; without any the loss is 0.
        spread: (D,) of the text space.
    """
    error = ((tokens.float() - targets.float()) / spread).square().mean((1, 2))
    return (error * has_target).sum() / has_target.sum().clamp(min=1)


def alignment_loss(tokens: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """InfoNCE and MSE of standardised level tokens (B, J, D), with which a projector trains alone.

    SonicDiffusion's first stage (arXiv 2405.00878): both, with equal weight. The contrast is level
    by level, and rows that ask for the same at a level are each other's positives there: most
    recordings have nothing in the background.
    """
    contrast = tokens.new_zeros(())
    for level, count in LEVELS.items():
        part = level_slice(level)
        level_targets = targets[:, part].flatten(1)
        same = torch.cdist(level_targets, level_targets, p=float("inf")) < SAME_TARGET_TOLERANCE
        found = sequence_info_nce(tokens[:, part], targets[:, part], same, temperature)
        contrast = contrast + count / NUM_LEVEL_TOKENS * found
    return contrast + sequence_mse(tokens, targets)


def class_weights(labels: Sequence[str]) -> dict[str, float]:
    """Weights of labels that make every label count alike; their mean over the rows is one."""
    counts = Counter(labels)
    return {label: len(labels) / (len(counts) * n) for label, n in counts.items()}


class StageLoss(nn.Module):
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
        self, model: nn.Module, unwrapped_model: UNetWithAudio, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Every term by name, each a scalar.

        Args:
            model: what is called: the hearing UNet as the Trainer wraps it.
            inner: the hearing UNet itself.
            batch: of `AudioImageDataset`.
        """
        audio = {name: batch[name] for name in ("tokens", "mask", "embeds")}
        if self.stage.loss == "alignment":
            levels, _ = model(**audio)
            return self._alignment(levels, batch) | self._regularizers(levels, unwrapped_model)
        noise = batch["noise"]
        if self.arguments.noise_offset:
            noise = offset_noise(noise, batch["offset_noise"], self.arguments.noise_offset)
        noisy = self.scheduler.add_noise(batch["clean"], noise, batch["times"])
        levels, model_pred = model(
            **audio,
            noisy_latents=noisy,
            timesteps=batch["timesteps"],
            prompt_embeds=batch["prompt_embeds"],
            pooled_prompt_embeds=batch.get("pooled_prompt_embeds"),
            keep_audio=batch["keep_audio"],
            background_only=batch["background_only"],
            replace_text=self.stage.loss == "text_replacement",
        )
        terms = {"denoising": self._denoising(model_pred, batch, noise)}
        if self.arguments.level_loss_weight and "projector" in self.stage.trainable:
            error = level_loss(levels, batch["target_tokens"], batch["has_target"], self.spread)
            terms["levels"] = self.arguments.level_loss_weight * error
        return terms | self._regularizers(levels, unwrapped_model)

    def _denoising(
        self, model_pred: torch.Tensor, batch: dict[str, torch.Tensor], noise: torch.Tensor
    ) -> torch.Tensor:
        timesteps, gamma = batch["timesteps"], self.arguments.min_snr_gamma
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = (
            self.scheduler.get_velocity(batch["clean"], noise, timesteps) if velocity else noise
        )
        weights = batch["loss_weight"]
        if gamma:
            weights = weights * min_snr_weights(self.scheduler, timesteps, gamma)
        return denoising_loss(model_pred, target, weights)

    def _alignment(
        self, levels: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The alignment loss of rows whose phrases are known."""
        has_target = batch["has_target"]
        if has_target.sum() < 2:  # nothing to contrast; the graph must still reach the weights
            return {"alignment": 0.0 * levels.float().sum()}
        standard, targets = (
            (tokens[has_target].float() - self.mean) / self.spread
            for tokens in (levels, batch["target_tokens"])
        )
        temperature = self.arguments.contrastive_temperature
        return {"alignment": alignment_loss(standard, targets, temperature)}

    def _regularizers(
        self, levels: torch.Tensor, unwrapped_model: UNetWithAudio
    ) -> dict[str, torch.Tensor]:
        """What the levels and their weights should be like, whatever is heard."""
        options, terms = self.arguments, {}
        if options.orthogonality_weight:
            terms["orthogonality"] = options.orthogonality_weight * orthogonality(levels.float())
        if options.norm_weight:
            terms["norm"] = options.norm_weight * norm_error(levels.float(), options.norm_target)
        if options.entropy_weight:
            terms["entropy"] = -options.entropy_weight * entropy(
                unwrapped_model.adapter.level_weights()
            )
        return terms
