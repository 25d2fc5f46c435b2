"""Options of a training of the UNet: each field is a flag, a recipe key and the default's place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from align.config.arguments import CommonDataArguments, TrainingOptions
from align.config.arguments import EvaluationArguments as Judgement
from diffuse.config.stages import parse_stages

MINI_ENCODER = "runs/align/mini"  # trained at need, as `python -m align.train` would


@dataclass
class ModelArguments:
    """What shall hear, and with what."""

    base_model: str = field(
        default="mini", metadata={"help": "pipeline that learns to hear: a name, folder or hub id"}
    )
    encoder: str = field(
        default=MINI_ENCODER,
        metadata={"help": "an encoder that align.train aligned with this base; folder or hub id"},
    )
    init_from: str | None = field(
        default=None, metadata={"help": "go on from this saved adapter, in place of a fresh one"}
    )
    attention_type: str = field(
        default="shared",
        metadata={"help": "shared (the block's query and output) or sonic (SonicDiffusion's)"},
    )
    blocks: list[str] = field(
        default_factory=lambda: ["down", "mid", "up"],
        metadata={"help": "the UNet's parts that hear, of down, mid and up"},
    )
    routing: str = field(
        default="all",
        metadata={"help": "levels by part: all, hierarchy (down front, up air) or reverse"},
    )
    projector_width: int = field(default=256, metadata={"help": "the projector's own width"})
    projector_depth: int = field(default=2, metadata={"help": "the projector's layers"})
    projector_heads: int = field(default=4, metadata={"help": "the projector's attention heads"})
    lora_rank: int = field(default=0, metadata={"help": "of the LoRA on the UNet; 0 for none"})
    lora_targets: list[str] = field(
        default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0"],
        metadata={"help": "the UNet's layers that LoRA changes"},
    )


@dataclass
class DataArguments(CommonDataArguments):
    """What is heard, seen and said."""

    video_dir: str | None = field(
        default=None, metadata={"help": "folder of the videos that a VGGSound list names"}
    )
    image_column: str = field(default="image", metadata={"help": "column of images"})
    resolution: int = field(
        default=0, metadata={"help": "pixels of an image's side; 0 for the base's own"}
    )
    num_crops: int = field(
        default=1, metadata={"help": "squares kept of an image: the middle, then random ones"}
    )
    random_flip: bool = field(default=False, metadata={"help": "mirrored images too"})
    class_balanced: bool = field(
        default=False, metadata={"help": "draw every class equally often, rare ones repeatedly"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_crops < 1:
            raise ValueError(f"--crops is at least 1, not {self.num_crops}")


@dataclass
class LossArguments:
    """What training minimises, and what it leaves out at times."""

    stages: list[str] = field(
        default_factory=lambda: [
            '{"stage": "projector", "max_steps": 600, "learning_rate": 1e-3}',
            "attention",
        ],
        metadata={"help": "in a row: names, or mappings as JSON (docs/training-the-unet.md)"},
    )
    min_snr_gamma: float = field(
        default=0.0, metadata={"help": "of min-SNR weights, usually 5; 0 for the plain loss"}
    )
    noise_offset: float = field(default=0.0, metadata={"help": "strength of the noise offset"})
    caption_dropout: float = field(
        default=0.1, metadata={"help": "share of rows without their text"}
    )
    audio_dropout: float = field(default=0.1, metadata={"help": "share of rows in silence"})
    joint_dropout: float = field(
        default=0.05, metadata={"help": "share of rows without text and in silence"}
    )
    background_prob: float = field(
        default=0.5,
        metadata={
            "help": "share of the rows with a background whose text names the foreground alone, "
            "and whose sound is heard behind it alone; 0 where levels have no phrases"
        },
    )
    class_weighted: bool = field(
        default=False, metadata={"help": "every class counts alike in the loss, however rare"}
    )
    level_loss_weight: float = field(
        default=0.1, metadata={"help": "of the levels' error to their phrases' tokens"}
    )
    orthogonality_weight: float = field(default=0.0, metadata={"help": "of the levels' likeness"})
    entropy_weight: float = field(
        default=0.0, metadata={"help": "of the evenness of the levels' weights, which it rewards"}
    )
    norm_weight: float = field(default=0.0, metadata={"help": "of the tokens' norm error"})
    norm_target: float = field(default=60.0, metadata={"help": "the norm aimed at"})
    temperature_start: float = field(
        default=1.0, metadata={"help": "of the levels' weights, at the first step"}
    )
    temperature_end: float = field(default=1.0, metadata={"help": "and at the last"})
    contrastive_temperature: float = field(
        default=0.15, metadata={"help": "of the InfoNCE in the alignment loss"}
    )

    def __post_init__(self) -> None:
        parse_stages(self.stages)
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"--{name} is a number, not {value}")
        dropouts = (self.caption_dropout, self.audio_dropout, self.joint_dropout)
        if min(dropouts) < 0 or sum(dropouts) > 1:
            raise ValueError(
                "caption, sound and joint dropout are shares of the rows, together at most 1, "
                f"not {', '.join(map(str, dropouts))}"
            )
        if not 0 <= self.background_prob <= 1:
            raise ValueError(
                f"--background_prob is a share from 0 to 1, not {self.background_prob}"
            )
        if self.min_snr_gamma < 0 or self.noise_offset < 0:
            raise ValueError("--min_snr_gamma and --noise_offset cannot be negative")
        if min(self.temperature_start, self.temperature_end) <= 0:
            raise ValueError("--temperature_start and --temperature_end must be above 0")


@dataclass
class EvaluationArguments(Judgement):
    """What is drawn and judged."""

    num_images: int = field(
        default=100, metadata={"help": "pictures drawn and judged at the end; 0 for none"}
    )


@dataclass
class DiffuseTrainingOptions(TrainingOptions):
    """Training options of an audio adapter."""

    num_train_epochs: float = field(default=3.5, metadata={"help": "passes over the data"})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "rows a step"})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "rows a step"})
    learning_rate: float = field(default=3e-3, metadata={"help": "the peak"})
    gate_lr_multiplier: float = field(
        default=10.0, metadata={"help": "the gates' and level weights' rate, times the others'"}
    )
    bf16: bool = field(default=True, metadata={"help": "the UNet computes in bfloat16"})
    logging_steps: float = field(default=50, metadata={"help": "steps between two log lines"})
    eval_strategy: str = field(default="no", metadata={"help": "no, steps or epoch"})
    ema_decay: float = field(
        default=0.99, metadata={"help": "of the weights' moving average, which is kept; 0 for none"}
    )
