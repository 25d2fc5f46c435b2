"""Several processes, as torchrun starts them: who writes, who waits, who reads which rows."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import distributed
from torch.utils.data import BatchSampler, DataLoader, Sampler


def init_process_group(training: Any) -> None:
    """Lets the processes that torchrun started find each other; TrainingArguments know how."""
    training.device  # noqa: B018


def destroy_process_group() -> None:
    """Parts the processes, once they have nothing more to tell each other.

    What they talk by has threads of its own, and one that is still there when the interpreter ends
    aborts the process; torchrun ends all the others then, whatever they are doing. From here on
    every process is one alone.
    """
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def process_rank() -> int:
    """Which process this is, from 0; 0 where there is only one."""
    return distributed.get_rank() if _is_distributed() else 0


def is_main_process() -> bool:
    """Whether this is the process that writes, prints and draws."""
    return process_rank() == 0


def barrier() -> None:
    """Waits until all processes are here."""
    if _is_distributed():
        distributed.barrier()


@contextlib.contextmanager
def main_process_first() -> Iterator[None]:
    """The main process passes through while the others wait; then they do.

    What it writes into a cache, they find there.
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
    """Nothing that other processes print is shown; errors are."""
    if is_main_process():
        yield
        return
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        yield


def _is_distributed() -> bool:
    return bool(
        distributed.is_available()
        and distributed.is_initialized()
        and distributed.get_world_size() > 1
    )


class RankBatchSampler(Sampler):
    """This process's share of every batch that one process would have.

    A last batch that is not full is divided too, and shares may differ by a row. Where it has
    fewer rows than there are processes, those without one read its first row again.

    Args:
        rows: the order of all rows.
        batch_size: of all processes together.
        drop_last: whether a last batch that is not full is left out.
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
    """The rows of one of several processes: consecutive ones, as even as can be."""
    whole, rest = divmod(len(rows), world_size)
    start = rank * whole + min(rank, rest)
    return rows[start : start + whole + (rank < rest)]


def rank_dataloader(
    dataset: Any, batch_sampler: RankBatchSampler, collate: Callable[[list[Any]], Any], options: Any
) -> DataLoader:
    """A loader of this process's shares that the Trainer drives as its own.

    Args:
        dataset: rows addressed as `batch_sampler` addresses them.
        shares: batches of this process.
        collate: rows to a batch.
        options: TrainingArguments.
    """
    from accelerate.data_loader import prepare_data_loader

    loader = DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=collate,
        num_workers=options.dataloader_num_workers,
        pin_memory=options.dataloader_pin_memory,
    )
    # Divided already: Accelerate only moves batches to the device.
    return prepare_data_loader(
        loader, options.device, num_processes=1, process_index=0, put_on_device=True
    )


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
    return tuple(None if column is None else _AllGather.apply(column, sizes) for column in columns)


def _sizes(own: int, device: torch.device) -> list[int]:
    here = torch.tensor([own], device=device)
    found = [torch.empty_like(here) for _ in range(distributed.get_world_size())]
    distributed.all_gather(found, here)
    return [int(size) for size in found]


class _AllGather(torch.autograd.Function):
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
