"""DiffuseTrainer: the Hugging Face Trainer for a UNet with an audio adapter."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import Sampler
from transformers import Trainer

from align.training.trainer import LossTermsMixin
from diffuse.config.training_args import DiffuseTrainingArguments
from diffuse.models.levels import annealed_temperature
from diffuse.training.callbacks import EMACallback
from diffuse.training.datasets import AudioImageDataset, BalancedSampler, collate
from diffuse.training.losses import StageLoss
from diffuse.training.model import UNetWithAudio

TRAINED_WEIGHTS_NAME = "trained.safetensors"


class DiffuseTrainer(LossTermsMixin, Trainer):
    """Trains a `UNetWithAudio`; frozen parameters are neither saved nor loaded.

    Args:
        stage_loss: Loss of the stage.
        class_balanced: Sample all classes equally often.
        ema: EMA of the trained weights, or None.
        kwargs: Arguments of the Trainer. Datasets are `AudioImageDataset`.
    """

    def __init__(
        self,
        *,
        stage_loss: StageLoss,
        class_balanced: bool = False,
        ema: EMACallback | None = None,
        **kwargs: Any,
    ) -> None:
        self.optimizer: torch.optim.Optimizer | None
        super().__init__(**{"data_collator": collate} | kwargs)
        self.stage_loss = stage_loss.to(self.args.device)
        self.can_return_loss = True
        self.ema = ema
        if ema is not None:
            self.add_callback(ema)
        self._class_balanced = class_balanced
        self._terms: dict[str, list[torch.Tensor]] = defaultdict(list)

    @property
    def unet_with_audio(self) -> UNetWithAudio:
        """The model without the wrappers of the Trainer."""
        found = self.accelerator.unwrap_model(self.model)
        assert isinstance(found, UNetWithAudio)
        return found

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler:
        rows = self.train_dataset if train_dataset is None else train_dataset
        assert isinstance(rows, AudioImageDataset)
        return BalancedSampler(rows.labels, self.args.seed, self._class_balanced)

    def create_optimizer(self, *given: Any) -> torch.optim.Optimizer:
        """Create AdamW; gates and level weights have their own learning rate and no weight
        decay."""
        if self.optimizer is None:
            args = self.args
            assert isinstance(args, DiffuseTrainingArguments)
            by_name = self.unet_with_audio.adapter.parameter_groups
            scalars = {id(p) for name in ("gates", "level_weights") for p in by_name[name]}
            weights = [p for p in self.unet_with_audio.parameters() if p.requires_grad]
            rest = [p for p in weights if id(p) not in scalars]
            groups = [{"params": rest}] if rest else []
            fast = [p for p in weights if id(p) in scalars]
            if fast:
                rate = args.learning_rate * args.gate_lr_multiplier
                groups.append({"params": fast, "lr": rate, "weight_decay": 0.0})  # type: ignore[dict-item]
            kind, options = self.get_optimizer_cls_and_kwargs(args, self.unet_with_audio)
            self.optimizer = kind(groups, weight_decay=args.weight_decay, **options)
        return self.optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Compute the sum of the stage loss's terms and keep each for the log."""
        if model.training:
            self._anneal_temperature()
        terms = self.stage_loss(model, self.unet_with_audio, inputs)
        if model.training:
            self.keep_terms(terms)
        loss = torch.stack(list(terms.values())).sum()
        return (loss, {}) if return_outputs else loss

    def _anneal_temperature(self) -> None:
        options = self.stage_loss.arguments
        progress = self.state.global_step / max(1, self.state.max_steps)
        temperature = annealed_temperature(
            progress, options.temperature_start, options.temperature_end
        )
        self.unet_with_audio.adapter.set_temperature(temperature)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[torch.Tensor, None, None]:
        """Compute the loss only."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    def evaluate(self, *given: Any, **more: Any) -> dict[str, float]:
        """Compute the loss on held-out pairs, with the EMA weights if there are any."""
        if self.ema is None:
            return dict(super().evaluate(*given, **more))
        with self.ema.averaged_weights():
            return dict(super().evaluate(*given, **more))

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        from align.models.weights import save_file

        folder = Path(output_dir or self.args.output_dir or ".")
        folder.mkdir(parents=True, exist_ok=True)
        state = {
            k: v.cpu().contiguous() for k, v in self.unet_with_audio.trained_state_dict().items()
        }
        save_file(state, folder / TRAINED_WEIGHTS_NAME)
        if self.ema is not None:
            self.ema.save(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        from safetensors.torch import load_file

        folder = Path(resume_from_checkpoint)
        self.unet_with_audio.load_trained_state_dict(load_file(folder / TRAINED_WEIGHTS_NAME))
        if self.ema is not None:
            self.ema.load(folder)
