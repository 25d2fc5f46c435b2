"""The alignment loss: weighted terms against a table of targets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import torch
from safetensors.torch import load_file
from torch import nn

from align.losses.distillation import KeyValueDistillation
from align.losses.functional import (
    same_group,
    sequence_info_nce,
    sequence_margin,
    sequence_mse,
    sequence_sigmoid,
    soft_positives,
)
from align.models.weights import save_file
from align.preprocessing.text_embeds import (
    CaptionEmbeds,
    LabelMixture,
    LazyTargets,
    standardized_targets,
)

if TYPE_CHECKING:
    from align.config.arguments import LossArguments
    from align.models.heads import Head


LOSS_STATE_NAME = "criterion.safetensors"


class TargetEmbeds(Protocol):
    """Standardized targets by index: embeds (C, L, D) and pooled embeds (C, P)."""

    @property
    def embeds(self) -> torch.Tensor | LazyTargets:
        """Targets of the prompt embeds."""

    @property
    def pooled(self) -> torch.Tensor | LazyTargets | None:
        """Targets of the pooled embeds, or None."""


class TargetTable(NamedTuple):
    """Targets, in memory or loaded lazily."""

    embeds: torch.Tensor | LazyTargets
    pooled: torch.Tensor | LazyTargets | None = None


class AlignmentLoss(nn.Module):
    """Weighted alignment losses against a table of target embeds.

    Learned values (temperatures and the sigmoid bias) are parameters of this module: they belong to
    the training run and are saved beside the encoder, not in it.

    Args:
        targets: Standardized embeds (C, L, D) and pooled embeds (C, P), by caption or label.
        arguments: Weights and options of the losses.
        distillation: Distillation loss, if it has a weight.
        std: (L, D) factor from standardized embeds to prompt embeds, used by the distillation.
        position_weights: (C, L) weight of each position; uniform if None.
    """

    embeds: torch.Tensor | LazyTargets
    pooled: torch.Tensor | LazyTargets | None
    std: torch.Tensor
    position_weights: torch.Tensor | None

    def __init__(
        self,
        targets: TargetEmbeds,
        arguments: LossArguments,
        distillation: KeyValueDistillation | None = None,
        std: torch.Tensor | None = None,
        position_weights: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.arguments = arguments
        self.distillation = distillation
        for name in ("embeds", "pooled"):
            rows = getattr(targets, name)
            register = self.add_module if isinstance(rows, LazyTargets) else self.register_buffer
            register(name, rows)
        self.register_buffer("std", std)
        self.register_buffer("position_weights", position_weights)
        given = arguments
        if given.learn_temperature and given.info_nce_weight:
            self.log_temperature = _scalar(math.log(given.temperature))
        if given.learn_temperature and given.sigmoid_weight:
            self.log_sigmoid_temperature = _scalar(math.log(given.sigmoid_temperature))
            self.sigmoid_bias = _scalar(given.sigmoid_bias)

    def learned_values(self) -> dict[str, torch.Tensor]:
        """Returns the learned temperatures and bias by name, detached."""
        names = [name.removeprefix("log_") for name, _ in self.named_parameters()]
        return {name: self._value(name).detach() for name in names}

    def forward(
        self,
        embeds: torch.Tensor,
        pooled: torch.Tensor | None,
        target: torch.Tensor,
        group: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Computes every weighted term, each a scalar, by name.

        Args:
            embeds: Standardized embeds (B, L, D).
            pooled: Standardized pooled embeds (B, P), or None.
            target: (B,) row indices of the target table.
            group: (B,) group ids; rows of the same group or target are positives of each other.
        """
        target_embeds, given = self.embeds[target], self.arguments
        positives = same_group(group) | same_group(target)
        position_weights = None if self.position_weights is None else self.position_weights[target]
        terms = self._contrastive_terms(embeds, target_embeds, positives, position_weights)
        if given.mse_weight:
            terms["mse"] = given.mse_weight * sequence_mse(embeds, target_embeds, position_weights)
            if pooled is not None:
                assert self.pooled is not None
                found = sequence_mse(pooled, self.pooled[target])
                terms["pooled_mse"] = given.mse_weight * found
        if self.distillation is not None:
            # Means cancel in a difference, so scaling by std restores the embeds' units.
            found = self.distillation(embeds * self.std, target_embeds * self.std)
            terms["distillation"] = given.distillation_weight * found
        return terms

    def _contrastive_terms(
        self,
        embeds: torch.Tensor,
        target_embeds: torch.Tensor,
        positives: torch.Tensor,
        position_weights: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        given, terms = self.arguments, {}
        if not given.is_contrastive:
            return {}
        agreement = soft_positives(positives, target_embeds, given.paraphrase_threshold)
        pair = embeds, target_embeds, agreement
        if given.info_nce_weight:
            temperature = self._value("temperature")
            found = sequence_info_nce(
                *pair, temperature, given.info_nce_direction, position_weights
            )
            terms["info_nce"] = given.info_nce_weight * found
        if given.sigmoid_weight:
            temperature, bias = self._value("sigmoid_temperature"), self._value("sigmoid_bias")
            found = sequence_sigmoid(*pair, temperature, bias, position_weights)
            terms["sigmoid"] = given.sigmoid_weight * found
        if given.margin_weight:
            found = sequence_margin(*pair, given.margin, position_weights)
            terms["margin"] = given.margin_weight * found
        return terms

    def _value(self, name: str) -> Any:
        """Returns an option's value, or the learned value that replaces it."""
        own = dict(self.named_parameters())
        if f"log_{name}" in own:
            return own[f"log_{name}"].exp()
        return own.get(name, getattr(self.arguments, name))

    def save(self, folder: Path) -> None:
        """Saves the learned values, if there are any."""
        values = {name: parameter.detach().cpu() for name, parameter in self.named_parameters()}
        if values:
            save_file(values, folder / LOSS_STATE_NAME)

    def load(self, folder: Path) -> None:
        """Loads the values written by `save`."""
        if dict(self.named_parameters()):
            self.load_state_dict(load_file(folder / LOSS_STATE_NAME), strict=False)


def build_criterion(
    loss: LossArguments,
    caption_embeds: CaptionEmbeds,
    head: Head,
    captions: dict[str, list[str]],
    *,
    lengths: torch.Tensor,
    distillation: KeyValueDistillation | None = None,
) -> AlignmentLoss:
    """Builds the loss of a head whose targets are captions or the mean of each label's captions.

    Args:
        loss: Options of the loss.
        caption_embeds: Embeds of the captions, not standardized.
        head: Head whose statistics standardize the targets.
        captions: Captions of all rows by label, with repetitions.
        lengths: (C,) number of positions that each caption fills.
        distillation: Distillation loss, if it has a weight.

    Raises:
        ValueError: The space has pooled embeds, but `--mse_weight` is 0.
    """
    embeds, pooled = caption_embeds.prompts.embeds, caption_embeds.prompts.pooled
    position_weights = padded_position_weights(lengths, embeds.shape[1], loss.padding_weight)
    mixture = None
    if loss.target == "label_mean":
        labels = [label for label, group in captions.items() for _ in group]
        mixture = LabelMixture(
            caption_embeds.index([text for group in captions.values() for text in group]), labels
        )
        position_weights = mixture.all_means(position_weights)
    if pooled is not None and not loss.mse_weight:
        raise ValueError("pooled embeds are trained by the MSE only: set --mse_weight above 0")
    space = head.statistics()
    standard = TargetTable(standardized_targets(embeds, space, mixture))
    if pooled is not None:
        standard = TargetTable(
            standard.embeds, standardized_targets(pooled, head.statistics("pooled"), mixture)
        )
    loss_weights = position_weights if loss.padding_weight != 1 else None
    return AlignmentLoss(standard, loss, distillation, space.std.clone(), loss_weights)


def padded_position_weights(lengths: torch.Tensor, length: int, padding: float) -> torch.Tensor:
    """Weights (C, L) of all positions: 1 within a caption, `padding` after its end.

    Args:
        lengths: (C,) number of positions that each caption fills, including the end token.
        length: L, number of positions of a prompt.
        padding: Weight of padding positions, above 0: pipelines attend to all positions.
    """
    words = torch.arange(length) < lengths[:, None]
    return torch.where(words, 1.0, padding)


def _scalar(value: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(float(value)))
