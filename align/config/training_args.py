"""Training arguments: those of the Trainer with other defaults and further checks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from transformers import TrainingArguments

from align.config.arguments import AlignTrainingOptions, TrainingOptions

# Options of the Trainer that determine the weights: a resumed run must have the same values.
WEIGHT_DETERMINING_OPTIONS = (
    "seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps",
    "dataloader_drop_last", "learning_rate", "weight_decay", "lr_scheduler_type",
    "lr_scheduler_kwargs", "warmup_steps", "max_grad_norm", "world_size", "bf16", "fp16", "optim",
    "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon",
)  # fmt: skip
# Options for the length of a run and its best checkpoint, which may change on resuming.
LENGTH_OPTIONS = (
    "num_train_epochs", "max_steps", "load_best_model_at_end", "metric_for_best_model",
    "greater_is_better",
)  # fmt: skip
UNSUPPORTED_OPTIONS = ("label_smoothing_factor", "neftune_noise_alpha")  # for language models


@dataclass
class SoundTrainingArguments(TrainingOptions, TrainingArguments):
    """All options of the Trainer, with checks for those that both packages do not support."""

    def __post_init__(self) -> None:
        if self.remove_unused_columns:
            raise ValueError("--remove_unused_columns would remove the captions: leave it out")
        if self.push_to_hub:
            raise ValueError(
                "--push_to_hub would upload checkpoints and captions to the Hub: leave it out, and "
                "upload the trained model with python -m align.push"
            )
        if self.overwrite_output_dir and self.given_checkpoint is not None:
            raise ValueError(
                f"--resume_from_checkpoint {self.resume_from_checkpoint} continues a run and "
                "--overwrite_output_dir deletes it: leave one of them out"
            )
        for name in UNSUPPORTED_OPTIONS:
            if getattr(self, name):
                raise ValueError(f"--{name} has no effect: leave it out")
        unnamed = self.output_dir is None
        super().__post_init__()
        if unnamed:
            self.output_dir = None  # the default is named after the dataset
        check_reporters(self.report_to or ())

    @property
    def resumes(self) -> bool:
        """Whether to resume the run in the output directory."""
        return self.resume_from_checkpoint == "true" and not self.overwrite_output_dir

    @property
    def starts_over(self) -> bool:
        """Whether to start over without resuming from any checkpoint."""
        return not self.resumes and self.given_checkpoint is None

    @property
    def given_checkpoint(self) -> Path | None:
        """The checkpoint to resume from, if one is given by its path."""
        given = self.resume_from_checkpoint
        return None if given in (None, "true", "false") else Path(given).expanduser()


@dataclass
class AlignTrainingArguments(AlignTrainingOptions, SoundTrainingArguments):
    """All training options of `align.train`."""

    WEIGHT_DETERMINING_OPTIONS: ClassVar[tuple[str, ...]] = (
        *WEIGHT_DETERMINING_OPTIONS,
        "gradient_cache",
    )
    EVAL_METRICS: ClassVar[tuple[str, ...]] = ("loss", "centered_cosine")

    def __post_init__(self) -> None:
        if self.gradient_cache < 0:
            raise ValueError(f"--gradient_cache is a number of rows, not {self.gradient_cache}")
        super().__post_init__()
        best = (self.metric_for_best_model or "loss").removeprefix("eval_")
        if best not in self.EVAL_METRICS:
            raise ValueError(
                f"--metric_for_best_model is {' or '.join(self.EVAL_METRICS)}, not "
                f"{self.metric_for_best_model!r}"
            )


# Packages of the extra `track`.
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",),
            "trackio": ("trackio",)}  # fmt: skip


def available_reporters() -> list[str]:
    """Return the names of the reporters that the Trainer supports."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return sorted(INTEGRATION_TO_CALLBACK)


def check_reporters(names: Sequence[str]) -> None:
    """Check that reporters exist and are installed.

    Args:
        names: Values of `--report_to`.

    Raises:
        ValueError: If there is no such reporter, or its package is not installed.
    """
    for name in names:
        if name not in (*available_reporters(), "none"):
            raise ValueError(
                f"--report_to {name}: there is no such reporter; there are: "
                f"{', '.join(available_reporters())}"
            )
        packages = PACKAGES.get(name, ())
        if packages and not any(find_spec(package) for package in packages):
            raise ValueError(
                f"--report_to {name} needs a package that is not installed: pip install {name}"
            )
