"""Rows of all processes together: a batch's negatives are not only those of its own process."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed


def gather_rows(*columns: torch.Tensor | None) -> tuple[Any, ...]:
    """Each column with the rows of all processes, in their order; as it is with one process.

    Every process then computes the loss of the whole batch. Its gradient for rows of its own is
    complete as it stands, so nothing need be sent back. Because data-parallel training averages
    over processes what has to be summed, it is multiplied by their number.

    Args:
        columns: tensors with as many rows each, which may differ between processes, or None.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return columns
    if distributed.get_world_size() == 1:
        return columns
    own = next(column for column in columns if column is not None)
    sizes = _sizes(len(own), own.device)
    return tuple(None if column is None else _Gathered.apply(column, sizes) for column in columns)


def _sizes(own: int, device: torch.device) -> list[int]:
    here = torch.tensor([own], device=device)
    found = [torch.empty_like(here) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, here)
    return [int(size) for size in found]


class _Gathered(torch.autograd.Function):
    """All processes' rows forward; the gradient of one's own, times their number, backward."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        ctx.sizes = sizes
        # Not every backend gathers what differs in size.
        sent = rows.new_zeros(max(sizes), *rows.shape[1:])
        sent[: len(rows)] = rows
        found = [torch.empty_like(sent) for _ in sizes]
        distributed.all_gather(found, sent)
        return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        rank = distributed.get_rank()
        return gradients[0].split(ctx.sizes)[rank] * len(ctx.sizes), None
