"""AlignTrainer: the Hugging Face Trainer, routed through the alignment's losses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sized
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, Sampler
from transformers import Trainer

from align.evaluation.statistics import centered_cosine
from align.losses.alignment import AlignmentLoss
from align.losses.gradient_cache import GradientCache
from align.training.callbacks import LearnedLossCallback
from align.training.datasets import EpochSampler, collate
from align.training.distributed import RankBatchSampler, gather_rows, rank_dataloader


class LossTermsMixin:
    """Adds the mean of every loss term since the last log line to a Trainer's log."""

    _terms: dict[str, list[torch.Tensor]]

    def keep_terms(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Keeps a step's loss terms for the next log line."""
        for name, term in terms.items():
            self._terms[name].append(term.detach())

    def learned(self) -> dict[str, float]:
        """What is logged beside the terms."""
        return {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the Trainer's, with the terms."""
        if "loss" in logs:
            for name, values in self._terms.items():
                logs[f"loss_{name}"] = round(torch.stack(values).mean().item(), 4)
            self._terms.clear()
            logs |= self.learned()
        super().log(logs, start_time)  # type: ignore[misc]


class AlignTrainer(LossTermsMixin, Trainer):
    """Trains an `AudioPromptEncoder`; all it adds to Trainer is routing.

    Args:
        criterion: the alignment's loss.
        gradient_cache: rows encoded at once; 0 for a step's whole batch.
        others: the losses of further spaces, by their names.
        kwargs: Trainer's own. Datasets are `align.training.datasets.FeatureDataset` or `TokenDataset`.
    """

    def __init__(
        self,
        *,
        criterion: AlignmentLoss,
        gradient_cache: int = 0,
        extra_criteria: Mapping[str, AlignmentLoss] | None = None,
        **kwargs: Any,
    ) -> None:
        callbacks = [LearnedLossCallback(criterion), *(kwargs.pop("callbacks", None) or ())]
        super().__init__(**{"data_collator": collate} | kwargs, callbacks=callbacks)
        self.criterion = criterion.to(self.args.device)
        self._extra_criteria = {
            k: extra_criterion.to(self.args.device)
            for k, extra_criterion in (extra_criteria or {}).items()
        }
        self.can_return_loss = True
        self._cache = GradientCache(gradient_cache) if gradient_cache else None
        self._terms: dict[str, list[torch.Tensor]] = defaultdict(list)

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        return EpochSampler(cast(Sized, rows), self.args.seed)

    def get_train_dataloader(self) -> DataLoader:
        """Several processes divide each batch that one would have."""
        if self.args.world_size == 1 or isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        batch_size = self.args.train_batch_size * self.args.world_size
        batch_sampler = RankBatchSampler(
            self._get_train_sampler(), batch_size, self.args.dataloader_drop_last
        )
        return rank_dataloader(self.train_dataset, batch_sampler, self.data_collator, self.args)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The encoder's weights, and what the criterion learns, which does not decay."""
        fresh = self.optimizer is None
        optimizer = super().create_optimizer(model)
        learned = list(self.criterion.parameters())
        if fresh and learned:
            optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
        return optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """With a gradient cache, what the loss's gradient asks of the encoder comes after it."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self._cache is not None:
            self._cache.replay(model, self._no_sync(model))
        return loss

    def _no_sync(self, model: nn.Module) -> Any:
        return partial(self.accelerator.no_sync, model)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The sum of the criterion's terms over all processes' rows; each is kept for the log."""
        inputs = dict(inputs)
        target, group = inputs.pop("target"), inputs.pop("group")
        extra_outputs: list[Any] = []
        if model.training and self._cache is not None:
            out = self._cache.encode(model, inputs, self._no_sync(model))
        else:
            # All spaces in one go: the recording is heard once.
            out, *extra_outputs = model(**inputs, space=[None, *self._extra_criteria])
        terms = self.criterion(*gather_rows(out.embeds, out.pooled, target, group))
        for (name, extra_criterion), output in zip(
            self._extra_criteria.items(), extra_outputs, strict=True
        ):
            found = extra_criterion(*gather_rows(output.embeds, output.pooled, target, group))
            terms |= {f"{term} ({name})": value for term, value in found.items()}
        if model.training:
            self.keep_terms(terms)
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
        fit = centered_cosine(out.embeds.float(), self.criterion.embeds[inputs["target"]])
        return loss.detach(), fit, inputs["group"]

    def learned(self) -> dict[str, float]:
        """What the loss learned itself."""
        return {name: value.item() for name, value in self.criterion.learned_values().items()}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.criterion.load(Path(resume_from_checkpoint))


def compute_metrics(prediction: Any) -> dict[str, float]:
    """Trainer's compute_metrics: the mean centred cosine of an evaluation."""
    return {"centered_cosine": float(prediction.predictions.mean())}
