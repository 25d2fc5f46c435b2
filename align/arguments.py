"""The options of an alignment: each field is a flag, a recipe's key, and the default's place."""

from __future__ import annotations

from dataclasses import dataclass, field

from align.names import UNTRAINED
from align.recipes import Gathered


@dataclass
class ModelArguments:
    """What is aligned with what."""

    base: list[str] = field(
        default_factory=list,
        metadata={
            "help": "pipelines whose text spaces are learned, one or several, the first of them "
            "the encoder's default: names, folders or hub ids; mini by default, with --start "
            "those that it was trained for",
            "action": Gathered,
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
    start: str | None = field(
        default=None,
        metadata={"help": "go on from this trained encoder, with its own backbone and adapter"},
    )
    dropout: float = field(
        default=0.0, metadata={"help": "dropout in the backbone's hidden layers while it trains"}
    )
    adapter: str = field(default="resampler", metadata={"help": "kind of adapter"})
    # Sizes that are not given are the adapter's own: their defaults stand in align/adapters.
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
        from align.adapters import check_sizes

        check_sizes(self.adapter, self.adapter_sizes(), "--adapter_")
        if self.max_windows < 1:
            raise ValueError(f"--max_windows is at least 1, not {self.max_windows}")
        if self.audio_tokens not in ("all", "pooled"):
            raise ValueError(f"--audio_tokens is all or pooled, not {self.audio_tokens!r}")
        if self.train_adapter not in ("all", "level_weights"):
            raise ValueError(f"--train_adapter is all or level_weights, not {self.train_adapter!r}")
        if self.train_adapter != "all" and self.start is None:
            raise ValueError("--train_adapter level_weights goes on from a trained one: --start")
        if self.train_backbone != "lora" and self.lora_rank != type(self).lora_rank:
            raise ValueError("--lora_rank is for --train_backbone lora")
        if self.backbone in UNTRAINED and self.train_backbone != "all":
            raise ValueError(f"{self.backbone} has no pretraining: give --train_backbone all")
        if self.start is not None:
            self._check_start()
        self._set_base()

    def _set_base(self) -> None:
        if isinstance(self.base, str):
            self.base = [self.base]
        if not self.base:
            self.base = ["mini"] if self.start is None else _bases_of(self.start)
        if len(set(self.base)) < len(self.base):
            raise ValueError(f"--base names each pipeline once, not {' '.join(self.base)!r}")

    def _check_start(self) -> None:
        own = ("backbone", "audio_tokens", "adapter", "dropout", "max_windows")
        given = [name for name in own if getattr(self, name) != getattr(type(self), name)]
        given += [f"adapter_{name}" for name in self.adapter_sizes()]
        if given:
            raise ValueError(f"--start brings its own {given[0]}: leave --{given[0]} out")

    def adapter_sizes(self) -> dict[str, int | float]:
        """The adapter's sizes that were given."""
        named = {name: value for name, value in vars(self).items() if name.startswith("adapter_")}
        return {k.removeprefix("adapter_"): v for k, v in named.items() if v is not None}


def _bases_of(encoder: str) -> list[str]:
    """The pipelines that a trained encoder was trained for, its default one first.

    Raises:
        ValueError: it is no encoder.
    """
    from align.configuration import AudioPromptConfig
    from align.outcome import no_encoder

    try:
        config = AudioPromptConfig.from_pretrained(encoder)
        spaces = {name: space["base"] for name, space in config.spaces.items()}
        first = spaces.pop(config.default_space)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise no_encoder(encoder, error) from error
    return [first, *spaces.values()]


@dataclass
class DataArguments:
    """What is heard and said."""

    data: str = field(
        default="mini",
        metadata={"help": "a name (or NAME@FOLDER for a copy), a hub id, a table, or its folder"},
    )
    folds: list[int] | None = field(
        default=None, metadata={"help": "train on these folds only; all by default"}
    )
    eval_folds: list[int] | None = field(
        default=None, metadata={"help": "measure on these folds, which are not trained on"}
    )
    eval_data: str | None = field(default=None, metadata={"help": "measure on another data set"})
    recording_column: str | None = field(
        default=None, metadata={"help": "column of recordings: file_name or audio by default"}
    )
    caption_column: str = field(default="caption", metadata={"help": "column of captions"})
    label_column: str = field(
        default="label", metadata={"help": "column of labels: rows of one label say the same"}
    )
    extra_data: str | None = field(
        default=None, metadata={"help": "a second data set, trained on beside the first; none"}
    )
    extra_share: float = field(
        default=0.0,
        metadata={"help": "of every epoch's rows that are drawn from --extra_data; 0: all of it"},
    )
    licences: list[str] | None = field(
        default=None,
        metadata={"help": "keep recordings of these licences only: cc0, cc-by, cc-by-nc, …"},
    )
    licence_column: str | None = field(
        default=None, metadata={"help": "column of licences: licence or license by default"}
    )
    caption_template: str | None = field(
        default=None, metadata={"help": "what is said around labels in place of captions: 'a {}'"}
    )
    captioner: str | None = field(
        default=None, metadata={"help": "BLIP that captions a folder's pictures, once: a hub id"}
    )
    order: str = field(
        default="shuffled",
        metadata={"help": "shuffled, or caption_length: short captions first, every epoch"},
    )
    streaming: bool = field(
        default=False, metadata={"help": "hear recordings as they come, keeping none"}
    )
    stream_buffer: int = field(
        default=256, metadata={"help": "recordings of a streamed hub data set to draw from"}
    )
    cache: bool = field(
        default=True, metadata={"help": "keep features, tokens and targets on disk for later runs"}
    )
    cache_dir: str | None = field(
        default=None, metadata={"help": "where they are kept: ~/.cache/soundprompt by default"}
    )
    workers: int = field(default=2, metadata={"help": "processes that compute features"})

    def __post_init__(self) -> None:
        if self.order not in ("shuffled", "caption_length"):
            raise ValueError(f"--order is shuffled or caption_length, not {self.order!r}")
        if self.caption_template is not None and "{}" not in self.caption_template:
            raise ValueError("--caption_template has {} where the labels go")
        if self.workers < 1:
            raise ValueError(f"--workers is at least 1, not {self.workers}")
        if self.stream_buffer < 1:
            raise ValueError(f"--stream_buffer is at least 1, not {self.stream_buffer}")
        if not self.streaming and self.stream_buffer != type(self).stream_buffer:
            raise ValueError("--stream_buffer is for --streaming true")
        if self.streaming and self.order != "shuffled":
            raise ValueError("a stream cannot be sorted: --order caption_length needs all rows")
        if self.extra_data == "none":
            self.extra_data = None
        if not 0 <= self.extra_share < 1:
            raise ValueError(f"--extra_share is from 0 to below 1, not {self.extra_share}")
        if self.extra_share and self.extra_data is None:
            raise ValueError("--extra_share is of --extra_data, which is none: set it to 0")
        if self.streaming and self.extra_data:
            raise ValueError(
                "--streaming passes through one data set: --extra_data none --extra_share 0"
            )
        if self.eval_folds is None or self.eval_data is not None:
            return
        if self.folds is None or set(self.folds) & set(self.eval_folds):
            raise ValueError("give --folds beside --eval_folds, and no fold in both")
