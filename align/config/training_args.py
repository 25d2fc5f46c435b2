"""The Trainer's options, as an alignment has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

from transformers import TrainingArguments

from align.config.arguments import AlignTrainingOptions, TrainingOptions

# Of the Trainer's options, those that decide the weights: a run resumes only with the same.
WEIGHT_DETERMINING_OPTIONS = (
    "seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps",
    "dataloader_drop_last", "learning_rate", "weight_decay", "lr_scheduler_type",
    "lr_scheduler_kwargs", "warmup_steps", "max_grad_norm", "world_size", "bf16", "fp16", "optim",
    "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon",
)  # fmt: skip
# Those that decide for how long: a run may be made longer. The best of it may be what is kept.
LENGTH_OPTIONS = (
    "num_train_epochs", "max_steps", "load_best_model_at_end", "metric_for_best_model",
    "greater_is_better",
)  # fmt: skip
UNSUPPORTED_OPTIONS = (
    "label_smoothing_factor",
    "neftune_noise_alpha",
)  # made for classes and for words


@dataclass
class SoundTrainingArguments(TrainingOptions, TrainingArguments):
    """The Trainer's own options, and what both packages refuse of them."""

    def __post_init__(self) -> None:
        if self.remove_unused_columns:
            raise ValueError("--remove_unused_columns would take the captions away: leave it out")
        if self.push_to_hub:
            raise ValueError(
                "--push_to_hub would send checkpoints and captions to the hub: leave it out, and "
                "publish what is trained with python -m align.publish"
            )
        if self.overwrite_output_dir and self.given_checkpoint is not None:
            raise ValueError(
                f"--resume_from_checkpoint {self.resume_from_checkpoint} continues a run and "
                "--overwrite_output_dir deletes it: leave one of them out"
            )
        for name in UNSUPPORTED_OPTIONS:
            if getattr(self, name):
                raise ValueError(f"--{name} does nothing here: leave it out")
        unnamed = self.output_dir is None
        super().__post_init__()
        if unnamed:
            self.output_dir = None  # the Trainer's own name for it says nothing of the data
        check_reporters(self.report_to or ())

    @property
    def resumes(self) -> bool:
        """Whether the run in the output folder is continued."""
        return self.resume_from_checkpoint == "true" and not self.overwrite_output_dir

    @property
    def starts_over(self) -> bool:
        """Whether a run in the output folder is not continued."""
        return not self.resumes and self.given_checkpoint is None

    @property
    def given_checkpoint(self) -> Path | None:
        """The checkpoint that was named to resume from."""
        given = self.resume_from_checkpoint
        return None if given in (None, "true", "false") else Path(given).expanduser()


@dataclass
class AlignTrainingArguments(AlignTrainingOptions, SoundTrainingArguments):
    """All training options of an alignment."""

    WEIGHT_DETERMINING_OPTIONS: ClassVar[tuple[str, ...]] = (
        *WEIGHT_DETERMINING_OPTIONS,
        "gradient_cache",
    )
    EVAL_METRICS: ClassVar[tuple[str, ...]] = (
        "loss",
        "centred_cosine",
    )  # measured by an evaluation

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


# What the extra `track` of this package installs.
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",),
            "trackio": ("trackio",)}  # fmt: skip


def available_reporters() -> list[str]:
    """What the Trainer can report to."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return sorted(INTEGRATION_TO_CALLBACK)


def check_reporters(names: Sequence[str]) -> None:
    """Refuses to report to what does not exist or is not installed.

    Raises:
        ValueError: there is no such reporter, or its package is missing.
    """
    for name in names:
        if name not in (*available_reporters(), "none"):
            raise ValueError(
                f"--report_to {name}: there is no such reporter; there are: {', '.join(available_reporters())}"
            )
        packages = PACKAGES.get(name, ())
        if packages and not any(find_spec(package) for package in packages):
            raise ValueError(
                f"--report_to {name} needs a package that is not installed: pip install {name}"
            )
