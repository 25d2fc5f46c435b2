"""The audio prompt encoder: what users load, call, save and push."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import nn
from transformers import AutoFeatureExtractor, AutoModel, PreTrainedModel

from align.backbones import Backbone, load_backbone, new_backbone
from align.configuration import AudioPromptConfig
from align.heads import AudioPromptOutput, Head, Heads, SpaceShape
from align.listening import Ear, pad
from align.pooling import pool_tokens
from align.prompting import Prompting
from align.prompts import Prompts, stacked
from align.publishing import Publishing
from align.recall import Recall


class AudioPromptEncoder(Prompting, Publishing, PreTrainedModel):
    """Sound in, prompt embeds out: a backbone, and a head for every prompt space.

    The folder it is saved to is whole: configuration, weights, feature extractor, the spaces'
    statistics and unconditional embeds, and the bases' names.
    """

    config_class = AudioPromptConfig
    base_model_prefix = "audio_prompt"
    main_input_name = "features"

    def __init__(self, config: AudioPromptConfig) -> None:
        super().__init__(config)
        self.backbone: Backbone = new_backbone(config.backbone_config())
        shapes = {name: SpaceShape(**shape) for name, shape in config.spaces.items()}
        self.heads = Heads(self.backbone.token_width, shapes, config.adapter, config.recall)
        self.extractor: Any = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Every part has initialised itself."""

    @classmethod
    def from_backbone(
        cls,
        backbone: str,
        adapter: dict[str, Any],
        spaces: dict[str, SpaceShape],
        max_windows: int = 120,
        **options: Any,
    ) -> AudioPromptEncoder:
        """A new encoder around a pretrained backbone, its heads untrained.

        Args:
            backbone: a short name, a folder or a hub id.
            adapter: kind and sizes, as `AudioPromptConfig` takes them.
            spaces: the prompt spaces by name.
            max_windows: windows heard of one recording.
            options: changes to the backbone's configuration.
        """
        model, extractor = load_backbone(backbone, **options)
        config = AudioPromptConfig(
            backbone=model.config.to_dict(),
            adapter=adapter,
            spaces={name: asdict(space) for name, space in spaces.items()},
            max_windows=max_windows,
        )
        encoder = cls(config)
        encoder.backbone.load_state_dict(model.state_dict())
        encoder.extractor = extractor
        return encoder

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, where: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """Loads an encoder from a folder or the hub, feature extractor included."""
        loaded = super().from_pretrained(where, *model_args, **kwargs)
        encoder = loaded[0] if isinstance(loaded, tuple) else loaded
        # As it lies in a file, a tensor is not aligned in memory, and some products of matrices
        # are then rounded otherwise than those of the encoder that was saved.
        for weight in encoder.state_dict(keep_vars=True).values():
            weight.data = weight.data.clone()
        names = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
        shared = {name: kwargs[name] for name in names if name in kwargs}
        encoder.extractor = AutoFeatureExtractor.from_pretrained(where, **shared)
        return loaded

    @property
    def ear(self) -> Ear:
        """How this encoder hears recordings."""
        kind = self.config.backbone["model_type"]
        return Ear(kind, self.extractor, self.config.max_windows)

    def head(self, space: str | None = None) -> Head:
        """The head of a space; without a name, of the default one.

        Raises:
            ValueError: the encoder has no such space.
        """
        return self.heads.of(space or self.config.default_space)

    def add_space(self, name: str, shape: SpaceShape) -> Head:
        """Adds a head for a further prompt space, untrained; all else stays as it is.

        Args:
            name: what the space is asked for by.
            shape: its sizes; the adapter's are those of the other heads.

        Raises:
            ValueError: the encoder has this space.
        """
        if name in self.heads.names:
            raise ValueError(f"this encoder answers in {name!r} already: give another base")
        head = Head(self.backbone.token_width, shape, self.config.adapter)
        self.heads.add(name, head.to(self.device))
        self.config.spaces[name] = asdict(shape)
        return head

    def remember(self, recall: Recall | None, space: str | None = None) -> None:
        """Has a space's answers, in use, follow what is remembered; None for nothing any more.

        Raises:
            ValueError: the encoder has no such space.
        """
        name = space or self.config.default_space
        self.head(name).recall = None if recall is None else recall.to(self.device)
        self.config.recall.pop(name, None)
        if recall is not None:
            self.config.recall[name] = recall.sizes

    def train(self, mode: bool = True) -> AudioPromptEncoder:
        """Sets the mode of what trains; frozen parts do as they do in use."""
        super().train(mode)
        for module in self.modules():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()
        return self

    def tokens(
        self, features: torch.Tensor, features_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens of whole recordings.

        Args:
            features: (B, W, T, F), as `align.listening.pad` makes them.
            features_mask: (B, W, T) bool.

        Returns:
            (B, S, H) tokens of all windows in order, and (B, S) bool, where S is at most the
            configuration's max_tokens.
        """
        tokens, mask = self._window_tokens(features, features_mask)
        return pool_tokens(tokens, mask, self.config.max_tokens)

    def _window_tokens(
        self, features: torch.Tensor, features_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        there = features_mask.any(2)
        found, heard = self.backbone(features[there], features_mask[there])
        batch, windows = there.shape
        tokens = found.new_zeros(batch, windows, *found.shape[1:])
        mask = heard.new_zeros(batch, windows, heard.shape[1])
        tokens[there], mask[there] = found, heard
        return tokens.flatten(1, 2), mask.flatten(1, 2)

    def forward(
        self,
        features: torch.Tensor | None = None,
        features_mask: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
        tokens_mask: torch.Tensor | None = None,
        space: str | Sequence[str | None] | None = None,
    ) -> Any:
        """Standardised prompt embeds of recordings, from their features or their tokens.

        Args:
            features: (B, W, T, F), with features_mask (B, W, T).
            features_mask: true where features were heard.
            tokens: (B, S, H) made by `tokens` before, in place of features.
            tokens_mask: (B, S), true where tokens were heard.
            space: the prompt space; the default one if not given.

        Returns:
            An `AudioPromptOutput`; for a sequence of spaces, a list of them, heard only once.

        Raises:
            ValueError: neither features nor tokens are given with their mask.
        """
        if tokens is None or tokens_mask is None:
            if features is None or features_mask is None:
                raise ValueError("give features and features_mask, or tokens and tokens_mask")
            tokens, tokens_mask = self.tokens(features, features_mask)
        names = [space] if space is None or isinstance(space, str) else space
        found = [AudioPromptOutput(*self.head(name)(tokens, tokens_mask)) for name in names]
        return found[0] if names is not space else found

    @torch.no_grad()
    def encode(
        self,
        recordings: Any,
        *,
        space: str | None = None,
        sampling_rate: int | None = None,
        batch_size: int = 8,
    ) -> Prompts:
        """Prompt embeds (N, L, D), and pooled ones, of one recording or a list of N.

        The same recording gives the same embeds, bit for bit, whatever else is in the list.

        Raises:
            AudioError: a recording cannot be read or has nothing to hear.
            ValueError: there is no such space, or no recording.
        """
        head = self.head(space)
        rows = [self.ear.features(r, sampling_rate) for r in _as_list(recordings)]
        if not rows:
            raise ValueError("no recordings to encode")
        mode = self.training
        self.eval()
        try:
            parts = [self._encode_one(row, head, batch_size) for row in rows]
        finally:
            self.train(mode)
        return stacked(parts)

    def _encode_one(self, row: list[Any], head: Head, batch_size: int) -> Prompts:
        # One recording at a time: in a batch, another's length would change the rounding.
        found = []
        for start in range(0, len(row), batch_size):
            batch = pad([row[start : start + batch_size]])
            features = batch["features"].to(self.device, self.dtype)
            found.append(self._window_tokens(features, batch["features_mask"].to(self.device)))
        tokens, mask = (torch.cat(column, 1) for column in zip(*found, strict=True))
        return head.prompts(*head(*pool_tokens(tokens, mask, self.config.max_tokens)))


def _as_list(recordings: Any) -> list[Any]:
    return recordings if isinstance(recordings, list) else [recordings]


AutoModel.register(AudioPromptConfig, AudioPromptEncoder)
