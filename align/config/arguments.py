"""The options of an alignment: each field is a flag, a recipe's key, and the default's place."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from align.config.parser import AccumulateAction
from align.registry import IMAGE_CLASSIFIERS, UNTRAINED_BACKBONES


@dataclass
class ModelArguments:
    """What is aligned with what."""

    base_model: list[str] = field(
        default_factory=list,
        metadata={
            "help": "pipelines whose text spaces are learned, one or several, the first of them "
            "the encoder's default: names, folders or hub ids; mini by default, with --init_from "
            "those that it was trained for",
            "action": AccumulateAction,
        },
    )
    backbone: str = field(
        default="mini-clap",
        metadata={"help": "CLAP or Wav2Vec2-BERT checkpoint: a name, a folder or a hub id"},
    )
    audio_tokens: str = field(
        default="all",
        metadata={"help": "of a window of CLAP: all, or pooled: its one embedding"},
    )
    train_backbone: str = field(
        default="none", metadata={"help": "none, all, lora, or a number: its last layers"}
    )
    lora_rank: int = field(default=8, metadata={"help": "of --train_backbone lora"})
    init_from: str | None = field(
        default=None,
        metadata={"help": "go on from this trained encoder, with its own backbone and adapter"},
    )
    backbone_dropout: float = field(
        default=0.0, metadata={"help": "dropout in the backbone's hidden layers while it trains"}
    )
    adapter: str = field(default="resampler", metadata={"help": "kind of adapter"})
    # Sizes that are not given are the adapter's own: their defaults stand in align/models/adapters.
    adapter_width: int | None = field(default=None, metadata={"help": "the adapter's own width"})
    adapter_depth: int | None = field(default=None, metadata={"help": "the adapter's layers"})
    adapter_heads: int | None = field(
        default=None, metadata={"help": "the adapter's attention heads"}
    )
    adapter_head_width: int | None = field(
        default=None, metadata={"help": "width of each head of the sonic adapter"}
    )
    adapter_tokens: int | None = field(
        default=None, metadata={"help": "tokens that the mlp or conv adapter makes of a recording"}
    )
    adapter_kernel: int | None = field(
        default=None, metadata={"help": "kernel of the conv or sonic adapter's convolutions"}
    )
    adapter_stride: int | None = field(
        default=None, metadata={"help": "stride of the conv adapter's convolutions"}
    )
    adapter_scales: int | None = field(
        default=None, metadata={"help": "kernels side by side in the multiscale adapter"}
    )
    adapter_dropout: float | None = field(default=None, metadata={"help": "dropout in the adapter"})
    max_windows: int = field(
        default=120, metadata={"help": "windows heard of one recording; the rest is left out"}
    )
    train_adapter: str = field(
        default="all",
        metadata={"help": "all, or level_weights: nothing of a hierarchical one but these"},
    )

    def __post_init__(self) -> None:
        if self.max_windows < 1:
            raise ValueError(f"--max_windows is at least 1, not {self.max_windows}")
        if self.audio_tokens not in ("all", "pooled"):
            raise ValueError(f"--audio_tokens is all or pooled, not {self.audio_tokens!r}")
        if self.train_adapter not in ("all", "level_weights"):
            raise ValueError(f"--train_adapter is all or level_weights, not {self.train_adapter!r}")
        if self.train_adapter != "all" and self.init_from is None:
            raise ValueError(
                "--train_adapter level_weights goes on from a trained one: --init_from"
            )
        if self.train_backbone != "lora" and self.lora_rank != type(self).lora_rank:
            raise ValueError("--lora_rank is for --train_backbone lora")
        if self.backbone in UNTRAINED_BACKBONES and self.train_backbone != "all":
            raise ValueError(f"{self.backbone} has no pretraining: give --train_backbone all")
        if self.init_from is not None:
            self._check_init_from()
        self._resolve_base_model()

    def _resolve_base_model(self) -> None:
        if isinstance(self.base_model, str):
            self.base_model = [self.base_model]
        if not self.base_model and self.init_from is None:
            self.base_model = ["mini"]
        if len(set(self.base_model)) < len(self.base_model):
            raise ValueError(
                f"--base_model names each pipeline once, not {' '.join(self.base_model)!r}"
            )

    def _check_init_from(self) -> None:
        own = ("backbone", "audio_tokens", "adapter", "backbone_dropout", "max_windows")
        given = [name for name in own if getattr(self, name) != getattr(type(self), name)]
        given += [f"adapter_{name}" for name in self.adapter_kwargs()]
        if given:
            raise ValueError(f"--init_from brings its own {given[0]}: leave --{given[0]} out")

    def adapter_kwargs(self) -> dict[str, int | float]:
        """The adapter's sizes that were given."""
        named = {name: value for name, value in vars(self).items() if name.startswith("adapter_")}
        return {k.removeprefix("adapter_"): v for k, v in named.items() if v is not None}


@dataclass
class CommonDataArguments:
    """Data options that both packages share."""

    dataset: str = field(
        default="mini",
        metadata={"help": "a name (or NAME@FOLDER for a copy), a hub id, a table, or its folder"},
    )
    folds: list[int] | None = field(
        default=None, metadata={"help": "train on these folds only; all by default"}
    )
    eval_folds: list[int] | None = field(
        default=None, metadata={"help": "measure on these folds, which are not trained on"}
    )
    eval_dataset: str | None = field(default=None, metadata={"help": "measure on another data set"})
    audio_column: str | None = field(
        default=None, metadata={"help": "column of recordings: file_name or audio by default"}
    )
    caption_column: str = field(default="caption", metadata={"help": "column of captions"})
    label_column: str = field(
        default="label", metadata={"help": "column of labels: rows of one label say the same"}
    )
    captioner: str | None = field(
        default=None, metadata={"help": "BLIP that captions a folder's pictures, once: a hub id"}
    )
    cache: bool = field(
        default=True,
        metadata={"help": "keep what is computed from the data on disk"},
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "where it is kept: ~/.cache/soundprompt by default"}
    )
    num_workers: int = field(
        default=2, metadata={"help": "processes that read and prepare the data"}
    )

    def __post_init__(self) -> None:
        if self.num_workers < 1:
            raise ValueError(f"--num_workers is at least 1, not {self.num_workers}")
        if self.eval_folds is None or self.eval_dataset is not None:
            return
        if self.folds is None or set(self.folds) & set(self.eval_folds):
            raise ValueError("give --folds beside --eval_folds, and no fold in both")


@dataclass
class DataArguments(CommonDataArguments):
    """What is heard and said."""

    extra_dataset: str | None = field(
        default=None, metadata={"help": "a second data set, trained on beside the first; none"}
    )
    extra_dataset_fraction: float = field(
        default=0.0,
        metadata={
            "help": "of every epoch's rows that are drawn from --extra_dataset; 0: all of it"
        },
    )
    licenses: list[str] | None = field(
        default=None,
        metadata={"help": "keep recordings of these licences only: cc0, cc-by, cc-by-nc, …"},
    )
    license_column: str | None = field(
        default=None, metadata={"help": "column of licences: licence or license by default"}
    )
    caption_template: str | None = field(
        default=None, metadata={"help": "what is said around labels in place of captions: 'a {}'"}
    )
    order: str = field(
        default="shuffled",
        metadata={"help": "shuffled, or caption_length: short captions first, every epoch"},
    )
    streaming: bool = field(
        default=False, metadata={"help": "hear recordings as they come, keeping none"}
    )
    shuffle_buffer_size: int = field(
        default=256, metadata={"help": "recordings of a streamed hub data set to draw from"}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ("shuffled", "caption_length"):
            raise ValueError(f"--order is shuffled or caption_length, not {self.order!r}")
        if self.caption_template is not None and "{}" not in self.caption_template:
            raise ValueError("--caption_template has {} where the labels go")
        if self.shuffle_buffer_size < 1:
            raise ValueError(f"--shuffle_buffer_size is at least 1, not {self.shuffle_buffer_size}")
        if not self.streaming and self.shuffle_buffer_size != type(self).shuffle_buffer_size:
            raise ValueError("--shuffle_buffer_size is for --streaming true")
        if self.streaming and self.order != "shuffled":
            raise ValueError("a stream cannot be sorted: --order caption_length needs all rows")
        if self.extra_dataset == "none":
            self.extra_dataset = None
        if not 0 <= self.extra_dataset_fraction < 1:
            raise ValueError(
                f"--extra_dataset_fraction is from 0 to below 1, not {self.extra_dataset_fraction}"
            )
        if self.extra_dataset_fraction and self.extra_dataset is None:
            raise ValueError(
                "--extra_dataset_fraction is of --extra_dataset, which is none: set it to 0"
            )
        if self.streaming and self.extra_dataset:
            raise ValueError(
                "--streaming passes through one data set: --extra_dataset none --extra_dataset_fraction 0"
            )


DIRECTIONS = ("both", "audio_to_text", "text_to_audio")
# What an option acts on: one of these weights must not be 0, or the option does nothing.
CONTRASTIVE_WEIGHTS = ("info_nce_weight", "sigmoid_weight", "margin_weight")
REQUIRED_WEIGHTS = {
    "temperature": ("info_nce_weight",),
    "info_nce_direction": ("info_nce_weight",),
    "sigmoid_temperature": ("sigmoid_weight",),
    "sigmoid_bias": ("sigmoid_weight",),
    "learn_temperature": ("info_nce_weight", "sigmoid_weight"),
    "margin": ("margin_weight",),
    "paraphrase_threshold": CONTRASTIVE_WEIGHTS,
    "padding_weight": (*CONTRASTIVE_WEIGHTS, "mse_weight"),
}


@dataclass
class LossArguments:
    """What the alignment minimises: a weighted sum."""

    info_nce_weight: float = field(default=1.0, metadata={"help": "sequence InfoNCE"})
    mse_weight: float = field(default=1.0, metadata={"help": "mean squared error"})
    sigmoid_weight: float = field(default=0.0, metadata={"help": "SigLIP's loss, by position"})
    margin_weight: float = field(default=0.0, metadata={"help": "cosine embedding loss"})
    distillation_weight: float = field(
        default=0.0, metadata={"help": "keys and values in the base's UNet, as the text's"}
    )
    temperature: float = field(default=0.15, metadata={"help": "of the InfoNCE"})
    info_nce_direction: str = field(
        default="both", metadata={"help": "both, audio_to_text (as audio2img) or text_to_audio"}
    )
    sigmoid_temperature: float = field(default=0.1, metadata={"help": "of the sigmoid loss"})
    sigmoid_bias: float = field(default=-10.0, metadata={"help": "of the sigmoid loss"})
    learn_temperature: bool = field(
        default=False, metadata={"help": "train temperatures and the sigmoid's bias from there on"}
    )
    margin: float = field(default=0.2, metadata={"help": "cosine that unrelated pairs may have"})
    paraphrase_threshold: float = field(
        default=1.0,
        metadata={"help": "captions whose embeds' cosine exceeds it are partly positives; 1: none"},
    )
    padding_weight: float = field(
        default=1.0,
        metadata={"help": "of a position after the caption's end, beside 1 for a word's; above 0"},
    )
    target: str = field(
        default="label_mean",
        metadata={"help": "label_mean (over a label's captions) or caption (each row's own)"},
    )

    def __post_init__(self) -> None:
        if self.target not in ("label_mean", "caption"):
            raise ValueError(f"--target is label_mean or caption, not {self.target!r}")
        if self.info_nce_direction not in DIRECTIONS:
            ways = ", ".join(DIRECTIONS)
            raise ValueError(f"--info_nce_direction is one of {ways}: {self.info_nce_direction!r}")
        self._check_weights()
        self._check_ranges()

    @property
    def is_contrastive(self) -> bool:
        """Whether any term compares pairs of rows."""
        return any(getattr(self, name) for name in CONTRASTIVE_WEIGHTS)

    def _check_weights(self) -> None:
        weights = {name: value for name, value in vars(self).items() if name in _WEIGHTS}
        for name, value in weights.items():
            if value < 0:
                raise ValueError(f"--{name} is 0 or more, not {value}")
        if not any(weights.values()):
            raise ValueError("every loss has weight 0: nothing would be learned")
        for option, names in REQUIRED_WEIGHTS.items():
            changed = getattr(self, option) != _defaults()[option]
            if changed and not any(weights[name] for name in names):
                needed = " or ".join(f"--{name}" for name in names)
                raise ValueError(f"--{option} does nothing here: it needs {needed} above 0")

    def _check_ranges(self) -> None:
        for name in ("temperature", "sigmoid_temperature", "padding_weight"):
            if getattr(self, name) <= 0:
                hint = " (padding is part of the prompt)" if name == "padding_weight" else ""
                raise ValueError(f"--{name} must be above 0, not {getattr(self, name)}{hint}")
        if not 0 <= self.paraphrase_threshold <= 1:
            given = self.paraphrase_threshold
            raise ValueError(f"--paraphrase_threshold is a cosine from 0 to 1, not {given}")
        if not -1 <= self.margin < 1:
            raise ValueError(f"--margin is a cosine, -1 to below 1, not {self.margin}")


_WEIGHTS = (*CONTRASTIVE_WEIGHTS, "mse_weight", "distillation_weight")


def _defaults() -> dict[str, Any]:
    return {option.name: option.default for option in fields(LossArguments)}


@dataclass
class MemoryArguments:
    """What an encoder, or a sound adapter, remembers."""

    retrieval_memory: int = field(
        default=256,
        metadata={
            "help": "labels, captions or phrases whose embeds are remembered, if there are no more "
            "of them, to draw answers towards in use; 0 for none"
        },
    )
    retrieval_memory_weight: float = field(
        default=0.5, metadata={"help": "of what is remembered in an answer, above 0 to 1"}
    )
    retrieval_memory_temperature: float = field(
        default=0.15, metadata={"help": "the colder, the more the nearest alone is followed"}
    )

    def __post_init__(self) -> None:
        for name in ("retrieval_memory_weight", "retrieval_memory_temperature"):
            if not self.retrieval_memory and getattr(self, name) != getattr(type(self), name):
                raise ValueError(
                    f"--{name} does nothing here: --retrieval_memory 0 remembers nothing"
                )
        if self.retrieval_memory < 0:
            raise ValueError(
                f"--retrieval_memory is a number of labels, 0 for none, not {self.retrieval_memory}"
            )
        if not 0 < self.retrieval_memory_weight <= 1:
            raise ValueError(
                f"--retrieval_memory_weight is above 0 and at most 1, not {self.retrieval_memory_weight}: "
                "--retrieval_memory 0 remembers nothing"
            )
        if self.retrieval_memory_temperature <= 0:
            raise ValueError(
                f"--retrieval_memory_temperature is above 0, not {self.retrieval_memory_temperature}"
            )


@dataclass
class AugmentArguments:
    """Augmentation while the backbone trains; zero switches an option off."""

    time_shift: float = field(
        default=0.0, metadata={"help": "largest rotation in time, as a share of the window"}
    )
    pitch_shift: int = field(
        default=0, metadata={"help": "largest shift along the mel bins, up or down"}
    )
    gain_db: float = field(default=0.0, metadata={"help": "largest change of level, in decibels"})
    equalize_db: float = field(
        default=0.0, metadata={"help": "largest change of a smooth random equaliser, in decibels"}
    )
    time_masks: int = field(default=0, metadata={"help": "SpecAugment: masks in time"})
    time_mask_ratio: float = field(
        default=0.15, metadata={"help": "SpecAugment: longest time mask, as a share"}
    )
    frequency_masks: int = field(default=0, metadata={"help": "SpecAugment: masks in frequency"})
    frequency_mask_ratio: float = field(
        default=0.15, metadata={"help": "SpecAugment: widest frequency mask, as a share"}
    )
    mix_same_label_prob: float = field(
        default=0.0, metadata={"help": "probability of mixing in a recording of the same label"}
    )
    mix_other_label_prob: float = field(
        default=0.0,
        metadata={"help": "probability of another label's recording, softly, in the background"},
    )

    def __post_init__(self) -> None:
        for name in ("pitch_shift", "gain_db", "equalize_db", "time_masks", "frequency_masks"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} is 0 or more, not {getattr(self, name)}")
        for name in ("time_shift", "time_mask_ratio", "frequency_mask_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} is a share from 0 to 1, not {getattr(self, name)}")
        for name in ("mix_same_label_prob", "mix_other_label_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} is a probability, 0 to 1, not {getattr(self, name)}")
        for name in ("time_mask", "frequency_mask"):
            changed = getattr(self, f"{name}_ratio") != getattr(type(self), f"{name}_ratio")
            if changed and not getattr(self, f"{name}s"):
                raise ValueError(f"--{name}_ratio does nothing here: it needs --{name}s above 0")

    @property
    def active(self) -> bool:
        """Whether any option changes anything."""
        switches = (
            self.time_shift, self.pitch_shift, self.gain_db, self.equalize_db, self.time_masks,
            self.frequency_masks, self.mix_same_label_prob, self.mix_other_label_prob,
        )  # fmt: skip
        return any(switches)


@dataclass
class EvaluationArguments:
    """What is drawn and judged."""

    num_images: int = field(
        default=60, metadata={"help": "pictures drawn and judged at the end; 0 for none"}
    )
    image_classifier: str = field(
        default="mini",
        metadata={"help": "who judges pictures: a name, or none"},
    )
    num_inference_steps: int = field(default=20, metadata={"help": "denoising steps a picture"})
    guidance_scale: float = field(default=5.0, metadata={"help": "classifier-free guidance"})
    num_sheet_samples: int = field(
        default=10, metadata={"help": "unseen sounds drawn into samples.png; 0 for none"}
    )

    def __post_init__(self) -> None:
        for name, minimum in (
            ("num_images", 0),
            ("num_sheet_samples", 0),
            ("num_inference_steps", 1),
        ):
            if getattr(self, name) < minimum:
                raise ValueError(f"--{name} is at least {minimum}, not {getattr(self, name)}")
        if not (math.isfinite(self.guidance_scale) and self.guidance_scale >= 0):
            raise ValueError(f"--guidance_scale is a number from 0 on, not {self.guidance_scale}")
        if self.image_classifier != "none" and self.image_classifier not in IMAGE_CLASSIFIERS:
            raise ValueError(
                f"there is no judge {self.image_classifier!r}; there are: {', '.join(IMAGE_CLASSIFIERS)}, none"
            )


@dataclass
class TrainingOptions:
    """Options of the Trainer whose defaults differ here, and the project's own beside them.

    A plain dataclass, which `--help` reads without importing transformers. The dataclass with all
    of the Trainer's options is in `training_args`.
    """

    output_dir: str | None = field(
        default=None,
        metadata={"help": "where results go; by default a folder below runs, named after the data"},
    )
    num_train_epochs: float = field(default=5.0, metadata={"help": "passes over the data"})
    max_steps: int = field(default=-1, metadata={"help": "optimizer steps; -1 for whole epochs"})
    per_device_train_batch_size: int = field(default=50, metadata={"help": "rows a step"})
    per_device_eval_batch_size: int = field(default=50, metadata={"help": "rows a step"})
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
    resume_from_checkpoint: str | None = field(
        default="true",
        metadata={
            "help": "true continues the run in --output_dir, if there is one; a checkpoint's path "
            "continues that one; false starts over"
        },
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "delete the checkpoints of an earlier run in --output_dir"},
    )


@dataclass
class AlignTrainingOptions(TrainingOptions):
    """Training options of an alignment."""

    gradient_cache: int = field(
        default=0,
        metadata={"help": "rows encoded at once, for batches that memory does not hold; 0: all"},
    )
