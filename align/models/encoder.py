"""The audio prompt encoder: what users load, call, save and push."""

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
    """Averages runs of equal length of audio tokens until at most `max_tokens` are left.

    Every row is pooled by its own length, so that what a recording sounds like does not depend
    on how long the others of its batch are.

    Args:
        tokens: (B, S, H).
        mask: (B, S) bool; masked tokens do not count in a mean.
        most: the largest S allowed.

    Returns:
        (B, S', H) and (B, S') with S' <= most; unchanged where S <= most already.
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


WINDOWS_AT_ONCE = 64  # of a batch without a gradient: long recordings have many


class AudioPromptEncoder(PreTrainedModel):
    """Sound in, prompt embeds out: a backbone, and a head for every prompt space.

    The folder it is saved to is whole: configuration, weights, feature extractor, the spaces'
    statistics and unconditional embeds, and the bases' names.
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
        """Loads an encoder from a folder or the hub, feature extractor included."""
        loaded = super().from_pretrained(pretrained_model_name_or_path, *model_args, **kwargs)
        encoder = loaded[0] if isinstance(loaded, tuple) else loaded
        # As it lies in a file, a tensor is not aligned in memory, and some products of matrices
        # are then rounded otherwise than those of the encoder that was saved.
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
        """How this encoder hears recordings."""
        kind = self.config.backbone["model_type"]
        return AudioProcessor(kind, self.feature_extractor, self.config.max_windows)

    def head(self, space: str | None = None) -> Head:
        """The head of a space; without a name, of the default one.

        Raises:
            ValueError: the encoder has no such space.
        """
        return self.heads.for_space(space or self.config.default_space)

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

    def set_retrieval_memory(
        self, retrieval_memory: RetrievalMemory | None, space: str | None = None
    ) -> None:
        """Has a space's answers, in use, follow what is remembered; None for nothing any more.

        Raises:
            ValueError: the encoder has no such space.
        """
        name = space or self.config.default_space
        self.head(name).retrieval_memory = (
            None if retrieval_memory is None else retrieval_memory.to(self.device)
        )
        self.config.retrieval_memory.pop(name, None)
        if retrieval_memory is not None:
            self.config.retrieval_memory[name] = retrieval_memory.config

    def add_lora(self, rank: int) -> None:
        """Adds LoRA to the backbone and records its rank in the configuration.

        Raises:
            ValueError: the rank is not positive, or the backbone has nothing pretrained to adapt.
        """
        lora.add(self.backbone, rank)
        self.config.backbone = self.backbone.config.to_dict()

    def merge_lora(self) -> None:
        """Merges the backbone's LoRA into its weights; an encoder without LoRA stays as it is."""
        if not getattr(self.backbone.config, "lora_rank", 0):
            return
        lora.merge(self.backbone)
        self.config.backbone = self.backbone.config.to_dict()

    def train(self, mode: bool = True) -> AudioPromptEncoder:
        """Sets the mode of what trains; frozen parts do as they do in use."""
        super().train(mode)
        for module in self.modules():
            weights = list(module.parameters())
            if weights and not any(weight.requires_grad for weight in weights):
                module.eval()
        return self

    def get_audio_tokens(
        self, features: torch.Tensor, features_mask: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Audio tokens of whole recordings.

        Args:
            features: (B, W, T, F), as `align.models.processing.pad` makes them.
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
        """Audio tokens of windows (N, T, F); without a gradient a bounded number at a time."""
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
        """Prompt embeds (N, L, D), and pooled ones, of one recording or a list of N.

        The same recording gives the same embeds, bit for bit, whatever else is in the list.

        Raises:
            AudioError: a recording cannot be read or has nothing to hear.
            ValueError: there is no such space, or no recording.
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
        """As `encode`, with the audio tokens that the embeds were made from.

        Returns:
            The embeds, the tokens (N, S, H), and their mask (N, S) bool, true where heard.

        Raises:
            AudioError: a recording cannot be read or has nothing to hear.
            ValueError: there is no such space, or no recording.
        """
        head = self.head(space)
        rows = [self.processor.extract_features(r, sampling_rate) for r in _as_list(audio)]
        if not rows:
            raise ValueError("no recordings to encode")
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
        # One recording at a time: in a batch, another's length would change the rounding.
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
        """The keyword arguments that make a diffusers pipeline draw these recordings.

        Args:
            recordings: one recording or a list of N: paths, bytes, file objects, arrays.
            weights: N; the recordings become one prompt, their mean by weight.
            text: what `PromptSpace.encode` gave, one prompt for all or one for each.
            blend: how the text is blended in: "interpolate", "concatenate" or "add".
            weight: of the text, 0.5 by default; concatenation takes none.
            negative: what guidance leads away from: a recording or one for each, or what
                `PromptSpace.encode` gave; the pipeline's own unconditional embeds by default.
            pipeline: what is to draw: its prompt space, dtype and device are taken, and all is
                checked against it.
            space: the prompt space; else the pipeline's, else the encoder's default one.
            sampling_rate: of recordings given as bare numbers.
            dtype: of the embeds; else the pipeline's, else the encoder's.
            device: of the embeds; else the pipeline's, else the encoder's.

        Returns:
            prompt_embeds and negative_prompt_embeds (N, L, D); with pooled_prompt_embeds and
            negative_pooled_prompt_embeds (N, P) where the pipeline takes them.

        Raises:
            AudioError: a recording cannot be read or has nothing to hear.
            ValueError: there is no such space, or no recording, or what is given does not fit.
        """
        if text is None and (text_weight is not None or blend != "interpolate"):
            raise ValueError("blend and weight are the text's: give text=PromptSpace.encode(...)")
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
        """Saves the whole encoder to a folder: weights, feature extractor, model card."""
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
        """Uploads the encoder with its card to the hub, and a run's figures and samples.

        Checkpoints, captions and the paths of local data stay here.

        Args:
            repo_id: OWNER/NAME, or NAME of one's own.
            run: the folder in which `align.train` left this encoder's figures.
            private: whether a new repository is private; the owner's default if not given.
            token: to log in with; the stored one by default.
            revision: the branch; it is made where it is not there.
            commit_message: of the upload.

        Returns:
            The address of the upload.

        Raises:
            HubError: the hub cannot be reached, or refuses.
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
                f"{error}; a negative in words is given as "
                f"PromptSpace.from_pretrained({base_model!r}).encode(words)"
            ) from error
        raise


def _repeat_to_length(unconditional: PromptEmbeds, length: int) -> PromptEmbeds:
    """The null said again until it is as long as a concatenated prompt."""
    repeated = unconditional
    while repeated.embeds.shape[1] < length:
        repeated = concatenate(repeated, unconditional)
    return PromptEmbeds(repeated.embeds[:, :length], unconditional.pooled, unconditional.padding)


def load_encoder(pretrained_model_name_or_path: str) -> AudioPromptEncoder:
    """The trained encoder of a folder or a hub id.

    Raises:
        ValueError: there is none.
    """
    try:
        encoder: AudioPromptEncoder = AudioPromptEncoder.from_pretrained(
            pretrained_model_name_or_path
        )
    except (OSError, ValueError, KeyError) as error:
        raise encoder_not_found(pretrained_model_name_or_path, error) from error
    return encoder


def encoder_not_found(pretrained_model_name_or_path: str, error: Exception) -> ValueError:
    """What is said where a folder or a hub id holds no encoder."""
    reason = first_line(error)
    return ValueError(
        f"there is no trained encoder {pretrained_model_name_or_path!r}: give a folder that align.train wrote, "
        f"or a hub id that can be reached ({reason})"
    )


AutoModel.register(AudioPromptConfig, AudioPromptEncoder)
