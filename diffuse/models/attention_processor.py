"""Gated audio attention: a text cross-attention block that also attends to audio tokens.

    hidden = output(attention(q, text) + scale * tanh(gate) * attention(q, audio))

The block's own query and output projections are reused; the keys and values of the audio are new,
as in the decoupled cross-attention of IP-Adapter (Ye et al. 2023, arXiv 2308.06721), which has no
gate. The sum precedes the output projection because its bias must be added only once.

All scales of the audio are folded into its values: the gate, the level weights, the audio scale and
the unconditional case. A row whose values are zero has no audio: only the attention to the text
contributes. Keys and values do not depend on the timestep, so they are computed once per image.

They reach the processor as an argument of the UNet's call instead of as state of the UNet, so that
gradient checkpointing, which calls blocks a second time, recomputes them with the same audio.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

# Diffusers passes this one of the cross_attention_kwargs to processors that accept it and drops it
# for all others (self-attention) without a warning at every call.
CROSS_ATTENTION_KWARG = "ip_hidden_states"


class AudioKeyValues(NamedTuple):
    """Keys and values of one adapter's audio for one attention layer.

    Attributes:
        keys: Keys of shape (B, J, C).
        values: Values of shape (B, J, C), multiplied by all scales of the audio.
        row_scale: Scale of shape (B, 1, 1), for layers with their own output projection, whose bias
            must be scaled as well.
        layer: Layer with that output projection.
    """

    keys: torch.Tensor
    values: torch.Tensor
    row_scale: torch.Tensor | None = None
    layer: Any = None

    def scaled(self, scale: float | torch.Tensor) -> AudioKeyValues:
        """Return a copy with its scale multiplied by `scale`."""
        if self.row_scale is not None:
            return self._replace(row_scale=self.row_scale * scale)
        return self._replace(values=self.values * scale)

    def to(self, device: torch.device, dtype: torch.dtype) -> AudioKeyValues:
        """Return a copy on a device and in a data type; row_scale keeps its data type."""
        row_scale = None if self.row_scale is None else self.row_scale.to(device)
        return AudioKeyValues(
            self.keys.to(device, dtype), self.values.to(device, dtype), row_scale, self.layer
        )

    def select_rows(self, index: torch.Tensor, has_audio: torch.Tensor) -> AudioKeyValues:
        """Select rows of the batch.

        Args:
            index: Indices (N,) of the rows.
            has_audio: Mask (N,); rows where it is false get no audio.

        Returns:
            Keys and values of N rows.
        """
        values, row_scale = self.values[index], self.row_scale
        shape = has_audio.to(values.dtype)[:, None, None]
        if row_scale is not None:
            row_scale = row_scale[index] * shape
        return AudioKeyValues(self.keys[index], values * shape, row_scale, self.layer)


# Keys and values by name of the cross-attention, one entry per adapter.
AudioStates = dict[str, list[AudioKeyValues]]


class AudioAttentionLayer(nn.Module):
    """Key and value projections and gate of one cross-attention.

    Args:
        token_width: Width D of the level tokens.
        width: Width C of the attention.
    """

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(token_width, width, bias=False)
        self.to_v = nn.Linear(token_width, width, bias=False)
        self.gate = nn.Parameter(torch.zeros(()))

    @torch.no_grad()
    def init_from_attention(self, attention: Any) -> None:
        """Copy the key and value projections of the text, whose space the level tokens share.

        Args:
            attention: Diffusers `Attention` with projections of the same shapes.
        """
        for own, text_projection in ((self.to_k, attention.to_k), (self.to_v, attention.to_v)):
            # peft wraps the layer of the base model if it has a LoRA.
            own.weight.copy_(getattr(text_projection, "base_layer", text_projection).weight)

    def forward(
        self, tokens: torch.Tensor, weights: torch.Tensor, row_scale: torch.Tensor
    ) -> AudioKeyValues:
        """Compute keys and values.

        Args:
            tokens: Level tokens (B, J, D).
            weights: Token weights (J,).
            row_scale: Scale (B, 1, 1) of each row, zero for no audio.

        Returns:
            Keys and values of shape (B, J, C).
        """
        values = self.to_v(tokens) * weights[:, None] * (torch.tanh(self.gate) * row_scale)
        return AudioKeyValues(self.to_k(tokens), values)


def split_heads(states: torch.Tensor, heads: int) -> torch.Tensor:
    """Reshape (B, N, C) to (B, heads, N, C / heads)."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(states: torch.Tensor) -> torch.Tensor:
    """Reshape (B, heads, N, c) to (B, N, heads * c)."""
    return states.transpose(1, 2).flatten(-2)


def repeat_to_batch(states: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Repeat rows for a batch in which each row has become several, such as video frames.

    Args:
        states: Tensor with one row per clip.
        batch_size: Number of rows needed, a multiple of the rows of `states`.
    """
    if len(states) == batch_size:
        return states
    return states.repeat_interleave(batch_size // len(states), 0)


class AudioAttnProcessor:
    """Attention processor for text and audio, as described at the top of the module.

    Without audio it calls the processor that it replaces, with bitwise identical results.

    Args:
        name: Name of the attention module, the key of its audio.
        base_processor: Processor that it replaces.
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
        """Return the hidden states (B, N, W) after attention to text and audio."""
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
    """Attention to the text, (B, heads, N, c), with the operations of `AttnProcessor2_0`."""
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
    """Weights of a SonicDiffusion audio attention with its own query and output projections.

    Args:
        token_width: Width D of the level tokens.
        width: Width C of the block.
    """

    def __init__(self, token_width: int, width: int) -> None:
        super().__init__(token_width, width)
        self.norm = nn.LayerNorm(width)
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_out = nn.Linear(width, width)

    @torch.no_grad()
    def init_from_attention(self, attention: Any) -> None:
        """Copy the query, key, value and output projections of the text.

        Args:
            attention: Diffusers `Attention` with projections of the same shapes.
        """
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
        """Compute keys and values with a separate row scale, which also gates the output's bias.

        Args:
            tokens: Level tokens (B, J, D).
            weights: Token weights (J,).
            row_scale: Scale (B, 1, 1) of each row, zero for no audio.

        Returns:
            Keys and values of shape (B, J, C), with the gated row scale.
        """
        values = self.to_v(tokens) * weights[:, None]
        return AudioKeyValues(self.to_k(tokens), values, torch.tanh(self.gate) * row_scale, self)

    def attend(self, hidden: torch.Tensor, audio: AudioKeyValues, heads: int) -> torch.Tensor:
        """Compute the residual that the audio adds to the hidden states.

        Args:
            hidden: Hidden states (B, N, C) after the attention to the text.
            audio: Keys and values of the audio.
            heads: Number of attention heads.

        Returns:
            Residual of shape (B, N, C).
        """
        assert audio.row_scale is not None
        dtype = self.norm.weight.dtype
        query = split_heads(self.to_q(self.norm(hidden.to(dtype))), heads)
        keys, values, row_scale = (
            repeat_to_batch(states.to(dtype), len(hidden))
            for states in (audio.keys, audio.values, audio.row_scale)
        )
        attended = F.scaled_dot_product_attention(
            query, split_heads(keys, heads), split_heads(values, heads)
        )
        return (self.to_out(merge_heads(attended)) * row_scale).to(hidden.dtype)


class SonicAttnProcessor:
    """Attention processor that adds SonicDiffusion's audio attention after the text attention.

    A processor receives the normalized hidden states, not the residual stream, so a hook on the
    block's norm stores the latter. The block adds the returned residual to the stream as usual.

    Args:
        name: Name of the attention module, the key of its audio.
        base_processor: Processor that it replaces.
        norm: The block's norm before the cross-attention.
    """

    def __init__(self, name: str, base_processor: Any, norm: nn.Module) -> None:
        self.name, self.base_processor = name, base_processor
        self._residual: torch.Tensor | None = None
        self._hook = norm.register_forward_pre_hook(self._store_residual)

    def _store_residual(self, norm: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._residual = arguments[0]

    def remove(self) -> None:
        """Remove the hook."""
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
        """Return the residual (B, N, W) of text and audio."""
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
    """Create the processor of an attention type for a cross-attention of a UNet.

    Args:
        unet: UNet with the attention.
        name: Name of the attention module.
        attention: The attention module.
        attention_type: "shared" or "sonic".

    Returns:
        The processor.
    """
    if attention_type == "shared":
        return AudioAttnProcessor(name, attention.processor)
    block = unet.get_submodule(name.rpartition(".")[0])
    return SonicAttnProcessor(name, attention.processor, block.norm2)
