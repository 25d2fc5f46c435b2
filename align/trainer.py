"""AlignTrainer: the Hugging Face Trainer, routed through the alignment's losses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sized
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer

from align.arguments import LossArguments
from align.batches import EpochSampler, collate
from align.distillation import KeyValueDistillation
from align.losses import same_group, sequence_info_nce, sequence_mse
from align.measures import centred_cosine
from align.prompts import Prompts


class AlignmentLoss(nn.Module):
    """The weighted terms of the alignment, against a table of target embeds.

    Args:
        targets: standardised embeds (C, L, D), and pooled (C, P), by caption.
        arguments: weights and temperature.
        distillation: where its weight is not zero, with the spread (L, D) that turns a
            standardised difference into one of prompt embeds.
        spread: see distillation.
    """

    embeds: torch.Tensor
    pooled: torch.Tensor
    spread: torch.Tensor

    def __init__(
        self,
        targets: Prompts,
        arguments: LossArguments,
        distillation: KeyValueDistillation | None = None,
        spread: torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.arguments = arguments
        self.distillation = distillation
        self.register_buffer("embeds", targets.embeds)
        self.register_buffer("pooled", targets.pooled)
        self.register_buffer("spread", spread)

    def forward(
        self,
        embeds: torch.Tensor,
        pooled: torch.Tensor | None,
        target: torch.Tensor,
        group: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Every weighted term by name, each a scalar.

        Args:
            embeds: (B, L, D) standardised.
            pooled: (B, P) standardised, or None.
            target: (B,) rows of the table.
            group: (B,) numbers; rows of one group are each other's positives.
        """
        wanted = self.embeds[target]
        given, terms = self.arguments, {}
        if given.info_nce_weight:
            found = sequence_info_nce(embeds, wanted, same_group(group), given.temperature)
            terms["info_nce"] = given.info_nce_weight * found
        if given.mse_weight:
            terms["mse"] = given.mse_weight * sequence_mse(embeds, wanted)
            if pooled is not None:
                found = sequence_mse(pooled, self.pooled[target])
                terms["pooled_mse"] = given.mse_weight * found
        if self.distillation is not None:
            # Means cancel in a difference: only the spread separates it from real embeds.
            found = self.distillation(embeds * self.spread, wanted * self.spread)
            terms["distillation"] = given.distillation_weight * found
        return terms


class AlignTrainer(Trainer):
    """Trains an `AudioPromptEncoder`; all it adds to Trainer is routing.

    Args:
        criterion: the alignment's loss.
        kwargs: Trainer's own. Datasets are `align.batches.Recordings` or `Tokens`.
    """

    def __init__(self, *, criterion: AlignmentLoss, **kwargs: Any) -> None:
        super().__init__(**{"data_collator": collate} | kwargs)
        self.criterion = criterion.to(self.args.device)
        self.can_return_loss = True
        self._terms: dict[str, list[torch.Tensor]] = defaultdict(list)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return EpochSampler(cast(Sized, rows), self.args.seed)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The sum of the criterion's terms, each kept for the log."""
        inputs = dict(inputs)
        target, group = inputs.pop("target"), inputs.pop("group")
        out = model(**inputs)
        terms = self.criterion(out.embeds, out.pooled, target, group)
        if model.training:
            for name, term in terms.items():
                self._terms[name].append(term.detach())
        loss = torch.stack(list(terms.values())).sum()
        return (loss, out) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, and each row's centred cosine to its target: whole sequences are not kept."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, out = self.compute_loss(model, inputs, return_outputs=True)
        fit = centred_cosine(out.embeds.float(), self.criterion.embeds[inputs["target"]])
        return loss.detach(), fit, inputs["group"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of every loss term since the last log line."""
        if "loss" in logs:
            for name, values in self._terms.items():
                logs[f"loss_{name}"] = round(torch.stack(values).mean().item(), 4)
            self._terms.clear()
        super().log(logs, start_time)


def mean_cosine(prediction: Any) -> dict[str, float]:
    """Trainer's compute_metrics: the mean centred cosine of an evaluation."""
    return {"centred_cosine": float(prediction.predictions.mean())}
