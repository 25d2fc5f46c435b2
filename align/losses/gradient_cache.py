"""The gradient cache: batches for the loss that are larger than what the encoder can hold."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import get_device_states, set_device_states

from align.models.heads import AudioPromptOutput


class GradientCache:
    """A step's gradients with the activations of only a few rows in memory at a time.

    GradCache (Gao et al. 2021, arXiv 2101.06983). A contrastive loss needs all rows' embeds at
    once, but not the activations behind them. So `encode` runs the encoder on some rows at a time
    and lets their activations go; the loss is computed and its gradient is taken at the embeds;
    and `replay` runs the encoder again, for the same rows with the same dropout, and passes their
    part of the gradient on. The gradients are those of a plain step, for one more forward pass.

    Only embeds grow with the batch. Batch norm, where it trains, sees some rows at a time, as
    under gradient accumulation; its statistics move once.

    Args:
        rows: rows encoded at once.
    """

    def __init__(self, chunk_size: int) -> None:
        self._chunk_size = chunk_size
        self._parts: list[tuple[dict[str, Any], _RNGState]] = []
        self._found: dict[str, torch.Tensor] = {}

    def encode(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        no_sync: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> AudioPromptOutput:
        """The model's answer to all rows, for a loss to be computed from.

        Args:
            model: an `AudioPromptEncoder`, which may be wrapped.
            inputs: its arguments; tensors are divided by their rows.
            alone: a context in which processes do not average their gradients.
        """
        self._parts, outputs = [], []
        with no_sync(), _frozen_batch_norm(model):
            for part in _split_rows(inputs, self._chunk_size):
                self._parts.append((part, _RNGState(part)))
                # With a graph, though it is dropped at once: without one, other kernels round
                # half precision otherwise, and the replay would not meet these embeds.
                outputs.append(_detach(model(**part)))
        found = {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}
        self._found = {name: value.requires_grad_() for name, value in found.items()}
        return AudioPromptOutput(**self._found)

    def replay(
        self,
        model: nn.Module,
        no_sync: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        """Adds to the gradients of the model's weights, after the loss's backward pass.

        Args:
            model: the one that encoded.
            alone: see `encode`; all rows but the last run in it, so that processes average once.
        """
        parts, found = self._parts, self._found
        self._parts, self._found = [], {}
        gradients = {
            name: value.grad.split(self._chunk_size)
            for name, value in found.items()
            if value.grad is not None
        }
        for i, (part, rng_state) in enumerate(parts):
            with no_sync() if i < len(parts) - 1 else contextlib.nullcontext():
                rng_state.restore()
                output = model(**part)
                outputs = [getattr(output, name) for name in gradients]
                torch.autograd.backward(outputs, [column[i] for column in gradients.values()])


class _RNGState:
    """The state of all random number generators that a forward pass draws from."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        # Wav2Vec2-BERT masks what it hears in training by NumPy's.
        self._host = torch.get_rng_state(), np.random.get_state(), random.getstate()
        self._devices = get_device_states(*inputs.values())

    def restore(self) -> None:
        """Draws what was drawn then."""
        torch.set_rng_state(self._host[0])
        np.random.set_state(self._host[1])
        random.setstate(self._host[2])
        set_device_states(*self._devices)


def _detach(output: AudioPromptOutput) -> dict[str, torch.Tensor]:
    both = {"embeds": output.embeds, "pooled": output.pooled}
    return {name: value.detach() for name, value in both.items() if value is not None}


def _split_rows(inputs: dict[str, Any], chunk_size: int) -> Iterator[dict[str, Any]]:
    count = max(len(value) for value in inputs.values() if isinstance(value, torch.Tensor))
    for start in range(0, count, chunk_size):
        part = slice(start, start + chunk_size)
        yield {k: v[part] if isinstance(v, torch.Tensor) else v for k, v in inputs.items()}


@contextlib.contextmanager
def _frozen_batch_norm(model: nn.Module) -> Iterator[None]:
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    yield
    with torch.no_grad():
        for buffer, value in kept:
            buffer.copy_(value)
