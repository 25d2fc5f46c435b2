"""GradCache: contrastive batches larger than the encoder's activations allow."""

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
    """Gradients of a whole batch, with the activations of only one chunk in memory.

    GradCache (Gao et al. 2021, arXiv 2101.06983). A contrastive loss needs the embeds of all rows,
    but not their activations. `encode` runs the encoder chunk by chunk without keeping activations;
    the loss and its gradient with respect to the embeds are computed next; `replay` runs the
    encoder again with the same dropout and backpropagates each chunk's part of the gradient. The
    gradients equal those of a plain step, at the cost of one more forward pass.

    Only the embeds grow with the batch. Batch norm in training mode uses the statistics of a chunk,
    as with gradient accumulation; its running statistics are updated once.

    Args:
        chunk_size: Number of rows encoded at once.
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
        """Encodes all rows and returns outputs to compute a loss from.

        Args:
            model: `AudioPromptEncoder`, possibly wrapped.
            inputs: Arguments of the model; tensors are split by rows.
            no_sync: Context in which processes do not average their gradients.
        """
        self._parts, outputs = [], []
        with no_sync(), _frozen_batch_norm(model):
            for part in _split_rows(inputs, self._chunk_size):
                self._parts.append((part, _RNGState(part)))
                # Runs with a graph that is discarded: without one, other kernels may round half
                # precision differently, and the replay would not match these embeds.
                outputs.append(_detach(model(**part)))
        found = {name: torch.cat([output[name] for output in outputs]) for name in outputs[0]}
        self._found = {name: value.requires_grad_() for name, value in found.items()}
        return AudioPromptOutput(**self._found)

    def replay(
        self,
        model: nn.Module,
        no_sync: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext,
    ) -> None:
        """Accumulates the gradients of the model's weights after the loss's backward pass.

        Args:
            model: The model passed to `encode`.
            no_sync: See `encode`; all chunks but the last run in it, so that processes average
                once.
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
    """State of all random number generators that a forward pass uses."""

    def __init__(self, inputs: dict[str, Any]) -> None:
        # Wav2Vec2-BERT samples its training masks with NumPy's generator.

        self._host = torch.get_rng_state(), np.random.get_state(), random.getstate()
        self._devices = get_device_states(*inputs.values())

    def restore(self) -> None:
        """Restores the state, so that the forward pass repeats its random numbers."""
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
