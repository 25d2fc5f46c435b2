"""Worker of test_distributed.py: `torchrun … rank_worker.py FOLDER`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from align.config.arguments import LossArguments
from align.losses.alignment import AlignmentLoss
from align.losses.gradient_cache import GradientCache
from align.models.heads import AudioPromptOutput
from align.prompts.embeds import PromptEmbeds
from align.training.distributed import (
    destroy_process_group,
    gather_rows,
    is_main_process,
    main_process_first,
)

ROWS, LENGTH, WIDTH, POOLED = 7, 4, 6, 5
SHARES = [4, 3]  # rows of two processes


class Encoder(nn.Module):
    """A small encoder from tokens to embeds and pooled embeds."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter = nn.Linear(8, 16)
        self.leave = nn.Linear(16, LENGTH * WIDTH)
        self.leave_pooled = nn.Linear(16, POOLED)
        self.double()

    def forward(self, tokens: torch.Tensor) -> AudioPromptOutput:
        hidden = torch.tanh(self.enter(tokens))
        embeds = self.leave(hidden).unflatten(1, (LENGTH, WIDTH))
        return AudioPromptOutput(embeds=embeds, pooled=self.leave_pooled(hidden))


def new_criterion() -> AlignmentLoss:
    """Return a loss with all contrastive terms, learned temperatures and squared errors."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.randn(5, LENGTH, WIDTH, generator=generator)
    pooled = torch.randn(5, POOLED, generator=generator)
    counts = torch.rand(5, LENGTH, generator=generator) + 0.5
    given = LossArguments(
        sigmoid_weight=0.2, margin_weight=0.5, learn_temperature=True, paraphrase_threshold=0.2
    )
    return AlignmentLoss(PromptEmbeds(targets, pooled), given, position_weights=counts).double()


def rows() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return tokens, targets and groups of the whole batch."""
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randn(ROWS, 8, generator=generator).double()
    return tokens, torch.arange(ROWS) % 5, torch.arange(ROWS) % 4


def step(model: nn.Module, part: slice, cached: int = 0) -> dict[str, Any]:
    """Return the loss and all gradients of a step on a part of the rows."""
    criterion = new_criterion()
    tokens, target, group = (column[part] for column in rows())
    alone = getattr(model, "no_sync", None)
    cache = GradientCache(cached)
    model.zero_grad()
    out = cache.encode(model, {"tokens": tokens}, alone) if cached else model(tokens)
    terms = criterion(*gather_rows(out.embeds, out.pooled, target, group))
    loss = torch.stack(list(terms.values())).sum()
    loss.backward()
    if cached:
        cache.replay(model, alone)
    names = [*model.named_parameters(), *criterion.named_parameters()]
    gradients = {name.removeprefix("module."): p.grad.clone() for name, p in names}
    return {"loss": loss.detach(), "terms": len(terms), "gradients": gradients}


def main(folder: Path) -> None:
    """Run a step with and without GradCache, and a training if there is a command line."""
    distributed.init_process_group("gloo")
    rank = distributed.get_rank()
    start = sum(SHARES[:rank])
    part = slice(start, start + SHARES[rank])
    model = DistributedDataParallel(Encoder())
    found = {"plain": step(model, part), "cached": step(model, part, cached=2)}
    torch.save(found, folder / f"step{rank}.pt")
    if (folder / "command.json").exists():
        from tests.helpers.launches import session

        with main_process_first():
            opened = session(json.loads((folder / "command.json").read_text()))
        opened.train()
    destroy_process_group()
    assert not distributed.is_initialized() and is_main_process()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
