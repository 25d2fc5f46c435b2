"""The UNet and its sound adapter as the one module that a Trainer trains."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from diffuse.models.adapter import SoundAdapter
from diffuse.models.attention_processor import CHANNEL
from diffuse.models.levels import places
from diffuse.models.lora import lora_parameters


class HearingUNet(nn.Module):
    """A UNet that hears by an adapter attached to it.

    Args:
        unet: with the adapter attached.
        adapter: the adapter.
        name: that it is attached by.
    """

    def __init__(self, unet: Any, adapter: SoundAdapter, name: str = "sound") -> None:
        super().__init__()
        self.unet, self.adapter, self.name = unet, adapter, name

    def forward(
        self,
        tokens: torch.Tensor,
        mask: torch.Tensor,
        embeds: torch.Tensor,
        noisy: torch.Tensor | None = None,
        times: torch.Tensor | None = None,
        text: torch.Tensor | None = None,
        pooled: torch.Tensor | None = None,
        keep: torch.Tensor | None = None,
        behind: torch.Tensor | None = None,
        substitute: bool = False,
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
                them; where `keep` is false, as much of the text stays.
        """
        # A projector that trains must see its own errors.
        trains = any(weight.requires_grad for weight in self.adapter.parts["projector"])
        levels = (self.adapter.projector if trains else self.adapter.project)(tokens, mask, embeds)
        if noisy is None or text is None:
            return levels, None
        dtype = self.unet.dtype
        given: dict[str, Any] = {}
        states = text.to(dtype)
        if substitute:
            states = _substituted(levels, text, keep).to(dtype)
        else:
            audio = self.adapter.listen(self._heard(levels, behind), keep, dtype)
            given["cross_attention_kwargs"] = {CHANNEL: audio}
        if pooled is not None:
            side = noisy.shape[-1] * 8  # SDXL is told the picture's size, and that it is uncut
            ids = torch.tensor([[side, side, 0, 0, side, side]], device=noisy.device, dtype=dtype)
            told = {"text_embeds": pooled.to(dtype), "time_ids": ids.expand(len(noisy), -1)}
            given["added_cond_kwargs"] = told
        return levels, self.unet(noisy.to(dtype), times, states, **given).sample

    def _heard(self, levels: torch.Tensor, behind: torch.Tensor | None) -> torch.Tensor:
        if behind is None:
            return levels
        nothing = self.adapter.projector.get_buffer("nothing").expand_as(levels)
        heard = levels.clone()
        front = places("foreground")
        heard[:, front] = torch.where(behind[:, None, None], nothing[:, front], levels[:, front])
        return heard

    def gradient_checkpointing_enable(self, **_: Any) -> None:
        """What the Trainer calls for --gradient_checkpointing."""
        self.unet.enable_gradient_checkpointing()

    def trained(self) -> dict[str, torch.Tensor]:
        """All that training may have changed, by name: the adapter's state and the LoRA."""
        state = {f"adapter.{k}": v for k, v in self.adapter.state_dict().items()}
        lora = lora_parameters(self.unet, self.name)
        return state | {f"lora.{k}": v.detach() for k, v in lora.items()}

    @torch.no_grad()
    def set_trained(self, state: dict[str, torch.Tensor]) -> None:
        """Puts back what `trained` gave.

        Raises:
            ValueError: it comes from another adapter.
        """
        own = self.trained()
        if own.keys() != state.keys():
            differ = sorted(own.keys() ^ state.keys())
            raise ValueError(f"the checkpoint is of another adapter: {differ[0]} …")
        for name, value in own.items():
            value.copy_(state[name])


def _substituted(
    levels: torch.Tensor, text: torch.Tensor, keep: torch.Tensor | None
) -> torch.Tensor:
    """Level tokens (B, J, D) in place of texts; rows without a sound have a text's first J.

    So has the null that guidance measures from: a stock pipeline takes both as they are.
    """
    if keep is None:
        return levels
    return torch.where(keep[:, None, None], levels, text[:, : levels.shape[1]].to(levels.dtype))
