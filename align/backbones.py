"""CLAP and Wav2Vec2-BERT behind one protocol: windows of sound -> features -> audio tokens.

Features are kept as (T, F) a window for both, so that caching, padding and augmentation know
nothing of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    ClapAudioConfig,
    ClapAudioModel,
    ClapFeatureExtractor,
    ClapModel,
    PretrainedConfig,
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from align.names import BACKBONES, lookup


class ClapBackbone(nn.Module):
    """CLAP's HTSAT audio tower: every cell of its last feature map is an audio token.

    A window is CLAP's own length; a shorter one is repeated to fill it, as in CLAP's training,
    so all tokens of a window were heard.
    """

    model_type: ClassVar[str] = "clap_audio_model"
    # A decibel scale: features are 10 log10 of power.
    log_scale: ClassVar[float] = 10 / np.log(10)
    normalised: ClassVar[bool] = False

    def __init__(self, config: ClapAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.model = ClapAudioModel(config)

    @staticmethod
    def window_s(extractor: ClapFeatureExtractor) -> float:
        """The length of a window in seconds."""
        return float(extractor.nb_max_samples / extractor.sampling_rate)

    @staticmethod
    def features(
        extractor: ClapFeatureExtractor, windows: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Log-mel features (T, F) float32 of windows (n,) at the extractor's rate."""
        # The extractor's default, "fusion", is for fused checkpoints; windows are never longer
        # than the model's, so nothing is cut at random.
        mel = extractor(
            list(windows),
            sampling_rate=extractor.sampling_rate,
            truncation="rand_trunc",
            padding="repeatpad",
            return_tensors="np",
        )["input_features"]
        return [np.asarray(m[0], np.float32) for m in mel]

    @property
    def token_width(self) -> int:
        """H."""
        return int(self.config.hidden_size)

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens (N, S, H) and their mask (N, S) of features (N, T, F)."""
        hidden = self.model(input_features=features[:, None]).last_hidden_state
        tokens = hidden.flatten(2).transpose(1, 2)
        return tokens, mask.any(1, keepdim=True).expand(-1, tokens.shape[1])


class W2vBertBackbone(nn.Module):
    """Wav2Vec2-BERT: every output frame that was heard is an audio token.

    Windows are 10 seconds; padding is masked in training and in use alike. Only where the
    checkpoint has an adapter does a short window's last token hear a little of the padding after
    it: transformers does not mask the adapter's strided convolutions.
    """

    model_type: ClassVar[str] = "wav2vec2-bert"
    log_scale: ClassVar[float] = 1.0
    normalised: ClassVar[bool] = True  # by the extractor, bin by bin
    # One step of 16-bit sound. Digital silence would lie 20 nats under the faintest noise and
    # swamp the extractor's normalisation; Kaldi, whose features these are, dithers as well.
    DITHER: ClassVar[float] = 2.0**-15

    def __init__(self, config: Wav2Vec2BertConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Wav2Vec2BertModel(config)

    @staticmethod
    def window_s(extractor: SeamlessM4TFeatureExtractor) -> float:
        """The length of a window in seconds."""
        return 10.0

    @classmethod
    def features(
        cls, extractor: SeamlessM4TFeatureExtractor, windows: Sequence[np.ndarray]
    ) -> list[np.ndarray]:
        """Log-mel features (T, F) float32 of windows (n,) at the extractor's rate."""
        rows = []
        # The extractor needs a frame (25 ms) and two stacks of frames to normalise over.
        least = int(0.1 * extractor.sampling_rate)
        for window in windows:
            filled = np.pad(window, (0, max(0, least - len(window))))
            noise = np.random.default_rng(0).standard_normal(len(filled)).astype(np.float32)
            mel = extractor(
                filled + cls.DITHER * noise,
                sampling_rate=extractor.sampling_rate,
                return_tensors="np",
            )["input_features"]
            rows.append(np.asarray(mel[0], np.float32))
        return rows

    @property
    def token_width(self) -> int:
        """H."""
        own = self.config
        return int((own.add_adapter and own.output_hidden_size) or own.hidden_size)

    def forward(
        self, features: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens (N, S, H) and their mask (N, S) of features (N, T, F)."""
        tokens = self.model(input_features=features, attention_mask=mask.long()).last_hidden_state
        if not self.config.add_adapter:
            return tokens, mask
        # The adapter's convolutions shorten what was heard as they shorten the sequence.
        heard, kernel = mask.sum(1), self.config.adapter_kernel_size
        for _ in range(self.config.num_adapter_layers):
            heard = (heard + 2 * (kernel // 2) - kernel) // self.config.adapter_stride + 1
        return tokens, torch.arange(tokens.shape[1], device=mask.device) < heard[:, None]


Backbone = ClapBackbone | W2vBertBackbone
KINDS: dict[str, type[ClapBackbone] | type[W2vBertBackbone]] = {
    kind.model_type: kind for kind in (ClapBackbone, W2vBertBackbone)
}


def kind_of(model_type: str) -> type[ClapBackbone] | type[W2vBertBackbone]:
    """The backbone class of a transformers `model_type`.

    Raises:
        ValueError: the model is neither CLAP nor Wav2Vec2-BERT.
    """
    if model_type not in KINDS:
        raise ValueError(
            f"a backbone of type {model_type!r} is not known; there are: {', '.join(KINDS)}"
        )
    return KINDS[model_type]


def _audio_config(config: PretrainedConfig) -> PretrainedConfig:
    """The audio side of a whole CLAP's configuration; others as they are."""
    return config.audio_config if config.model_type == "clap" else config


def new_backbone(config: PretrainedConfig) -> Backbone:
    """A backbone of a configuration with fresh weights."""
    # SpecAugment is the project's own option and falls on both backbones alike; dropping whole
    # layers would make tokens differ from run to run in distributed training.
    if config.model_type == W2vBertBackbone.model_type:
        config.apply_spec_augment = False
        config.layerdrop = 0.0
    kind: Any = kind_of(config.model_type)
    return kind(config)


def load_backbone(name: str, **options: Any) -> tuple[Backbone, Any]:
    """A pretrained backbone and its feature extractor.

    Args:
        name: a short name, a folder or a hub id of a CLAP or Wav2Vec2-BERT checkpoint.
        options: changes to the model's configuration.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it is of another kind.
    """
    where = lookup(BACKBONES, name)
    config = AutoConfig.from_pretrained(where)
    audio = _audio_config(config)
    kind_of(audio.model_type)  # before anything else is looked for
    if getattr(audio, "enable_fusion", False):
        raise ValueError(f"{name} is a fused CLAP: give one that is not, as larger_clap_general")
    extractor = AutoFeatureExtractor.from_pretrained(where)
    for key, value in options.items():
        setattr(audio, key, value)
    backbone = new_backbone(audio)
    if config.model_type == "clap":
        whole = ClapModel.from_pretrained(where, dtype=torch.float32)
        backbone.model.load_state_dict(whole.audio_model.state_dict())
    else:
        kind = type(backbone.model)
        backbone.model = kind.from_pretrained(where, config=audio, dtype=torch.float32)
    return backbone, extractor


def freeze(backbone: Backbone, trained: str) -> None:
    """Sets which of a backbone's weights train.

    Args:
        backbone: changed in place.
        trained: "none", "all", or a number N: the last N of its layers.

    Raises:
        ValueError: anything else, or more layers than there are.
    """
    if trained not in ("none", "all") and not trained.isdigit():
        raise ValueError(f"a backbone trains 'none', 'all' or a number of layers, not {trained!r}")
    backbone.requires_grad_(trained == "all")
    if isinstance(backbone, W2vBertBackbone) and hasattr(backbone.model, "masked_spec_embed"):
        # Only transformers' own SpecAugment reads it, which is off: it would never get a gradient.
        backbone.model.masked_spec_embed.requires_grad_(False)
    if trained in ("none", "all"):
        return
    layers = _layers(backbone)
    count = int(trained)
    if not 0 < count <= len(layers):
        raise ValueError(f"the backbone has {len(layers)} layers; {count} cannot be trained")
    for layer in layers[-count:]:
        layer.requires_grad_(True)


def _layers(backbone: Backbone) -> nn.ModuleList:
    if isinstance(backbone, ClapBackbone):
        return backbone.model.audio_encoder.layers
    return backbone.model.encoder.layers
