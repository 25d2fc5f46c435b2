"""The audio prompt encoder: load, encode, save and push."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoFeatureExtractor, AutoModel, PreTrainedModel

from align.audio.files import AudioError
from align.hub.model_card import write_card
from align.hub.upload import upload
from align.models.backbones import lora
from align.models.backbones.base import Backbone
from align.models.backbones.loading import build_backbone, load_backbone
from align.models.configuration import AudioPromptConfig
from align.models.heads import AudioPromptOutput, Head, Heads
from align.models.memory import RetrievalMemory
from align.models.processing import AudioProcessor, pad
from align.models.weights import apply_umask
from align.prompts.blending import blend as blend_prompts
from align.prompts.blending import concatenate, match_prompts, weighted_mean
from align.prompts.embeds import PromptEmbeds, SpaceShape, stack_prompts
from align.prompts.pipelines import PipelineSpec, check_prompt
from align.registry import first_line


def pool_tokens(
    tokens: torch.Tensor, mask: torch.Tensor, max_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Averages runs of equal length of audio tokens down to at most `max_tokens`.

    Every row is pooled by its own length, so that a clip's tokens do not depend on the length of
    the other clips in its batch.

    Args:
        tokens: Audio tokens (B, S, H).
        mask: (B, S) bool; masked tokens are excluded from the means.
        max_tokens: Largest S allowed.

    Returns:
        Tokens (B, S', H) and mask (B, S') with S' <= max_tokens; unchanged if S <= max_tokens.
    """
    if tokens.shape[1] <= max_tokens:
        return tokens, mask
    places = torch.arange(1, tokens.shape[1] + 1, device=mask.device)
    lengths = (mask * places).amax(1).clamp(min=1).tolist()
    rows = [
        _pool_row(row[:length], row_mask[:length], max_tokens)
        for row, row_mask, length in zip(tokens, mask, lengths, strict=True)
    ]
    pooled, row_mask = zip(*rows, strict=True)
    pad_sequence = nn.utils.rnn.pad_sequence
    return pad_sequence(list(pooled), batch_first=True), pad_sequence(
        list(row_mask), batch_first=True
    )


def _pool_row(
    tokens: torch.Tensor, mask: torch.Tensor, max_tokens: int
) -> tuple[torch.Tensor, torch.Tensor]:
    run = -(-len(tokens) // max_tokens)
    if run == 1:
        return tokens, mask
    short = -len(tokens) % run
    tokens = nn.functional.pad(tokens, (0, 0, 0, short)).unflatten(0, (-1, run))
    weight = nn.functional.pad(mask, (0, short)).unflatten(0, (-1, run))
    mean = (tokens * weight[..., None]).sum(1) / weight.sum(1, keepdim=True).clamp(min=1)
    return mean, weight.any(1)


WINDOWS_AT_ONCE = 64  # processed at once if gradients are disabled


class AudioPromptEncoder(PreTrainedModel):
    """Maps audio to prompt embeds: a backbone, and a head for every prompt space.

    The saved folder is self-contained: configuration, weights, feature extractor, statistics and
    unconditional embeds of the spaces, and the names of the base models.
    """

    config_class = AudioPromptConfig
    base_model_prefix = "audio_prompt"
    main_input_name = "features"

    def __init__(self, config: AudioPromptConfig) -> None:
        super().__init__(config)
        self.backbone: Backbone = build_backbone(config.backbone_config())
        shapes = {name: SpaceShape(**shape) for name, shape in config.spaces.items()}
        self.heads = Heads(
            self.backbone.token_width, shapes, config.adapter, config.retrieval_memory
        )
        self.feature_extractor: Any = None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Keeps each module's own initialization."""

    @classmethod
    def from_backbone(
        cls,
        backbone: str,
        adapter: dict[str, Any],
        spaces: dict[str, SpaceShape],
        max_windows: int = 120,
        **options: Any,
    ) -> AudioPromptEncoder:
        """Builds an encoder from a pretrained backbone, with untrained heads.

        Args:
            backbone: Short name, folder or Hub id.
            adapter: `adapter_type` and options, see `AudioPromptConfig`.
            spaces: Prompt spaces by name.
            max_windows: Maximum number of audio windows per clip.
            **options: Overrides of the backbone's configuration.
        """
        model, feature_extractor = load_backbone(backbone, **options)
        config = AudioPromptConfig(
            backbone=model.config.to_dict(),
            adapter=adapter,
            spaces={name: asdict(space) for name, space in spaces.items()},
            max_windows=max_windows,
        )
        encoder = cls(config)
        encoder.backbone.load_state_dict(model.state_dict())
        encoder.feature_extractor = feature_extractor
        return encoder

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], *model_args: Any, **kwargs: Any
    ) -> Any:
        """Loads an encoder and its feature extractor from a folder or the Hub."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        encoder = loaded[0] if isinstance(loaded, tuple) else loaded
        # Tensors mapped from a file may be unaligned in memory, and some matrix products are then
        # rounded differently from those of the saved encoder.
        for weight in encoder.state_dict(keep_vars=True).values():
            weight.data = weight.data.clone()
        names = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
        shared = {name: kwargs[name] for name in names if name in kwargs}
        encoder.feature_extractor = AutoFeatureExtractor.from_pretrained(
            pretrained_model_name_or_path, **shared
        )
        return loaded

    @property
    def processor(self) -> AudioProcessor:
        """The audio processor of this encoder."""
        kind = self.config.backbone["model_type"]
        return AudioProcessor(kind, self.feature_extractor, self.config.max_windows)

    def head(self, space: str | None = None) -> Head:
        """Returns the head of a space, by default of the default space.

        Raises:
            ValueError: The encoder has no such space.
        """
        return self.heads.for_space(space or self.config.default_space)

    def add_space(self, name: str, shape: SpaceShape) -> Head:
        """Adds an untrained head for another prompt space; existing heads are unchanged.

        Args:
            name: Name of the space.
            shape: Shape of the space; the adapter's options are those of the other heads.

        Raises:
            ValueError: The encoder has this space already.
        """
        if name in self.heads.names:
            raise ValueError(
                f"this encoder has the prompt space {name!r} already: give another base model"
            )
        head = Head(self.backbone.token_width, shape, self.config.adapter)
        self.heads.add(name, head.to(self.device))
        self.config.spaces[name] = asdict(shape)
        return head

    def set_retrieval_memory(
        self, retrieval_memory: RetrievalMemory | None, space: str | None = None
    ) -> None:
        """Sets the retrieval memory of a space; None removes it.

        Args:
            retrieval_memory: Memory to interpolate predictions with at inference.
            space: Name of the space. Defaults to the default space.

        Raises:
            ValueError: The encoder has no such space.
        """
        name = space or self.config.default_space
        self.head(name).retrieval_memory = (
            None if retrieval_memory is None else retrieval_memory.to(self.device)
        )
        self.config.retrieval_memory.pop(name, None)
        if retrieval_memory is not None:
            self.config.retrieval_memory[name] = retrieval_memory.config

    def add_lora(self, rank: int) -> None:
        """Adds LoRA to the backbone and stores its rank in the configuration.

        Raises:
            ValueError: The rank is not positive, or the backbone is not pretrained.
        """
        lora.add(self.backbone, rank)
        self.config.backbone = self.backbone.config.to_dict()

    def merge_lora(self) -> None:
        """Merges the backbone's LoRA into its weights; has no effect without LoRA."""
        if not getattr(self.backbone.config, "lora_rank", 0):
            return
        lora.merge(self.backbone)
        self.config.backbone = self.backbone.config.to_dict()

    def train(self, mode: bool = True) -> AudioPromptEncoder:
        """Sets the training mode of trainable modules; fully frozen modules remain in eval mode."""
        super().train(mode)
        for module in self.modules():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()
        return self

    def get_audio_tokens(
        self, features: torch.Tensor, features_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes the audio tokens of whole clips.

        Args:
            features: Features (B, W, T, F), see `align.models.processing.pad`.
            features_mask: (B, W, T) bool, false for padding.

        Returns:
            Tokens (B, S, H) of all windows in order, and their mask (B, S) bool, where S is at most
            the configuration's max_tokens.
        """
        tokens, mask = self._window_tokens(features, features_mask)
        return pool_tokens(tokens, mask, self.config.max_tokens)

    def _window_tokens(
        self, features: torch.Tensor, features_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        present = features_mask.any(2)
        found, window_mask = self._backbone_tokens(features[present], features_mask[present])
        batch, windows = present.shape
        tokens = found.new_zeros(batch, windows, *found.shape[1:])
        mask = window_mask.new_zeros(batch, windows, window_mask.shape[1])
        tokens[present], mask[present] = found, window_mask
        return tokens.flatten(1, 2), mask.flatten(1, 2)

    def _backbone_tokens(
        self, windows: torch.Tensor, mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens of windows (N, T, F), in chunks if gradients are disabled."""
        if torch.is_grad_enabled() or len(windows) <= WINDOWS_AT_ONCE:
            return self.backbone(windows, mask)
        blocks = zip(windows.split(WINDOWS_AT_ONCE), mask.split(WINDOWS_AT_ONCE), strict=True)
        tokens, window_mask = zip(*(self.backbone(*block) for block in blocks), strict=True)
        return torch.cat(tokens), torch.cat(window_mask)

    def forward(
        self,
        features: torch.Tensor | None = None,
        features_mask: torch.Tensor | None = None,
        tokens: torch.Tensor | None = None,
        tokens_mask: torch.Tensor | None = None,
        space: str | Sequence[str | None] | None = None,
    ) -> Any:
        """Predicts standardized prompt embeds from features or audio tokens.

        Args:
            features: Features (B, W, T, F), with features_mask.
            features_mask: (B, W, T) bool, false for padding.
            tokens: Audio tokens (B, S, H) of `get_audio_tokens`, instead of features.
            tokens_mask: (B, S) bool, false for padding.
            space: Prompt space, or a sequence of them. Defaults to the default space.

        Returns:
            An `AudioPromptOutput`, or a list of them for a sequence of spaces, which runs the
            backbone only once.

        Raises:
            ValueError: Neither features nor tokens are given with their mask.
        """
        if tokens is None or tokens_mask is None:
            if features is None or features_mask is None:
                raise ValueError("give features and features_mask, or tokens and tokens_mask")
            tokens, tokens_mask = self.get_audio_tokens(features, features_mask)
        names = [space] if space is None or isinstance(space, str) else space
        found = [AudioPromptOutput(*self.head(name)(tokens, tokens_mask)) for name in names]
        return found[0] if names is not space else found

    @torch.no_grad()
    def encode(
        self,
        audio: Any,
        *,
        space: str | None = None,
        sampling_rate: int | None = None,
        batch_size: int = 8,
    ) -> PromptEmbeds:
        """Encodes one clip or a list of N clips to prompt embeds (N, L, D), and pooled embeds.

        A clip's embeds do not depend on the other clips in the list: results are bitwise identical.

        Args:
            audio: One clip or a list: paths, bytes, file objects or arrays, see `align.audio.read`.
            space: Prompt space. Defaults to the default space.
            sampling_rate: Sampling rate of clips given as arrays.
            batch_size: Number of windows processed at once.

        Raises:
            AudioError: A clip cannot be read or is silent.
            ValueError: The space does not exist, or the list is empty.
        """
        return self.encode_with_tokens(
            audio, space=space, sampling_rate=sampling_rate, batch_size=batch_size
        )[0]

    @torch.no_grad()
    def encode_with_tokens(
        self,
        audio: Any,
        *,
        space: str | None = None,
        sampling_rate: int | None = None,
        batch_size: int = 8,
    ) -> tuple[PromptEmbeds, torch.Tensor, torch.Tensor]:
        """Encodes clips like `encode` and also returns the audio tokens.

        Args:
            audio: See `encode`.
            space: See `encode`.
            sampling_rate: See `encode`.
            batch_size: See `encode`.

        Returns:
            The embeds, the tokens (N, S, H), and their mask (N, S) bool, false for padding.

        Raises:
            AudioError: A clip cannot be read or is silent.
            ValueError: The space does not exist, or the list is empty.
        """
        head = self.head(space)
        rows = [self.processor.extract_features(r, sampling_rate) for r in _as_list(audio)]
        if not rows:
            raise ValueError("no audio to encode: give at least one clip")
        mode = self.training
        self.eval()
        try:
            parts = [self._encode_clip(row, head, batch_size) for row in rows]
        finally:
            self.train(mode)
        embeds, tokens, masks = zip(*parts, strict=True)
        pad_sequence = nn.utils.rnn.pad_sequence
        return (
            stack_prompts(list(embeds)),
            pad_sequence([row[0] for row in tokens], batch_first=True),
            pad_sequence([row[0] for row in masks], batch_first=True),
        )

    def _encode_clip(
        self, row: list[Any], head: Head, batch_size: int
    ) -> tuple[PromptEmbeds, torch.Tensor, torch.Tensor]:
        # One clip at a time: in a batch, the lengths of the others would change the rounding.
        found = []
        for start in range(0, len(row), batch_size):
            batch = pad([row[start : start + batch_size]])
            features = batch["features"].to(self.device, self.dtype)
            found.append(self._window_tokens(features, batch["features_mask"].to(self.device)))
        tokens, mask = (torch.cat(column, 1) for column in zip(*found, strict=True))
        tokens, mask = pool_tokens(tokens, mask, self.config.max_tokens)
        return head.to_prompt_embeds(*head(tokens, mask)), tokens, mask

    def encode_prompt(
        self,
        audio: Any,
        *,
        audio_weights: Sequence[float] | None = None,
        text: PromptEmbeds | None = None,
        blend: str = "interpolate",
        text_weight: float | None = None,
        negative: Any = None,
        pipeline: Any = None,
        space: str | None = None,
        sampling_rate: int | None = None,
        torch_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> dict[str, torch.Tensor]:
        """Encodes audio to the keyword arguments of a diffusers pipeline.

        Args:
            audio: One clip or a list of N clips: paths, bytes, file objects or arrays.
            audio_weights: N weights; the clips become one prompt, their weighted mean.
            text: Output of `PromptSpace.encode` to blend in, one prompt for all or one per clip.
            blend: How to blend in the text: "interpolate", "concatenate" or "add".
            text_weight: Weight of the text. Defaults to 0.5; not used by "concatenate".
            negative: Negative prompt: audio (one clip or one per clip) or the output of
                `PromptSpace.encode`. Defaults to the pipeline's unconditional embeds.
            pipeline: Pipeline to check the arguments against; also sets the default space, dtype
                and device.
            space: Prompt space. Defaults to the pipeline's, else the encoder's default space.
            sampling_rate: Sampling rate of clips given as arrays.
            torch_dtype: Data type of the embeds. Defaults to the pipeline's, else the encoder's.
            device: Device of the embeds. Defaults to the pipeline's, else the encoder's.

        Returns:
            prompt_embeds and negative_prompt_embeds (N, L, D), and pooled_prompt_embeds and
            negative_pooled_prompt_embeds (N, P) if the pipeline uses them.

        Raises:
            AudioError: A clip cannot be read or is silent.
            ValueError: The space does not exist, there are no clips, or arguments do not match.
        """
        if text is None and (text_weight is not None or blend != "interpolate"):
            raise ValueError(
                "blend and text_weight require text: give text=PromptSpace.encode(...)"
            )
        spec = None if pipeline is None else PipelineSpec.from_pipeline(pipeline)
        if spec is not None and negative is not None:
            spec.check_negative()
        if spec is not None and space is None:
            shapes = {name: self.head(name).space for name in self.heads.names}
            space = spec.select_space(shapes, self.config.default_space)
        head = self.head(space)
        audio_prompts = self.encode(audio, space=space, sampling_rate=sampling_rate)
        if audio_weights is not None:
            audio_prompts = weighted_mean(audio_prompts, audio_weights)
        unconditional = head.unconditional(len(audio_prompts))
        if negative is not None:
            given = _encode_negative(self, negative, head.space.base_model, space, sampling_rate)
            unconditional = match_prompts(given, audio_prompts, "negative")
        if text is not None:
            audio_prompts = blend_prompts(
                audio_prompts, text, blend, text_weight, head.center(len(audio_prompts))
            )
        if audio_prompts.embeds.shape[1] != unconditional.embeds.shape[1]:
            unconditional = _repeat_to_length(unconditional, audio_prompts.embeds.shape[1])
        torch_dtype = torch_dtype or (spec.dtype if spec else self.dtype)
        where = device or (spec.device if spec else self.device)
        found = {
            k: v.to(where, torch_dtype)
            for k, v in audio_prompts.pipeline_kwargs(unconditional).items()
        }
        return found if pipeline is None else check_prompt(pipeline, found)

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        *args: Any,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Saves the encoder to a folder: weights, feature extractor and model card."""
        named = {k: kwargs.pop(k) for k in ("repo_id", "private", "revision") if k in kwargs}
        super().save_pretrained(save_directory, *args, **kwargs)
        if kwargs.get("is_main_process", True):
            apply_umask(Path(save_directory))
            self.feature_extractor.save_pretrained(save_directory)
            write_card(Path(save_directory))
        if push_to_hub:
            repo_id = named.pop("repo_id", None) or Path(save_directory).resolve().name
            self.push_to_hub(repo_id, run_dir=save_directory, token=kwargs.get("token"), **named)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        run_dir: str | os.PathLike[str] | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        commit_message: str = "Upload encoder",
    ) -> str:
        """Uploads the encoder with its model card, and a run's metrics and samples, to the Hub.

        Checkpoints, captions and local paths are not uploaded.

        Args:
            repo_id: OWNER/NAME, or NAME in your own namespace.
            run_dir: Output directory of `align.train` with this encoder's metrics.
            private: Whether to create a private repository. Defaults to the owner's setting.
            token: Access token. Defaults to the stored one.
            revision: Branch to upload to; created if it does not exist.
            commit_message: Message of the commit.

        Returns:
            URL of the upload.

        Raises:
            HubError: The Hub cannot be reached or refuses the upload.
        """
        return upload(
            self,
            repo_id,
            run_dir=run_dir,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
        )


def _as_list(audio: Any) -> list[Any]:
    return audio if isinstance(audio, list) else [audio]


def _encode_negative(
    encoder: AudioPromptEncoder,
    negative: Any,
    base_model: str,
    space: str | None,
    sampling_rate: int | None,
) -> PromptEmbeds:
    if isinstance(negative, PromptEmbeds):
        return negative
    try:
        return encoder.encode(negative, space=space, sampling_rate=sampling_rate)
    except AudioError as error:
        given = negative if isinstance(negative, (list, tuple)) else [negative]
        if any(isinstance(one, str) and not os.path.exists(one) for one in given):
            raise AudioError(
                f"{str(error).rstrip('.')}; to use a text as negative prompt, give "
                f"PromptSpace.from_pretrained({base_model!r}).encode(text)"
            ) from error
        raise


def _repeat_to_length(unconditional: PromptEmbeds, length: int) -> PromptEmbeds:
    """Repeats unconditional embeds to the length of a concatenated prompt."""
    repeated = unconditional
    while repeated.embeds.shape[1] < length:
        repeated = concatenate(repeated, unconditional)
    return PromptEmbeds(repeated.embeds[:, :length], unconditional.pooled, unconditional.padding)


def load_encoder(pretrained_model_name_or_path: str) -> AudioPromptEncoder:
    """Loads a trained encoder from a folder or a Hub id.

    Raises:
        ValueError: There is no encoder.
    """
    try:
        encoder: AudioPromptEncoder = AudioPromptEncoder.from_pretrained(
            pretrained_model_name_or_path
        )
    except (OSError, ValueError, KeyError) as error:
        raise encoder_not_found(pretrained_model_name_or_path, error) from error
    return encoder


def encoder_not_found(pretrained_model_name_or_path: str, error: Exception) -> ValueError:
    """Returns the error for a folder or a Hub id without an encoder."""
    reason = first_line(error)
    return ValueError(
        f"there is no trained encoder {pretrained_model_name_or_path!r}: give the output directory "
        f"of align.train or a Hub id that can be reached ({reason})"
    )


AutoModel.register(AudioPromptConfig, AudioPromptEncoder)
