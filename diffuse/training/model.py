"""The UNet and its sound adapter as the one module that a Trainer trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from diffuse.models.adapter import SoundAdapter
from diffuse.models.attention_processor import CROSS_ATTENTION_KWARG
from diffuse.models.levels import level_slice
from diffuse.models.lora import lora_parameters


class UNetWithAudio(nn.Module):
    """A UNet that hears by an adapter attached to it.

    Args:
        unet: with the adapter attached.
        adapter: the adapter.
        name: that it is attached by.
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
        """Level tokens (B, J, D), and the UNet's answer (B, C, H, W) where it is asked.

        Args:
            tokens: (B, S, H) audio tokens.
            mask: (B, S) bool.
            embeds: (B, L, D) of the sounds, by the aligned encoder.
            noisy: (B, C, H, W) latents; without them the UNet is not asked.
            times: (B,).
            text: (B, L, D) embeds.
            pooled: (B, P), of bases that take them.
            keep: (B,) bool, false where silence is heard.
            behind: (B,) bool, true where there is nothing to hear in the foreground.
            substitute: the level tokens stand in the text's place, and nothing is heard beside
                them; where `keep_audio` is false, as much of the text stays.
        """
        # A projector that trains must see its own errors.
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
            side = (
                noisy_latents.shape[-1] * 8
            )  # SDXL is told the picture's size, and that it is uncut
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
        """What the Trainer calls for --gradient_checkpointing."""
        self.unet.enable_gradient_checkpointing()

    def trained_state_dict(self) -> dict[str, torch.Tensor]:
        """All that training may have changed, by name: the adapter's state and the LoRA."""
        state = {f"adapter.{k}": v for k, v in self.adapter.state_dict().items()}
        lora = lora_parameters(self.unet, self.name)
        return state | {f"lora.{k}": v.detach() for k, v in lora.items()}

    @torch.no_grad()
    def load_trained_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Puts back what `trained_state_dict` gave.

        Raises:
            ValueError: it comes from another adapter.
        """
        own = self.trained_state_dict()
        if own.keys() != state.keys():
            differ = sorted(own.keys() ^ state.keys())
            raise ValueError(f"the checkpoint is of another adapter: {differ[0]} …")
        for name, value in own.items():
            value.copy_(state[name])


def _replace_text(
    levels: torch.Tensor, prompt_embeds: torch.Tensor, keep_audio: torch.Tensor | None
) -> torch.Tensor:
    """Level tokens (B, J, D) in place of texts; rows without a sound have a text's first J.

    So has the null that guidance measures from: a stock pipeline takes both as they are.
    """
    if keep_audio is None:
        return levels
    return torch.where(
        keep_audio[:, None, None], levels, prompt_embeds[:, : levels.shape[1]].to(levels.dtype)
    )
