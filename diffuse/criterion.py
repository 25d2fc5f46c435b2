"""The weighted terms that a stage minimises."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from diffuse import losses
from diffuse.arguments import LossArguments
from diffuse.hearing import HearingUNet
from diffuse.levels import entropy, norm_error, orthogonality
from diffuse.stages import Stage


class Criterion(nn.Module):
    """A stage's loss.

    Args:
        stage: says which.
        arguments: the weights of its terms.
        scheduler: the base's.
        mean: (J, D) of the level tokens that phrases ask for.
        spread: (D,) of the text space, the unit of the tokens' errors.
    """

    alphas: torch.Tensor
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
        self.prediction = losses.check_prediction(scheduler)
        self.register_buffer("alphas", scheduler.alphas_cumprod.float().clone())
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
            noise = losses.offset_noise(noise, batch["level"], self.arguments.noise_offset)
        noisy = losses.add_noise(self.alphas, batch["clean"], noise, batch["times"])
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
            error = losses.level_loss(levels, batch["wanted"], batch["known"], self.spread)
            terms["levels"] = self.arguments.level_weight * error
        return terms | self._shape(levels, inner)

    def _denoising(
        self, answer: torch.Tensor, batch: dict[str, torch.Tensor], noise: torch.Tensor
    ) -> torch.Tensor:
        times, gamma = batch["times"], self.arguments.min_snr_gamma
        wanted = losses.denoising_target(self.prediction, self.alphas, batch["clean"], noise, times)
        weights = batch["weight"]
        if gamma:
            snr = losses.min_snr_weights(self.prediction, self.alphas, times, gamma)
            weights = weights * snr
        return losses.denoising_loss(answer, wanted, weights)

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
        return {"alignment": losses.alignment_loss(standard, wanted, temperature)}

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
