"""Options of `align.train`: each field is a flag and a recipe key, with its default."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any

from align.config.parser import AccumulateAction
from align.registry import IMAGE_CLASSIFIERS, UNTRAINED_BACKBONES


@dataclass
class ModelArguments:
    """Options of the backbone, the adapter and the base models."""

    base_model: list[str] = field(
        default_factory=list,
        metadata={
            "help": "Diffusers pipelines to align with: short names, folders or Hub ids; the "
            "first is the default prompt space. Defaults to mini, or to those of "
            "--init_from.",
            "action": AccumulateAction,
        },
    )
    backbone: str = field(
        default="mini-clap",
        metadata={
            "help": "Pretrained audio model (CLAP or Wav2Vec2-BERT): short name, folder or Hub id.",
        },
    )
    audio_tokens: str = field(
        default="all",
        metadata={
            "help": "CLAP tokens per window: all, or pooled for the single projected embedding."
        },
    )
    train_backbone: str = field(
        default="none",
        metadata={
            "help": "Backbone layers to train: none, all, lora, or the number of last layers."
        },
    )
    lora_rank: int = field(default=8, metadata={"help": "LoRA rank for --train_backbone lora."})
    init_from: str | None = field(
        default=None,
        metadata={
            "help": "Initialize from this trained encoder (folder or Hub id), including its "
            "backbone and adapter.",
        },
    )
    backbone_dropout: float = field(
        default=0.0, metadata={"help": "Dropout in the backbone's hidden layers during training."}
    )
    adapter: str = field(
        default="resampler",
        metadata={
            "help": "Adapter type: resampler, linear, mlp, conv, multiscale, sonic, "
            "hierarchical or direct.",
        },
    )
    # None is the adapter's own default, see align/models/adapters.
    adapter_width: int | None = field(
        default=None, metadata={"help": "Hidden size of the adapter."}
    )
    adapter_depth: int | None = field(default=None, metadata={"help": "Number of adapter layers."})
    adapter_heads: int | None = field(
        default=None, metadata={"help": "Number of attention heads in the adapter."}
    )
    adapter_head_width: int | None = field(
        default=None, metadata={"help": "Dimension per attention head (sonic adapter)."}
    )
    adapter_tokens: int | None = field(
        default=None,
        metadata={"help": "Number of tokens the mlp or conv adapter produces per clip."},
    )
    adapter_kernel: int | None = field(
        default=None, metadata={"help": "Convolution kernel size (conv and sonic adapters)."}
    )
    adapter_stride: int | None = field(
        default=None, metadata={"help": "Convolution stride (conv adapter)."}
    )
    adapter_scales: int | None = field(
        default=None, metadata={"help": "Number of parallel kernel sizes (multiscale adapter)."}
    )
    adapter_dropout: float | None = field(
        default=None, metadata={"help": "Dropout in the adapter."}
    )
    max_windows: int = field(
        default=120,
        metadata={"help": "Maximum number of audio windows per clip; longer audio is truncated."},
    )
    train_adapter: str = field(
        default="all",
        metadata={
            "help": "Adapter parameters to train: all, or level_weights (hierarchical adapter "
            "only).",
        },
    )

    def __post_init__(self) -> None:
        if self.max_windows < 1:
            raise ValueError(f"--max_windows is at least 1, not {self.max_windows}")
        if self.audio_tokens not in ("all", "pooled"):
            raise ValueError(f"--audio_tokens is all or pooled, not {self.audio_tokens!r}")
        if self.train_adapter not in ("all", "level_weights"):
            raise ValueError(f"--train_adapter is all or level_weights, not {self.train_adapter!r}")
        if self.train_adapter != "all" and self.init_from is None:
            raise ValueError("--train_adapter level_weights needs a trained encoder: --init_from")
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
        """Return the adapter sizes that are set, without the prefix `adapter_`."""
        named = {name: value for name, value in vars(self).items() if name.startswith("adapter_")}
        return {k.removeprefix("adapter_"): v for k, v in named.items() if v is not None}


@dataclass
class CommonDataArguments:
    """Data options that both packages share."""

    dataset: str = field(
        default="mini",
        metadata={
            "help": "Training dataset: short name, NAME@FOLDER, Hub id, table, or folder with "
            "metadata.csv.",
        },
    )
    folds: list[int] | None = field(
        default=None, metadata={"help": "Folds to train on. Defaults to all."}
    )
    eval_folds: list[int] | None = field(
        default=None, metadata={"help": "Folds to evaluate on; excluded from training."}
    )
    eval_dataset: str | None = field(
        default=None, metadata={"help": "Evaluation dataset, if different from --dataset."}
    )
    audio_column: str | None = field(
        default=None, metadata={"help": "Column with the audio. Defaults to file_name or audio."}
    )
    caption_column: str = field(default="caption", metadata={"help": "Column with the captions."})
    label_column: str = field(
        default="label",
        metadata={
            "help": "Column with the labels; rows with the same label are positives of each other.",
        },
    )
    captioner: str | None = field(
        default=None,
        metadata={
            "help": "BLIP model that captions the images of a folder dataset: folder or Hub id."
        },
    )
    cache: bool = field(
        default=True, metadata={"help": "Cache features, audio tokens and caption embeds on disk."}
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "Cache directory. Defaults to ~/.cache/soundprompt."}
    )
    num_workers: int = field(
        default=2, metadata={"help": "Number of feature-extraction processes."}
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
    """Options of the training and evaluation data."""

    extra_dataset: str | None = field(
        default=None,
        metadata={"help": "Second training dataset, mixed with the first; none disables it."},
    )
    extra_dataset_fraction: float = field(
        default=0.0,
        metadata={"help": "Fraction of each epoch sampled from --extra_dataset; 0 uses all of it."},
    )
    licenses: list[str] | None = field(
        default=None,
        metadata={"help": "Keep only clips with these licenses: cc0, cc-by, cc-by-nc, …"},
    )
    license_column: str | None = field(
        default=None, metadata={"help": "Column with the licenses. Defaults to license or licence."}
    )
    caption_template: str | None = field(
        default=None,
        metadata={"help": "Template that turns labels into captions, e.g. 'the sound of {}'."},
    )
    order: str = field(
        default="shuffled",
        metadata={
            "help": "Row order: shuffled, or caption_length to sort every epoch by caption length.",
        },
    )
    streaming: bool = field(
        default=False,
        metadata={
            "help": "Stream the training dataset and extract features on the fly instead of "
            "caching them.",
        },
    )
    shuffle_buffer_size: int = field(
        default=256, metadata={"help": "Shuffle buffer size for streamed Hub datasets."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in ("shuffled", "caption_length"):
            raise ValueError(f"--order is shuffled or caption_length, not {self.order!r}")
        if self.caption_template is not None and "{}" not in self.caption_template:
            raise ValueError("--caption_template needs {} in the place of the labels")
        if self.shuffle_buffer_size < 1:
            raise ValueError(f"--shuffle_buffer_size is at least 1, not {self.shuffle_buffer_size}")
        if not self.streaming and self.shuffle_buffer_size != type(self).shuffle_buffer_size:
            raise ValueError("--shuffle_buffer_size is for --streaming true")
        if self.streaming and self.order != "shuffled":
            raise ValueError(
                "a stream cannot be sorted: leave out --order caption_length or --streaming"
            )
        if self.extra_dataset == "none":
            self.extra_dataset = None
        if not 0 <= self.extra_dataset_fraction < 1:
            raise ValueError(
                f"--extra_dataset_fraction is from 0 to below 1, not {self.extra_dataset_fraction}"
            )
        if self.extra_dataset_fraction and self.extra_dataset is None:
            raise ValueError(
                "--extra_dataset_fraction needs --extra_dataset, which is none: set it to 0"
            )
        if self.streaming and self.extra_dataset:
            raise ValueError(
                "--streaming supports one dataset: set --extra_dataset none "
                "--extra_dataset_fraction 0"
            )


DIRECTIONS = ("both", "audio_to_text", "text_to_audio")
# Loss weights of which at least one must be above 0 for an option to have an effect.
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
    """Options of the loss, a weighted sum of terms."""

    info_nce_weight: float = field(
        default=1.0, metadata={"help": "Weight of the sequence-level InfoNCE loss."}
    )
    mse_weight: float = field(default=1.0, metadata={"help": "Weight of the mean squared error."})
    sigmoid_weight: float = field(default=0.0, metadata={"help": "Weight of the SigLIP loss."})
    margin_weight: float = field(
        default=0.0, metadata={"help": "Weight of the cosine embedding loss."}
    )
    distillation_weight: float = field(
        default=0.0,
        metadata={
            "help": "Weight of the distillation loss on the UNet's cross-attention keys and "
            "values.",
        },
    )
    temperature: float = field(default=0.15, metadata={"help": "InfoNCE temperature."})
    info_nce_direction: str = field(
        default="both",
        metadata={"help": "InfoNCE direction: both, audio_to_text or text_to_audio."},
    )
    sigmoid_temperature: float = field(default=0.1, metadata={"help": "SigLIP temperature."})
    sigmoid_bias: float = field(default=-10.0, metadata={"help": "SigLIP logit bias."})
    learn_temperature: bool = field(
        default=False,
        metadata={
            "help": "Train the temperatures and the SigLIP bias, starting from the given values.",
        },
    )
    margin: float = field(default=0.2, metadata={"help": "Margin of the cosine embedding loss."})
    paraphrase_threshold: float = field(
        default=1.0,
        metadata={
            "help": "Cosine similarity above which two captions are treated as soft positives; "
            "1 disables it.",
        },
    )
    padding_weight: float = field(
        default=1.0,
        metadata={
            "help": "Loss weight of padding positions relative to 1 for caption tokens; must "
            "be above 0.",
        },
    )
    target: str = field(
        default="label_mean",
        metadata={
            "help": "Regression target: label_mean (mean over a label's captions) or caption "
            "(each row's own).",
        },
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
        """Whether any term of the loss compares pairs of rows."""
        return any(getattr(self, name) for name in CONTRASTIVE_WEIGHTS)

    def _check_weights(self) -> None:
        weights = {name: value for name, value in vars(self).items() if name in _WEIGHTS}
        for name, value in weights.items():
            if value < 0:
                raise ValueError(f"--{name} is 0 or more, not {value}")
        if not any(weights.values()):
            raise ValueError("every loss has weight 0: set at least one of them above 0")
        for option, names in REQUIRED_WEIGHTS.items():
            changed = getattr(self, option) != _defaults()[option]
            if changed and not any(weights[name] for name in names):
                needed = " or ".join(f"--{name}" for name in names)
                raise ValueError(f"--{option} has no effect: it needs {needed} above 0")

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
    """Options of the retrieval memory of an encoder or an audio-attention adapter."""

    retrieval_memory: int = field(
        default=256,
        metadata={
            "help": "Store up to N target embeddings and interpolate predictions towards them "
            "at inference. 0 disables it.",
        },
    )
    retrieval_memory_weight: float = field(
        default=0.5,
        metadata={"help": "Interpolation weight of the retrieved embeddings, above 0 and up to 1."},
    )
    retrieval_memory_temperature: float = field(
        default=0.15,
        metadata={
            "help": "Softmax temperature of the retrieval; lower values favor the nearest "
            "embedding.",
        },
    )

    def __post_init__(self) -> None:
        for name in ("retrieval_memory_weight", "retrieval_memory_temperature"):
            if not self.retrieval_memory and getattr(self, name) != getattr(type(self), name):
                raise ValueError(
                    f"--{name} has no effect: --retrieval_memory 0 disables the memory"
                )
        if self.retrieval_memory < 0:
            raise ValueError(
                "--retrieval_memory is a number of embeddings, 0 or more, not "
                f"{self.retrieval_memory}"
            )
        if not 0 < self.retrieval_memory_weight <= 1:
            raise ValueError(
                "--retrieval_memory_weight is above 0 and at most 1, not "
                f"{self.retrieval_memory_weight}: --retrieval_memory 0 disables the memory"
            )
        if self.retrieval_memory_temperature <= 0:
            raise ValueError(
                "--retrieval_memory_temperature is above 0, not "
                f"{self.retrieval_memory_temperature}"
            )


@dataclass
class AugmentArguments:
    """Options of the augmentation of trained backbones; 0 disables each of them."""

    time_shift: float = field(
        default=0.0, metadata={"help": "Maximum circular time shift, as a fraction of the window."}
    )
    pitch_shift: int = field(
        default=0, metadata={"help": "Maximum shift along the mel axis, in bins."}
    )
    gain_db: float = field(default=0.0, metadata={"help": "Maximum gain change in dB."})
    equalize_db: float = field(
        default=0.0, metadata={"help": "Maximum gain of a random equalizer curve in dB."}
    )
    time_masks: int = field(default=0, metadata={"help": "Number of SpecAugment time masks."})
    time_mask_ratio: float = field(
        default=0.15,
        metadata={"help": "Maximum width of a time mask, as a fraction of the window."},
    )
    frequency_masks: int = field(
        default=0, metadata={"help": "Number of SpecAugment frequency masks."}
    )
    frequency_mask_ratio: float = field(
        default=0.15,
        metadata={"help": "Maximum width of a frequency mask, as a fraction of the mel bins."},
    )
    mix_same_label_prob: float = field(
        default=0.0, metadata={"help": "Probability of mixing in a clip with the same label."}
    )
    mix_other_label_prob: float = field(
        default=0.0,
        metadata={"help": "Probability of mixing in a clip with another label as background."},
    )

    def __post_init__(self) -> None:
        for name in ("pitch_shift", "gain_db", "equalize_db", "time_masks", "frequency_masks"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} is 0 or more, not {getattr(self, name)}")
        for name in ("time_shift", "time_mask_ratio", "frequency_mask_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"--{name} is a fraction from 0 to 1, not {getattr(self, name)}")
        for name in ("mix_same_label_prob", "mix_other_label_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"--{name} is a probability from 0 to 1, not {getattr(self, name)}"
                )
        for name in ("time_mask", "frequency_mask"):
            changed = getattr(self, f"{name}_ratio") != getattr(type(self), f"{name}_ratio")
            if changed and not getattr(self, f"{name}s"):
                raise ValueError(f"--{name}_ratio has no effect: it needs --{name}s above 0")

    @property
    def active(self) -> bool:
        """Whether any augmentation is enabled."""
        switches = (
            self.time_shift, self.pitch_shift, self.gain_db, self.equalize_db, self.time_masks,
            self.frequency_masks, self.mix_same_label_prob, self.mix_other_label_prob,
        )  # fmt: skip
        return any(switches)


@dataclass
class EvaluationArguments:
    """Options of the evaluation after training."""

    num_images: int = field(
        default=60,
        metadata={
            "help": "Number of images to generate and classify after training; 0 disables it."
        },
    )
    image_classifier: str = field(
        default="mini",
        metadata={"help": "Image classifier that computes the image accuracy: mini, or none."},
    )
    num_inference_steps: int = field(
        default=20, metadata={"help": "Number of denoising steps per image."}
    )
    guidance_scale: float = field(default=5.0, metadata={"help": "Classifier-free guidance scale."})
    num_sheet_samples: int = field(
        default=10, metadata={"help": "Number of held-out clips in samples.png; 0 disables it."}
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
            raise ValueError(f"--guidance_scale is 0 or more, not {self.guidance_scale}")
        if self.image_classifier != "none" and self.image_classifier not in IMAGE_CLASSIFIERS:
            raise ValueError(
                f"there is no image classifier {self.image_classifier!r}; there are: "
                f"{', '.join(IMAGE_CLASSIFIERS)}, none"
            )


@dataclass
class TrainingOptions:
    """Options of the Trainer with other defaults, and further training options.

    A plain dataclass, so that `--help` does not import transformers. The dataclass with all options
    of the Trainer is in `training_args`.
    """

    output_dir: str | None = field(
        default=None,
        metadata={
            "help": "Output directory of the run. Defaults to a folder in runs named after the "
            "dataset.",
        },
    )
    num_train_epochs: float = field(default=5.0, metadata={"help": "Number of training epochs."})
    max_steps: int = field(
        default=-1,
        metadata={
            "help": "Number of optimizer steps; overrides --num_train_epochs. -1 disables it."
        },
    )
    per_device_train_batch_size: int = field(
        default=50, metadata={"help": "Training batch size per device."}
    )
    per_device_eval_batch_size: int = field(
        default=50, metadata={"help": "Evaluation batch size per device."}
    )
    learning_rate: float = field(default=1e-3, metadata={"help": "Peak learning rate."})
    weight_decay: float = field(default=0.01, metadata={"help": "AdamW weight decay."})
    lr_scheduler_type: str = field(
        default="cosine", metadata={"help": "Learning rate schedule after warmup."}
    )
    warmup_steps: float = field(
        default=0.05, metadata={"help": "Warmup steps, or a fraction of all steps if below 1."}
    )
    max_grad_norm: float = field(
        default=1.0, metadata={"help": "Maximum gradient norm for clipping."}
    )
    logging_steps: float = field(default=20, metadata={"help": "Steps between two log lines."})
    eval_strategy: str = field(
        default="epoch", metadata={"help": "When to evaluate: no, steps or epoch."}
    )
    save_strategy: str = field(
        default="epoch", metadata={"help": "When to save checkpoints: no, steps or epoch."}
    )
    save_total_limit: int | None = field(
        default=2, metadata={"help": "Maximum number of checkpoints to keep."}
    )
    report_to: str | None = field(
        default="none",
        metadata={"help": "Experiment tracker: none, tensorboard, trackio or wandb."},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Must stay false."})
    seed: int = field(default=0, metadata={"help": "Random seed of the run."})
    sample_every_eval: bool = field(
        default=False,
        metadata={"help": "Write a sample sheet at every evaluation, not only after training."},
    )
    ddp_timeout: int = field(
        default=6 * 3600,
        metadata={"help": "Seconds that other processes wait for the main process."},
    )
    resume_from_checkpoint: str | None = field(
        default="true",
        metadata={
            "help": "true resumes the run in --output_dir if there is one, a path resumes that "
            "checkpoint, false starts over.",
        },
    )
    overwrite_output_dir: bool = field(
        default=False,
        metadata={"help": "Delete the checkpoints of an earlier run in --output_dir."},
    )
    verbose: bool = field(
        default=False, metadata={"help": "Print all metrics at the end, not only the main ones."}
    )


@dataclass
class AlignTrainingOptions(TrainingOptions):
    """Training options of `align.train`."""

    gradient_cache: int = field(
        default=0,
        metadata={
            "help": "Rows per GradCache chunk, for contrastive batches larger than memory; 0 "
            "disables it.",
        },
    )
