"""Data-parallel training with torchrun: process groups, batches per rank, gathered rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import distributed
from torch.utils.data import BatchSampler, DataLoader, Sampler


def init_process_group(training: Any) -> None:
    """Initialize the process group, as a side effect of the Trainer's `device`."""
    training.device  # noqa: B018


def destroy_process_group() -> None:
    """Destroy the process group after the last collective operation.

    Threads of the backend that still run when the interpreter exits abort the process, and torchrun
    then ends all other processes as well. After this call, each process runs on its own.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def process_rank() -> int:
    """Return the rank of this process, 0 if there is only one."""
    return distributed.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    """Whether this is the process that writes files, prints and generates images."""
    return process_rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if _is_distributed():
        distributed.barrier()


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block in the main process first, then in the others.

    The others then find in the cache what the main process computed.
    """
    if not is_main_process():
        barrier()
    try:
        yield
    finally:
        if is_main_process():
            barrier()


@contextlib.contextmanager
def main_process_stdout() -> Iterator[None]:
    """Suppress the standard output of all but the main process; errors are still shown."""
    if is_main_process():
        yield
        return
    with open(os.devnull, "w") as null, contextlib.redirect_stdout(null):
        yield


def _is_distributed() -> bool:
    return bool(
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


class RankBatchSampler(Sampler):
    """Sampler of this process's part of every global batch.

    An incomplete last batch is divided as well, so that the parts may differ by one row. If it has
    fewer rows than there are processes, the remaining processes repeat its first row.

    Args:
        rows: Sampler of all rows.
        batch_size: Batch size of all processes together.
        drop_last: Whether to drop an incomplete last batch.
    """

    def __init__(self, rows: Sampler, batch_size: int, drop_last: bool = False) -> None:
        self.sampler, self.batch_size, self.drop_last = rows, batch_size, drop_last
        self._batches = BatchSampler(rows, batch_size, drop_last)
        self._rank, self._world_size = (
            process_rank(),
            distributed.get_world_size() if _is_distributed() else 1,
        )

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[Any]]:
        for batch in self._batches:
            rank_rows = rank_slice(batch, self._rank, self._world_size)
            yield rank_rows or batch[:1]


def rank_slice(rows: list[Any], rank: int, world_size: int) -> list[Any]:
    """Return the consecutive rows of one process; the parts differ by at most one row."""
    whole, rest = divmod(len(rows), world_size)
    start = rank * whole + min(rank, rest)
    return rows[start : start + whole + (rank < rest)]


def rank_dataloader(
    dataset: Any, batch_sampler: RankBatchSampler, collate: Callable[[list[Any]], Any], options: Any
) -> DataLoader:
    """Return a data loader of this process's batches, prepared for the Trainer.

    Args:
        dataset: Dataset, indexed by the items of `batch_sampler`.
        batch_sampler: Batches of this process.
        collate: Function from rows to a batch.
        options: Training arguments.
    """
    from accelerate.data_loader import prepare_data_loader

    loader = DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=collate,
        num_workers=options.dataloader_num_workers,
        pin_memory=options.dataloader_pin_memory,
    )
    # The batches are per process already: Accelerate only moves them to the device.
    return prepare_data_loader(
        loader, options.device, num_processes=1, process_index=0, put_on_device=True
    )


def gather_rows(*columns: torch.Tensor | None) -> tuple[Any, ...]:
    """Gather the rows of all processes, in rank order.

    Every process then computes the loss of the global batch. Its gradient with respect to its own
    rows is complete, so that the backward pass needs no communication. It is multiplied by the
    number of processes, because data-parallel training averages gradients that have to be summed.

    Args:
        columns: Tensors with the same number of rows, or None. The number may differ between
            processes.

    Returns:
        The gathered tensors; with one process, `columns` unchanged.
    """
    if not distributed.is_available() or not distributed.is_initialized():
        return columns
    if distributed.get_world_size() == 1:
        return columns
    own = next(column for column in columns if column is not None)
    sizes = _sizes(len(own), own.device)
    return tuple(None if column is None else _AllGather.apply(column, sizes) for column in columns)


def _sizes(own: int, device: torch.device) -> list[int]:
    here = torch.tensor([own], device=device)
    found = [torch.empty_like(here) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, here)
    return [int(size) for size in found]


class _AllGather(torch.autograd.Function):
    """All-gather in the forward pass; in the backward pass, own rows times the world size."""

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, sizes: list[int]) -> torch.Tensor:
        ctx.sizes = sizes
        # Not every backend gathers tensors of different sizes.
        sent = rows.new_zeros(max(sizes), *rows.shape[1:])
        sent[: len(rows)] = rows
        found = [torch.empty_like(sent) for _ in sizes]
        distributed.all_gather(found, sent)
        return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        rank = distributed.get_rank()
        return gradients[0].split(ctx.sizes)[rank] * len(ctx.sizes), None
