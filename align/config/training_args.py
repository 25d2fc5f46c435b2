"""The Trainer's options, as an alignment has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from transformers import TrainingArguments

# Of the Trainer's options, those that decide the weights: only the same go on from a checkpoint.
DECISIVE = (
    "seed", "data_seed", "per_device_train_batch_size", "gradient_accumulation_steps",
    "gradient_cache", "dataloader_drop_last", "learning_rate", "weight_decay",
    "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "max_grad_norm", "world_size",
    "bf16", "fp16", "optim", "optim_args", "adam_beta1", "adam_beta2", "adam_epsilon",
)  # fmt: skip
# Those that decide for how long: a run may be made longer. The best of it may be what is kept.
LENGTH = (
    "num_train_epochs", "max_steps", "load_best_model_at_end", "metric_for_best_model",
    "greater_is_better",
)  # fmt: skip
IGNORED = ("label_smoothing_factor", "neftune_noise_alpha")  # made for classes and for words
COMPARED = ("loss", "centred_cosine")  # what an evaluation in training measures


@dataclass
class AlignTrainingArguments(TrainingArguments):
    """The Trainer's own options, with the miniature's defaults."""

    output_dir: str | None = field(default="runs/align/mini", metadata={"help": "where results go"})
    num_train_epochs: float = field(default=5.0, metadata={"help": "passes over the data"})
    per_device_train_batch_size: int = field(default=50, metadata={"help": "rows a step"})
    per_device_eval_batch_size: int = field(default=50, metadata={"help": "rows a step"})
    gradient_cache: int = field(
        default=0,
        metadata={"help": "rows encoded at once, for batches that memory does not hold; 0: all"},
    )
    learning_rate: float = field(default=1e-3, metadata={"help": "the peak"})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW's"})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "after the warm-up"})
    warmup_steps: float = field(default=0.05, metadata={"help": "steps, or a share below 1"})
    max_grad_norm: float = field(default=1.0, metadata={"help": "gradients are clipped to it"})
    logging_steps: float = field(default=20, metadata={"help": "steps between two log lines"})
    eval_strategy: str = field(default="epoch", metadata={"help": "no, steps or epoch"})
    save_strategy: str = field(default="epoch", metadata={"help": "no, steps or epoch"})
    save_total_limit: int | None = field(default=2, metadata={"help": "checkpoints kept"})
    report_to: str | None = field(default="none", metadata={"help": "tensorboard, trackio, wandb"})
    remove_unused_columns: bool = field(default=False, metadata={"help": "must stay off"})
    seed: int = field(default=0, metadata={"help": "of everything drawn at random"})
    draw_every_evaluation: bool = field(
        default=False, metadata={"help": "draw samples at every evaluation, not only at the end"}
    )
    ddp_timeout: int = field(
        default=6 * 3600, metadata={"help": "seconds that processes wait for the main one"}
    )
    resume: bool = field(
        default=True, metadata={"help": "go on from output_dir's last checkpoint, if it has one"}
    )

    def __post_init__(self) -> None:
        if self.gradient_cache < 0:
            raise ValueError(f"--gradient_cache is a number of rows, not {self.gradient_cache}")
        if self.remove_unused_columns:
            raise ValueError("--remove_unused_columns would take the captions away: leave it out")
        if self.push_to_hub:
            raise ValueError(
                "--push_to_hub would send checkpoints and captions to the hub: leave it out, and "
                "publish what is trained with python -m align.publish"
            )
        for name in IGNORED:
            if getattr(self, name):
                raise ValueError(f"--{name} does nothing in an alignment: leave it out")
        super().__post_init__()
        check_reporters(self.report_to or ())
        best = (self.metric_for_best_model or "loss").removeprefix("eval_")
        if best not in COMPARED:
            raise ValueError(
                f"--metric_for_best_model is {' or '.join(COMPARED)}, not "
                f"{self.metric_for_best_model!r}"
            )


# What the extra `track` of this package installs.
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",),
            "trackio": ("trackio",)}  # fmt: skip


def known() -> list[str]:
    """What the Trainer can report to."""
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return sorted(INTEGRATION_TO_CALLBACK)


def check_reporters(names: Sequence[str]) -> None:
    """Refuses to report to what does not exist or is not installed.

    Raises:
        ValueError: there is no such reporter, or its package is missing.
    """
    for name in names:
        if name not in (*known(), "none"):
            raise ValueError(
                f"--report_to {name}: there is no such reporter; there are: {', '.join(known())}"
            )
        packages = PACKAGES.get(name, ())
        if packages and not any(find_spec(package) for package in packages):
            raise ValueError(
                f"--report_to {name} needs a package that is not installed: pip install {name}"
            )
