"""AlignTrainer: the Hugging Face Trainer with the alignment losses."""

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
    """Log the mean of every loss term since the last log line."""

    _terms: dict[str, list[torch.Tensor]]

    def keep_terms(self, terms: Mapping[str, torch.Tensor]) -> None:
        """Keep the loss terms of a step for the next log line."""
        for name, term in terms.items():
            self._terms[name].append(term.detach())

    def learned(self) -> dict[str, float]:
        """Return further values to log."""
        return {}

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as the Trainer does, with the loss terms."""
        if "loss" in logs:
            for name, values in self._terms.items():
                logs[f"loss_{name}"] = round(torch.stack(values).mean().item(), 4)
            self._terms.clear()
            logs |= self.learned()
        super().log(logs, start_time)  # type: ignore[misc]


class AlignTrainer(LossTermsMixin, Trainer):
    """Trainer of an `AudioPromptEncoder`.

    Args:
        criterion: Loss of the default prompt space.
        gradient_cache: Rows per GradCache chunk, or 0 to disable GradCache.
        extra_criteria: Losses of further prompt spaces, by name.
        kwargs: Arguments of the Trainer. Datasets are a `FeatureDataset`, a `TokenDataset` or a
            `StreamingFeatureDataset` of `align.training.datasets`.
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
        """Return the loader; several processes divide the batches of a single one."""
        if self.args.world_size == 1 or isinstance(self.train_dataset, IterableDataset):
            return super().get_train_dataloader()
        batch_size = self.args.train_batch_size * self.args.world_size
        batch_sampler = RankBatchSampler(
            self._get_train_sampler(), batch_size, self.args.dataloader_drop_last
        )
        return rank_dataloader(self.train_dataset, batch_sampler, self.data_collator, self.args)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Create the optimizer, with the parameters of the loss and no weight decay on them."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        learned = list(self.criterion.parameters())
        if is_new and learned:
            optimizer.add_param_group({"params": learned, "weight_decay": 0.0})
        return optimizer

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Run a step; with GradCache, replay the encoder's backward pass after the loss."""
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
        """Return the sum of the loss terms over the rows of all processes, and keep them to log."""
        inputs = dict(inputs)
        target, group = inputs.pop("target"), inputs.pop("group")
        extra_outputs: list[Any] = []
        if model.training and self._cache is not None:
            out = self._cache.encode(model, inputs, self._no_sync(model))
        else:
            # All spaces at once, so that the backbone runs once.
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
        """Return the loss and each row's centered cosine to its target, but not the embeds."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, out = self.compute_loss(model, inputs, return_outputs=True)
        cosine = centered_cosine(out.embeds.float(), self.criterion.embeds[inputs["target"]])
        return loss.detach(), cosine, inputs["group"]

    def learned(self) -> dict[str, float]:
        """Return the learned temperatures and bias of the loss."""
        return {name: value.item() for name, value in self.criterion.learned_values().items()}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.criterion.load(Path(resume_from_checkpoint))


def compute_metrics(prediction: Any) -> dict[str, float]:
    """Return the mean centered cosine of an evaluation, for the Trainer."""
    return {"centered_cosine": float(prediction.predictions.mean())}
