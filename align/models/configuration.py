"""Configuration of an audio prompt encoder: the contents of its config.json."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PretrainedConfig


class AudioPromptConfig(PretrainedConfig):
    """Configuration of an `AudioPromptEncoder`.

    Args:
        backbone: Configuration of the audio model, as a dict with its `model_type`.
        adapter: `adapter_type` and options of every head's adapter.
        spaces: Fields of `SpaceShape` for each prompt space, by name.
        default_space: Space used when none is given. Defaults to the first of `spaces`; stored
            explicitly because a saved configuration is sorted by name.
        max_windows: Maximum number of audio windows per clip.
        max_tokens: Maximum number of audio tokens passed to the adapter; more are averaged in runs
            of equal length.
        retrieval_memory: Size, weight and temperature of the `RetrievalMemory` of each space that
            has one, by name.
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
        """Returns the backbone's configuration as an instance of its own class."""
        fields = {k: v for k, v in self.backbone.items() if k != "model_type"}
        return AutoConfig.for_model(self.backbone["model_type"], **fields)


AutoConfig.register(AudioPromptConfig.model_type, AudioPromptConfig)
