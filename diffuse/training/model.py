"""A UNet and its audio adapter as one module for the Trainer."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from diffuse.models.adapter import SoundAdapter
from diffuse.models.attention_processor import CROSS_ATTENTION_KWARG
from diffuse.models.levels import level_slice
from diffuse.models.lora import lora_parameters


class UNetWithAudio(nn.Module):
    """A UNet with an attached audio adapter.

    Args:
        unet: UNet with the adapter attached.
        adapter: The adapter.
        name: Name that the adapter is attached by.
    """

    def __init__(self, unet: Any, adapter: SoundAdapter, name: str = "adapter") -> None:
        super().__init__()
        self.unet, self.adapter, self.name = unet, adapter, name

    def forward(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        embeds: torch.Tensor,
        noisy_latents: torch.Tensor | None = None,
        timesteps: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        keep_audio: torch.Tensor | None = None,
        background_only: torch.Tensor | None = None,
        replace_text: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Compute level tokens and, if latents are given, the prediction of the UNet.

        Args:
            tokens: Audio tokens (B, S, H).
            mask: Boolean mask (B, S), true for valid tokens.
            embeds: Prompt embeds (B, L, D) of the audio from the aligned encoder.
            noisy_latents: Noisy latents (B, C, H, W); None skips the UNet.
            timesteps: Timesteps (B,).
            prompt_embeds: Text embeds (B, L, D).
            pooled_prompt_embeds: Pooled text embeds (B, P), for base models that use them.
            keep_audio: Boolean mask (B,), false for rows without audio.
            background_only: Boolean mask (B,), true for rows whose foreground has no audio.
            replace_text: Pass the level tokens in place of the text, without audio attention; rows
                without audio keep the same number of text tokens.

        Returns:
            Level tokens (B, J, D), and the prediction (B, C, H, W) or None.
        """
        # A projector in training needs its own predictions, without the retrieval memory.
        trainable = any(
            weight.requires_grad for weight in self.adapter.parameter_groups["projector"]
        )
        levels = (self.adapter.projector if trainable else self.adapter.project)(
            tokens, mask, embeds
        )
        if noisy_latents is None or prompt_embeds is None:
            return levels, None
        dtype = self.unet.dtype
        kwargs: dict[str, Any] = {}
        states = prompt_embeds.to(dtype)
        if replace_text:
            states = _replace_text(levels, prompt_embeds, keep_audio).to(dtype)
        else:
            audio = self.adapter.compute_key_values(
                self._mask_foreground(levels, background_only), keep_audio, dtype
            )
            kwargs["cross_attention_kwargs"] = {CROSS_ATTENTION_KWARG: audio}
        if pooled_prompt_embeds is not None:
            # SDXL is conditioned on the image size and the crop, here the whole image.
            side = noisy_latents.shape[-1] * 8
            ids = torch.tensor(
                [[side, side, 0, 0, side, side]], device=noisy_latents.device, dtype=dtype
            )
            added_cond_kwargs = {
                "text_embeds": pooled_prompt_embeds.to(dtype),
                "time_ids": ids.expand(len(noisy_latents), -1),
            }
            kwargs["added_cond_kwargs"] = added_cond_kwargs
        return levels, self.unet(noisy_latents.to(dtype), timesteps, states, **kwargs).sample

    def _mask_foreground(
        self, levels: torch.Tensor, background_only: torch.Tensor | None
    ) -> torch.Tensor:
        if background_only is None:
            return levels
        null_tokens = self.adapter.projector.get_buffer("null_tokens").expand_as(levels)
        masked = levels.clone()
        foreground = level_slice("foreground")
        masked[:, foreground] = torch.where(
            background_only[:, None, None], null_tokens[:, foreground], levels[:, foreground]
        )
        return masked

    def gradient_checkpointing_enable(self, **_: Any) -> None:
        """Enable gradient checkpointing; called by the Trainer for --gradient_checkpointing."""
        self.unet.enable_gradient_checkpointing()

    def trained_state_dict(self) -> dict[str, torch.Tensor]:
        """Return everything that training may change: the adapter's state and the LoRA, by name."""
        state = {f"adapter.{k}": v for k, v in self.adapter.state_dict().items()}
        lora = lora_parameters(self.unet, self.name)
        return state | {f"lora.{k}": v.detach() for k, v in lora.items()}

    @torch.no_grad()
    def load_trained_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Load a state from `trained_state_dict`.

        Args:
            state: The state.

        Raises:
            ValueError: If the state belongs to another adapter.
        """
        own = self.trained_state_dict()
        if own.keys() != state.keys():
            differ = sorted(own.keys() ^ state.keys())
            raise ValueError(f"the checkpoint belongs to another adapter: {differ[0]} …")
        for name, value in own.items():
            value.copy_(state[name])


def _replace_text(
    levels: torch.Tensor, prompt_embeds: torch.Tensor, keep_audio: torch.Tensor | None
) -> torch.Tensor:
    """Return level tokens (B, J, D) in place of text embeds.

    Rows without audio keep the first J tokens of their text, as the unconditional row of a pipeline
    does: pipelines use both as they are.
    """
    if keep_audio is None:
        return levels
    return torch.where(
        keep_audio[:, None, None], levels, prompt_embeds[:, : levels.shape[1]].to(levels.dtype)
    )
