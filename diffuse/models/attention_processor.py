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
CROSS_ATTENTION_KWARG = "ip_hidden_states"


class AudioKeyValues(NamedTuple):
    """What one layer hears of one adapter.

    Attributes:
        keys: (B, J, C).
        values: (B, J, C), with everything folded in that scales the sound.
        strength: (B, 1, 1), for the form with an own output, where values cannot carry it.
        layer: that form's own weights.
    """

    keys: torch.Tensor
    values: torch.Tensor
    row_scale: torch.Tensor | None = None
    layer: Any = None

    def scaled(self, scale: float | torch.Tensor) -> AudioKeyValues:
        """The same, louder or softer."""
        if self.row_scale is not None:
            return self._replace(row_scale=self.row_scale * scale)
        return self._replace(values=self.values * scale)

    def to(self, device: torch.device, dtype: torch.dtype) -> AudioKeyValues:
        """The same elsewhere; the strength keeps its precision."""
        row_scale = None if self.row_scale is None else self.row_scale.to(device)
        return AudioKeyValues(
            self.keys.to(device, dtype), self.values.to(device, dtype), row_scale, self.layer
        )

    def select_rows(self, index: torch.Tensor, has_audio: torch.Tensor) -> AudioKeyValues:
        """Rows by index (N,), silent where not `heard` (N,)."""
        values, row_scale = self.values[index], self.row_scale
        shape = has_audio.to(values.dtype)[:, None, None]
        if row_scale is not None:
            row_scale = row_scale[index] * shape
        return AudioKeyValues(self.keys[index], values * shape, row_scale, self.layer)


# By the name of the cross-attention, the sounds that it hears: one an adapter.
AudioStates = dict[str, list[AudioKeyValues]]


class AudioAttentionLayer(nn.Module):
    """Keys, values and gate of one cross-attention.

    Args:
        token_width: D, the audio tokens' width.
        width: C, the attention's.
    """

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(token_width, width, bias=False)
        self.to_v = nn.Linear(token_width, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def init_from_attention(self, attention: Any) -> None:
        """Begins with the text's own keys and values: the tokens lie in the text's space.

        Args:
            attention: a diffusers `Attention` with keys and values of this layer's sizes.
        """
        for own, text_projection in ((self.to_k, attention.to_k), (self.to_v, attention.to_v)):
            # Behind peft's LoRA the base's weights lie one deeper.
            own.weight.copy_(getattr(text_projection, "base_layer", text_projection).weight)

    def forward(
        self, tokens: torch.Tensor, weights: torch.Tensor, row_scale: torch.Tensor
    ) -> AudioKeyValues:
        """What the layer hears.

        Args:
            tokens: (B, J, D).
            weights: (J,) of the tokens.
            strength: (B, 1, 1), zero for silence.
        """
        values = self.to_v(tokens) * weights[:, None] * (torch.tanh(self.gate) * row_scale)
        return AudioKeyValues(self.to_k(tokens), values)


def split_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, C) to (B, heads, N, C / heads)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(states: torch.Tensor) -> torch.Tensor:
    """(B, heads, N, c) to (B, N, heads * c)."""
    return states.transpose(1, 2).flatten(-2)


def repeat_to_batch(states: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Rows repeated for a batch in which each has become several, such as a video's frames."""
    if len(states) == batch_size:
        return states
    return states.repeat_interleave(batch_size // len(states), 0)


class AudioAttnProcessor:
    """The processor of a cross-attention that hears text and sound; see the module.

    Without a sound it is the processor that it replaced, bit for bit.

    Args:
        name: of the attention, the key of its sounds.
        replaced: the processor before.
    """

    def __init__(self, name: str, base_processor: Any) -> None:
        self.name, self.base_processor = name, base_processor

    def __call__(
        self,
        attn: Any,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        temb: torch.Tensor | None = None,
        ip_hidden_states: AudioStates | None = None,
    ) -> torch.Tensor:
        """(B, N, W) hidden states after text and sound."""
        audio_states = [] if ip_hidden_states is None else ip_hidden_states.get(self.name, [])
        if not audio_states or encoder_hidden_states is None:
            return self.base_processor(
                attn, hidden_states, encoder_hidden_states, attention_mask, temb
            )
        query = split_heads(attn.to_q(hidden_states), attn.heads)
        attended = _text_attention(attn, query, encoder_hidden_states, attention_mask)
        for audio in audio_states:
            keys, values = (
                split_heads(repeat_to_batch(states, len(query)), attn.heads)
                for states in (audio.keys, audio.values)
            )
            attended = attended + F.scaled_dot_product_attention(query, keys, values)
        out = attn.to_out[1](attn.to_out[0](merge_heads(attended)))
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
    keys, values = (
        split_heads(attn.to_k(text), attn.heads),
        split_heads(attn.to_v(text), attn.heads),
    )
    return F.scaled_dot_product_attention(query, keys, values, attn_mask=mask)


class SonicAttentionLayer(AudioAttentionLayer):
    """The weights of one such attention.

    Args:
        token_width: D, the audio tokens' width.
        width: C, the block's.
    """

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__(token_width, width)
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width)

    @torch.no_grad()
    def init_from_attention(self, attention: Any) -> None:
        """Begins with the text's own query, keys, values and output."""
        super().init_from_attention(attention)
        for own, text_projection in (
            (self.to_q, attention.to_q),
            (self.to_out, attention.to_out[0]),
        ):
            base = getattr(text_projection, "base_layer", text_projection)
            own.weight.copy_(base.weight)
            if own.bias is not None and base.bias is not None:
                own.bias.copy_(base.bias)

    def forward(
        self, tokens: torch.Tensor, weights: torch.Tensor, row_scale: torch.Tensor
    ) -> AudioKeyValues:
        """As `AudioAttentionLayer`, with the strength apart: the output's bias must be gated too."""
        values = self.to_v(tokens) * weights[:, None]
        return AudioKeyValues(self.to_k(tokens), values, torch.tanh(self.gate) * row_scale, self)

    def attend(self, hidden: torch.Tensor, audio: AudioKeyValues, heads: int) -> torch.Tensor:
        """What is added to hidden states (B, N, C)."""
        assert audio.row_scale is not None
        where = self.norm.weight.dtype
        query = split_heads(self.to_q(self.norm(hidden.to(where))), heads)
        keys, values, row_scale = (
            repeat_to_batch(states.to(where), len(hidden))
            for states in (audio.keys, audio.values, audio.row_scale)
        )
        attended = F.scaled_dot_product_attention(
            query, split_heads(keys, heads), split_heads(values, heads)
        )
        return (self.to_out(merge_heads(attended)) * row_scale).to(hidden.dtype)


class SonicAttnProcessor:
    """The processor of a cross-attention followed by SonicDiffusion's.

    A processor sees what the block's norm made of the residual stream, not the stream itself, so a
    hook on that norm keeps it; the block adds what is returned to the stream, as before.

    Args:
        name: of the attention, the key of its sounds.
        replaced: the processor before.
        norm: the block's norm before the cross-attention.
    """

    def __init__(self, name: str, base_processor: Any, norm: nn.Module) -> None:
        self.name, self.base_processor = name, base_processor
        self._residual: torch.Tensor | None = None
        self._hook = norm.register_forward_pre_hook(self._store_residual)

    def _store_residual(self, norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._residual = arguments[0]

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
        ip_hidden_states: AudioStates | None = None,
    ) -> torch.Tensor:
        """(B, N, W) what the block adds to its stream: the text's part and the sound's."""
        residual, self._residual = self._residual, None
        out = self.base_processor(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        audio_states = [] if ip_hidden_states is None else ip_hidden_states.get(self.name, [])
        if not audio_states or residual is None:
            return out
        after_text = residual + out
        for audio in audio_states:
            out = out + audio.layer.attend(after_text, audio, attn.heads)
        return out


def new_processor(
    unet: Any, name: str, attention: Any, attention_type: str
) -> AudioAttnProcessor | SonicAttnProcessor:
    """The processor of a form ("shared" or "sonic") for one of a UNet's cross-attentions."""
    if attention_type == "shared":
        return AudioAttnProcessor(name, attention.processor)
    block = unet.get_submodule(name.rpartition(".")[0])
    return SonicAttnProcessor(name, attention.processor, block.norm2)
