"""SonicDiffusion's form of audio attention, to compare ours with.

    h = h + strength * tanh(gate) * output(attention(query(norm(h)), audio))

after the text's cross-attention and before the feed-forward network, with LayerNorm, query, keys,
values and output of its own (Biner et al. 2024, arXiv 2405.00878).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from diffuse.attention import Audio, AudioAttention, AudioLayer, Sound, for_batch, join, split


class SonicLayer(AudioLayer):
    """The weights of one such attention.

    Args:
        token_width: D, the audio tokens' width.
        width: C, the block's.
    """

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__(token_width, width)
        self.norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width)

    @torch.no_grad()
    def start_from(self, attention: Any) -> None:
        """Begins with the text's own query, keys, values and output."""
        super().start_from(attention)
        for own, of_text in ((self.query, attention.to_q), (self.output, attention.to_out[0])):
            base = getattr(of_text, "base_layer", of_text)
            own.weight.copy_(base.weight)
            if own.bias is not None and base.bias is not None:
                own.bias.copy_(base.bias)

    def forward(self, tokens: torch.Tensor, weights: torch.Tensor, strength: torch.Tensor) -> Sound:
        """As `AudioLayer`, with the strength apart: the output's bias must be gated too."""
        values = self.values(tokens) * weights[:, None]
        return Sound(self.keys(tokens), values, torch.tanh(self.gate) * strength, self)

    def hear(self, hidden: torch.Tensor, sound: Sound, heads: int) -> torch.Tensor:
        """What is added to hidden states (B, N, C)."""
        assert sound.strength is not None
        where = self.norm.weight.dtype
        query = split(self.query(self.norm(hidden.to(where))), heads)
        keys, values, strength = (
            for_batch(states.to(where), len(hidden))
            for states in (sound.keys, sound.values, sound.strength)
        )
        heard = F.scaled_dot_product_attention(query, split(keys, heads), split(values, heads))
        return (self.output(join(heard)) * strength).to(hidden.dtype)


class SonicAttention:
    """The processor of a cross-attention followed by SonicDiffusion's.

    A processor sees what the block's norm made of the residual stream, not the stream itself, so a
    hook on that norm keeps it; the block adds what is returned to the stream, as before.

    Args:
        name: of the attention, the key of its sounds.
        replaced: the processor before.
        norm: the block's norm before the cross-attention.
    """

    def __init__(self, name: str, replaced: Any, norm: nn.Module) -> None:
        self.name, self.replaced = name, replaced
        self._stream: torch.Tensor | None = None
        self._hook = norm.register_forward_pre_hook(self._keep)

    def _keep(self, norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._stream = arguments[0]

    def remove(self) -> None:
        """Takes the hook off."""
        self._hook.remove()

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        ip_hidden_states: Audio | None = None,
    ) -> torch.Tensor:
        """(B, N, W) what the block adds to its stream: the text's part and the sound's."""
        stream, self._stream = self._stream, None
        out = self.replaced(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        sounds = [] if ip_hidden_states is None else ip_hidden_states.get(self.name, [])
        if not sounds or stream is None:
            return out
        after_text = stream + out
        for sound in sounds:
            out = out + sound.layer.hear(after_text, sound, attn.heads)
        return out


def new_processor(
    unet: Any, name: str, attention: Any, form: str
) -> AudioAttention | SonicAttention:
    """The processor of a form ("shared" or "sonic") for one of a UNet's cross-attentions."""
    if form == "shared":
        return AudioAttention(name, attention.processor)
    block = unet.get_submodule(name.rpartition(".")[0])
    return SonicAttention(name, attention.processor, block.norm2)
