"""Gated audio attention: a block's text cross-attention that also hears audio tokens.

    hidden = output(attention(q, text) + scale * tanh(gate) * attention(q, audio))

The query and the output projection are the block's own; keys and values of the sound are ours, as
in IP-Adapter's decoupled cross-attention (Ye et al. 2023, arXiv 2308.06721), which has no gate.
The sum stands before the output projection because that has a bias, which must be added once.

Whatever scales the sound is folded into its values: the gate, the levels' weights, the audio scale,
and the null, which is *silence*: a row whose values are zero hears nothing, and its attention is
the text's alone. Keys and values do not depend on the step, so they are computed once a picture.

They reach the processor as an argument of the UNet's call and not as state of the UNet, so that
gradient checkpointing, which calls blocks a second time, hears the same sound again.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

# Of all cross_attention_kwargs, diffusers passes this one to processors that know it and drops it
# for the others (self-attention) without a warning at every call.
CHANNEL = "ip_hidden_states"


class Sound(NamedTuple):
    """What one layer hears of one adapter.

    Attributes:
        keys: (B, J, C).
        values: (B, J, C), with everything folded in that scales the sound.
        strength: (B, 1, 1), for the form with an own output, where values cannot carry it.
        layer: that form's own weights.
    """

    keys: torch.Tensor
    values: torch.Tensor
    strength: torch.Tensor | None = None
    layer: Any = None

    def scaled(self, scale: float | torch.Tensor) -> Sound:
        """The same, louder or softer."""
        if self.strength is not None:
            return self._replace(strength=self.strength * scale)
        return self._replace(values=self.values * scale)

    def to(self, device: torch.device, dtype: torch.dtype) -> Sound:
        """The same elsewhere; the strength keeps its precision."""
        strength = None if self.strength is None else self.strength.to(device)
        return Sound(
            self.keys.to(device, dtype), self.values.to(device, dtype), strength, self.layer
        )

    def rows(self, index: torch.Tensor, heard: torch.Tensor) -> Sound:
        """Rows by index (N,), silent where not `heard` (N,)."""
        values, strength = self.values[index], self.strength
        shape = heard.to(values.dtype)[:, None, None]
        if strength is not None:
            strength = strength[index] * shape
        return Sound(self.keys[index], values * shape, strength, self.layer)


# By the name of the cross-attention, the sounds that it hears: one an adapter.
Audio = dict[str, list[Sound]]


class AudioLayer(nn.Module):
    """Keys, values and gate of one cross-attention.

    Args:
        token_width: D, the audio tokens' width.
        width: C, the attention's.
    """

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__()
        self.keys = nn.Linear(token_width, width, bias=False)
        self.values = nn.Linear(token_width, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def start_from(self, attention: Any) -> None:
        """Begins with the text's own keys and values: the tokens lie in the text's space.

        Args:
            attention: a diffusers `Attention` with keys and values of this layer's sizes.
        """
        for own, of_text in ((self.keys, attention.to_k), (self.values, attention.to_v)):
            # Behind peft's LoRA the base's weights lie one deeper.
            own.weight.copy_(getattr(of_text, "base_layer", of_text).weight)

    def forward(self, tokens: torch.Tensor, weights: torch.Tensor, strength: torch.Tensor) -> Sound:
        """What the layer hears.

        Args:
            tokens: (B, J, D).
            weights: (J,) of the tokens.
            strength: (B, 1, 1), zero for silence.
        """
        values = self.values(tokens) * weights[:, None] * (torch.tanh(self.gate) * strength)
        return Sound(self.keys(tokens), values)


def split(states: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, C) to (B, heads, N, C / heads)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def join(states: torch.Tensor) -> torch.Tensor:
    """(B, heads, N, c) to (B, N, heads * c)."""
    return states.transpose(1, 2).flatten(-2)


def for_batch(states: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Rows repeated for a batch in which each has become several, such as a video's frames."""
    if len(states) == batch_size:
        return states
    return states.repeat_interleave(batch_size // len(states), 0)


class AudioAttention:
    """The processor of a cross-attention that hears text and sound; see the module.

    Without a sound it is the processor that it replaced, bit for bit.

    Args:
        name: of the attention, the key of its sounds.
        replaced: the processor before.
    """

    def __init__(self, name: str, replaced: Any) -> None:
        self.name, self.replaced = name, replaced

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        ip_hidden_states: Audio | None = None,
    ) -> torch.Tensor:
        """(B, N, W) hidden states after text and sound."""
        sounds = [] if ip_hidden_states is None else ip_hidden_states.get(self.name, [])
        if not sounds or encoder_hidden_states is None:
            return self.replaced(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        query = split(attn.to_q(hidden_states), attn.heads)
        heard = _text_attention(attn, query, encoder_hidden_states, attention_mask)
        for sound in sounds:
            keys, values = (
                split(for_batch(states, len(query)), attn.heads)
                for states in (sound.keys, sound.values)
            )
            heard = heard + F.scaled_dot_product_attention(query, keys, values)
        out = attn.to_out[1](attn.to_out[0](join(heard)))
        if attn.residual_connection:
            out = out + hidden_states
        return out / attn.rescale_output_factor


def _text_attention(
    attn: Any, query: torch.Tensor, text: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """Attention (B, heads, N, c) to the text, with the operations of `AttnProcessor2_0`."""
    if mask is not None:
        mask = attn.prepare_attention_mask(mask, text.shape[1], len(text))
        mask = mask.view(len(text), attn.heads, -1, mask.shape[-1])
    if attn.norm_cross:
        text = attn.norm_encoder_hidden_states(text)
    keys, values = split(attn.to_k(text), attn.heads), split(attn.to_v(text), attn.heads)
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)


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
