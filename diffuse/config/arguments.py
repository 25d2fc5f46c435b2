"""Options of `diffuse.train`: every field is a command-line flag and a recipe key."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from align.config.arguments import CommonDataArguments, TrainingOptions
from align.config.arguments import EvaluationArguments as CommonEvaluationArguments
from diffuse.config.stages import parse_stages

MINI_ENCODER = "runs/align/mini"  # trained with `python -m align.train` if missing


@dataclass
class ModelArguments:
    """Options of the models."""

    base_model: str = field(
        default="mini",
        metadata={
            "help": "Diffusers pipeline whose UNet is conditioned on audio: short name, "
            "folder or Hub id."
        },
    )
    encoder: str = field(
        default=MINI_ENCODER,
        metadata={
            "help": "Audio encoder aligned with the base model by align.train: folder or Hub id."
        },
    )
    init_from: str | None = field(
        default=None,
        metadata={"help": "Initialize from this trained audio adapter instead of a new one."},
    )
    attention_type: str = field(
        default="shared",
        metadata={
            "help": "Audio attention: shared (reuses the block's query and output "
            "projections) or sonic (as in SonicDiffusion)."
        },
    )
    blocks: list[str] = field(
        default_factory=lambda: ["down", "mid", "up"],
        metadata={"help": "UNet blocks with audio attention: down, mid and up."},
    )
    routing: str = field(
        default="all",
        metadata={
            "help": "Levels per UNet block: all, hierarchy (foreground down, ambience up) or "
            "reverse."
        },
    )
    projector_width: int = field(
        default=256,
        metadata={"help": "Hidden size of the level projector."},
    )
    projector_depth: int = field(
        default=2,
        metadata={"help": "Number of layers in the level projector."},
    )
    projector_heads: int = field(
        default=4,
        metadata={"help": "Number of attention heads in the level projector."},
    )
    lora_rank: int = field(
        default=0,
        metadata={"help": "LoRA rank on the UNet; 0 disables LoRA."},
    )
    lora_targets: list[str] = field(
        default_factory=lambda: ["to_q", "to_k", "to_v", "to_out.0"],
        metadata={"help": "UNet modules that LoRA is applied to."},
    )


@dataclass
class DataArguments(CommonDataArguments):
    """Options of the audio-image pairs."""

    video_dir: str | None = field(
        default=None,
        metadata={"help": "Folder of the videos named in a VGGSound list."},
    )
    image_column: str = field(
        default="image",
        metadata={"help": "Column with the images."},
    )
    resolution: int = field(
        default=0,
        metadata={"help": "Image resolution in pixels; 0 uses the base model's own."},
    )
    num_crops: int = field(
        default=1,
        metadata={"help": "Number of crops per image: the center crop, then random crops."},
    )
    random_flip: bool = field(
        default=False,
        metadata={"help": "Add horizontally flipped crops."},
    )
    class_balanced: bool = field(
        default=False,
        metadata={"help": "Sample all classes equally often, repeating rare ones."},
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_crops < 1:
            raise ValueError(f"--num_crops must be at least 1, not {self.num_crops}")


@dataclass
class LossArguments:
    """Options of the stages and losses."""

    stages: list[str] = field(
        default_factory=lambda: [
            '{"stage": "projector", "max_steps": 600, "learning_rate": 1e-3}',
            "attention_only",
        ],
        metadata={
            "help": "Training stages in order: names, or JSON mappings with stage, trainable, "
            "loss, max_steps and learning_rate (docs/reference/recipes.md#stages)."
        },
    )
    min_snr_gamma: float = field(
        default=0.0,
        metadata={"help": "Gamma of the min-SNR loss weighting (usually 5); 0 disables it."},
    )
    noise_offset: float = field(
        default=0.0,
        metadata={"help": "Scale of the noise offset."},
    )
    caption_dropout: float = field(
        default=0.1,
        metadata={"help": "Probability of dropping the caption."},
    )
    audio_dropout: float = field(
        default=0.1,
        metadata={"help": "Probability of dropping the audio."},
    )
    joint_dropout: float = field(
        default=0.05,
        metadata={"help": "Probability of dropping caption and audio together."},
    )
    background_prob: float = field(
        default=0.5,
        metadata={
            "help": "Probability, for pairs with a background, of training on the foreground "
            "caption with background audio only."
        },
    )
    class_weighted: bool = field(
        default=False,
        metadata={"help": "Weight the loss inversely to class frequency."},
    )
    level_loss_weight: float = field(
        default=0.1,
        metadata={
            "help": "Weight of the error between level tokens and the tokens of their phrases."
        },
    )
    orthogonality_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the orthogonality loss between levels."},
    )
    entropy_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the entropy bonus on the level weights."},
    )
    norm_weight: float = field(
        default=0.0,
        metadata={"help": "Weight of the token norm loss."},
    )
    norm_target: float = field(
        default=60.0,
        metadata={"help": "Target norm of the level tokens."},
    )
    temperature_start: float = field(
        default=1.0,
        metadata={"help": "Softmax temperature of the level weights at the first step."},
    )
    temperature_end: float = field(
        default=1.0,
        metadata={"help": "Softmax temperature of the level weights at the last step."},
    )
    contrastive_temperature: float = field(
        default=0.15,
        metadata={"help": "InfoNCE temperature of the alignment loss."},
    )

    def __post_init__(self) -> None:
        parse_stages(self.stages)
        for name, value in vars(self).items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"--{name} must be a finite number, not {value}")
        dropouts = (self.caption_dropout, self.audio_dropout, self.joint_dropout)
        if min(dropouts) < 0 or sum(dropouts) > 1:
            raise ValueError(
                "--caption_dropout, --audio_dropout and --joint_dropout are probabilities, "
                f"together at most 1, not {', '.join(map(str, dropouts))}"
            )
        if not 0 <= self.background_prob <= 1:
            raise ValueError(f"--background_prob must be from 0 to 1, not {self.background_prob}")
        if self.min_snr_gamma < 0 or self.noise_offset < 0:
            raise ValueError("--min_snr_gamma and --noise_offset cannot be negative")
        if min(self.temperature_start, self.temperature_end) <= 0:
            raise ValueError("--temperature_start and --temperature_end must be above 0")


@dataclass
class EvaluationArguments(CommonEvaluationArguments):
    """Options of the evaluation after training."""

    num_images: int = field(
        default=100,
        metadata={
            "help": "Number of images to generate and classify after training; 0 disables it."
        },
    )


@dataclass
class DiffuseTrainingOptions(TrainingOptions):
    """Training options of an audio adapter."""

    num_train_epochs: float = field(
        default=3.5,
        metadata={"help": "Number of training epochs of a stage without max_steps."},
    )
    per_device_train_batch_size: int = field(
        default=32,
        metadata={"help": "Training batch size per device."},
    )
    per_device_eval_batch_size: int = field(
        default=32,
        metadata={"help": "Evaluation batch size per device."},
    )
    learning_rate: float = field(
        default=3e-3,
        metadata={"help": "Peak learning rate of a stage without its own."},
    )
    gate_lr_multiplier: float = field(
        default=10.0,
        metadata={"help": "Learning rate multiplier of the gates and level weights."},
    )
    bf16: bool = field(
        default=True,
        metadata={"help": "Run the UNet in bfloat16."},
    )
    logging_steps: float = field(
        default=50,
        metadata={"help": "Steps between two log lines."},
    )
    eval_strategy: str = field(
        default="no",
        metadata={"help": "When to evaluate: no, steps or epoch."},
    )
    ema_decay: float = field(
        default=0.99,
        metadata={"help": "EMA decay of the trained weights; the average is saved. 0 disables it."},
    )
