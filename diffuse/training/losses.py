"""Losses of the UNet training as pure functions, and the loss of a stage."""

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
SAME_TARGET_TOLERANCE = 1e-2  # standardized targets closer than this are equal


def check_prediction(scheduler: Any) -> str:
    """Return the prediction type of a base model's UNet.

    Args:
        scheduler: Scheduler of the base model.

    Raises:
        ValueError: If the UNet predicts neither the noise nor the velocity.
    """
    kind = str(scheduler.config.get("prediction_type", "epsilon"))
    if kind not in PREDICTIONS or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"{type(scheduler).__name__} with prediction_type {kind!r} cannot be trained: "
            f"use a base model that predicts {' or '.join(PREDICTIONS)}"
        )
    return kind


def training_scheduler(scheduler: Any) -> Any:
    """Create the noise schedule that a base model was trained with.

    Args:
        scheduler: Scheduler of the base model, of any class.

    Returns:
        A DDPMScheduler with the same noise schedule.

    Raises:
        ValueError: If the UNet predicts neither the noise nor the velocity.
    """
    from diffusers import DDPMScheduler

    check_prediction(scheduler)
    return DDPMScheduler.from_config(scheduler.config)


def offset_noise(noise: torch.Tensor, offset: torch.Tensor, strength: float) -> torch.Tensor:
    """Add an offset to each channel of the noise, so that the brightness is learned.

    Args:
        noise: Standard normal noise (B, C, H, W).
        offset: Standard normal noise (B, C, 1, 1).
        strength: Scale of the offset; 0 disables it.
    """
    return noise + strength * offset


def min_snr_weights(scheduler: Any, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Compute min-SNR loss weights (Hang et al. 2023, arXiv 2303.09556).

    The weight of the error of the clean latents is min(SNR, gamma), which limits the weight of
    timesteps with little noise. It is divided by the SNR if the UNet predicts the noise and by SNR
    + 1 if it predicts the velocity. At an SNR of zero the former takes its limit, one.

    Args:
        scheduler: Noise schedule with the UNet's prediction type.
        timesteps: Timesteps (B,).
        gamma: Gamma of the weighting.

    Returns:
        Weights (B,).

    Raises:
        ValueError: If gamma is not positive.
    """
    from diffusers.training_utils import compute_snr

    if gamma <= 0:
        raise ValueError(f"min_snr_gamma must be positive, not {gamma}")
    snr = compute_snr(scheduler, timesteps)
    if scheduler.config.prediction_type == "epsilon":
        return (gamma / snr).clamp(max=1.0)
    return snr.clamp(max=gamma) / (snr + 1)


def denoising_loss(
    model_pred: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Compute the mean squared error of the prediction.

    Args:
        model_pred: Output (B, C, H, W) of the UNet.
        target: Target (B, C, H, W).
        weights: Weights (B,) of the rows.
    """
    error = (model_pred.float() - target.float()).square().flatten(1).mean(1)
    return (error if weights is None else error * weights).mean()


def level_loss(
    tokens: torch.Tensor, targets: torch.Tensor, has_target: torch.Tensor, std: torch.Tensor
) -> torch.Tensor:
    """Compute the mean squared error of level tokens, in units of the standard deviation.

    Args:
        tokens: Level tokens (B, J, D).
        targets: Target tokens (B, J, D).
        has_target: Boolean mask (B,) of rows with targets; without any the loss is 0.
        std: Standard deviation (D,) of the text space.
    """
    error = ((tokens.float() - targets.float()) / std).square().mean((1, 2))
    return (error * has_target).sum() / has_target.sum().clamp(min=1)


def alignment_loss(tokens: torch.Tensor, targets: torch.Tensor, temperature: float) -> torch.Tensor:
    """Compute InfoNCE and MSE of standardized level tokens, which train the projector alone.

    The first stage of SonicDiffusion (arXiv 2405.00878) uses both with equal weights. InfoNCE is
    computed per level, and rows with equal targets at a level are positives of each other there:
    most clips have no background.

    Args:
        tokens: Standardized level tokens (B, J, D).
        targets: Standardized target tokens (B, J, D).
        temperature: InfoNCE temperature.
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
    """Compute weights inversely proportional to class frequency, with mean one over the rows.

    Args:
        labels: Labels of all rows.

    Returns:
        Weights by label.
    """
    counts = Counter(labels)
    return {label: len(labels) / (len(counts) * n) for label, n in counts.items()}


class StageLoss(nn.Module):
    """The loss of a stage.

    Args:
        stage: The stage.
        arguments: Weights of the terms.
        scheduler: Scheduler of the base model.
        mean: Mean (J, D) of the target level tokens.
        std: Standard deviation (D,) of the text space, the unit of token errors.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        stage: Stage,
        arguments: LossArguments,
        scheduler: Any,
        mean: torch.Tensor,
        std: torch.Tensor,
    ) -> None:
        super().__init__()
        self.stage, self.arguments = stage, arguments
        self.scheduler = training_scheduler(scheduler)
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(
        self, model: nn.Module, unwrapped_model: UNetWithAudio, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Compute the terms of the loss.

        Args:
            model: The model as wrapped by the Trainer.
            unwrapped_model: The model itself.
            batch: Batch of `AudioImageDataset`.

        Returns:
            Scalar terms by name.
        """
        audio = {name: batch[name] for name in ("tokens", "mask", "embeds")}
        if self.stage.loss == "alignment":
            levels, _ = model(**audio)
            return self._alignment(levels, batch) | self._regularizers(levels, unwrapped_model)
        noise = batch["noise"]
        if self.arguments.noise_offset:
            noise = offset_noise(noise, batch["offset_noise"], self.arguments.noise_offset)
        noisy = self.scheduler.add_noise(batch["latents"], noise, batch["timesteps"])
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
            error = level_loss(levels, batch["target_tokens"], batch["has_target"], self.std)
            terms["levels"] = self.arguments.level_loss_weight * error
        return terms | self._regularizers(levels, unwrapped_model)

    def _denoising(
        self, model_pred: torch.Tensor, batch: dict[str, torch.Tensor], noise: torch.Tensor
    ) -> torch.Tensor:
        timesteps, gamma = batch["timesteps"], self.arguments.min_snr_gamma
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = (
            self.scheduler.get_velocity(batch["latents"], noise, timesteps) if velocity else noise
        )
        weights = batch["loss_weight"]
        if gamma:
            weights = weights * min_snr_weights(self.scheduler, timesteps, gamma)
        return denoising_loss(model_pred, target, weights)

    def _alignment(
        self, levels: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """Compute the alignment loss of the rows with targets."""
        has_target = batch["has_target"]
        if has_target.sum() < 2:  # no negatives; the graph must still reach the weights
            return {"alignment": 0.0 * levels.float().sum()}
        standardized, targets = (
            (tokens[has_target].float() - self.mean) / self.std
            for tokens in (levels, batch["target_tokens"])
        )
        temperature = self.arguments.contrastive_temperature
        return {"alignment": alignment_loss(standardized, targets, temperature)}

    def _regularizers(
        self, levels: torch.Tensor, unwrapped_model: UNetWithAudio
    ) -> dict[str, torch.Tensor]:
        """Compute the regularization terms of level tokens and level weights."""
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
