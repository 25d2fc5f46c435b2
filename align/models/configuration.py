"""The configuration of an audio prompt encoder: what its folder's config.json holds."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig


class AudioPromptConfig(PretrainedConfig):
    """Configuration of an `AudioPromptEncoder`.

    Args:
        backbone: the audio model's own configuration, as a dict with its `model_type`.
        adapter: kind and sizes of every head's adapter.
        spaces: by name, the prompt spaces it answers in, as `SpaceShape` has them.
        default_space: the one it answers in when none is named; the first of `spaces` if not
            given. It is kept because a saved configuration is sorted by name.
        max_windows: windows heard of one recording.
        max_tokens: audio tokens that reach the adapter; more are averaged in equal runs.
        recall: by name, the spaces whose heads remember embeds of captions: how many rows, and
            the share and temperature of `align.models.memory.RetrievalMemory`.
    """

    model_type = "audio_prompt"

    def __init__(
        self,
        backbone: dict[str, Any] | None = None,
        adapter: dict[str, Any] | None = None,
        spaces: dict[str, dict[str, Any]] | None = None,
        default_space: str | None = None,
        max_windows: int = 120,
        max_tokens: int = 512,
        retrieval_memory: dict[str, dict[str, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        self.backbone = backbone or {}
        self.adapter = adapter or {}
        self.spaces = spaces or {}
        self.default_space = default_space or next(iter(self.spaces), None)
        self.max_windows = max_windows
        self.max_tokens = max_tokens
        self.retrieval_memory = retrieval_memory or {}
        super().__init__(**kwargs)

    def backbone_config(self) -> PretrainedConfig:
        """The backbone's configuration as its own class."""
        fields = {k: v for k, v in self.backbone.items() if k != "model_type"}
        return AutoConfig.for_model(self.backbone["model_type"], **fields)


AutoConfig.register(AudioPromptConfig.model_type, AudioPromptConfig)
