"""Memory and time of targets: `OMP_NUM_THREADS=1 python -m benchmarks.targets [--captions N]`.

Stores random embeds of 77 x 768 in float16 on disk, larger than the limit for targets in memory.
Both modes run in separate processes: targets computed per batch from the memory-mapped file, and
all targets in memory as float32. Prints the anonymous memory (without the reclaimable pages of the
file) and the processor time of the targets of a batch and of a training step without them.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from align.cli import CommandParser
from benchmarks.caching import ADAPTER, LENGTH, SPACE, WIDTH
from benchmarks.memory import anonymous_peak, resident

MODES = ("memory-mapped", "in memory")
BATCHES = 10
GIB = 2**30


def write_table(path: Path, captions: int, seed: int) -> None:
    """Write random embeds (captions, LENGTH, WIDTH) in float16.

    Args:
        path: Output file.
        captions: Number of captions.
        seed: Random seed.
    """
    table = np.lib.format.open_memmap(path, "w+", np.float16, (captions, LENGTH, WIDTH))
    rng = np.random.default_rng(seed)
    for start in range(0, captions, 100):
        block = table[start : start + 100]
        block[:] = rng.standard_normal(block.shape, np.float32)
    table.flush()


def measure(mode: str, path: Path, batch: int, seed: int) -> dict[str, float]:
    """Measure memory and time of the targets.

    Args:
        mode: One of `MODES`.
        path: File of `write_table`.
        batch: Batch size.
        seed: Random seed.

    Returns:
        GiB at the peak and held, seconds of the targets of a batch and of a step without them.
    """
    import torch

    import align.preprocessing.text_embeds
    from align.losses.functional import sequence_mse
    from align.models.heads import Heads
    from align.prompts.embeds import EmbedStatistics, SpaceShape

    torch.manual_seed(seed)
    shape = LENGTH, WIDTH
    space = EmbedStatistics(
        torch.zeros(shape), torch.ones(shape), torch.zeros(shape, dtype=torch.bool)
    )
    align.preprocessing.text_embeds.MAX_IN_MEMORY_BYTES = (1 << 62) if mode == "in memory" else 0
    heads = Heads(1024, {"space": SpaceShape(**SPACE)}, ADAPTER)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=1e-3)
    tokens, mask = torch.randn(batch, 64, 1024), torch.ones(batch, 64, dtype=torch.bool)
    before = resident("RssAnon")

    def opened() -> Any:
        rows = torch.from_numpy(np.load(path, mmap_mode="c"))
        return align.preprocessing.text_embeds.standardized_targets(rows, space)

    found, peak = anonymous_peak(opened)
    held = resident("RssAnon")
    lookups, steps = [], []
    for _ in range(BATCHES + 2):
        which = torch.randint(len(found), (batch,))
        start = time.process_time()
        target = found[which]
        loaded = time.process_time()
        optimizer.zero_grad()
        sequence_mse(heads.for_space("space")(tokens, mask)[0], target).backward()
        optimizer.step()
        lookups.append(loaded - start)
        steps.append(time.process_time() - loaded)
    medians = [statistics.median(values[2:]) for values in (lookups, steps)]
    gib = [(value - before) / GIB for value in (max(peak, held), held)]
    return dict(zip(("peak", "held", "targets", "step"), [*gib, *medians], strict=True))


def measure_in_process(mode: str, path: Path, batch: int, seed: int) -> dict[str, float]:
    """Run `measure` in a separate process, because released memory would be reused.

    Args:
        mode: One of `MODES`.
        path: File of `write_table`.
        batch: Batch size.
        seed: Random seed.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(measure, mode, path, batch, seed).result()


def as_table(found: dict[str, dict[str, float]]) -> str:
    """Format the measurements as a Markdown table.

    Args:
        found: Measurements by mode.
    """
    lines = [
        "| targets | peak | held | targets of a batch | step without targets | total, ratio |",
        "|---|---|---|---|---|---|",
    ]
    whole = {mode: one["targets"] + one["step"] for mode, one in found.items()}
    for mode, one in found.items():
        lines.append(
            f"| {mode} | {one['peak']:.2f} GiB | {one['held']:.2f} GiB | {one['targets']:.4f} s | "
            f"{one['step']:.4f} s | {whole[mode] / whole['in memory']:.3f} |"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure both modes and print the table."""
    parser = CommandParser("python -m benchmarks.targets", description=__doc__)
    parser.add_argument("--captions", type=int, default=6000, help="Number of different captions.")
    parser.add_argument("--batch_size", type=int, default=16, help="Batch size.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    options = parser.parse_args(arguments)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "embeds.npy"
        write_table(path, options.captions, options.seed)
        for mode in MODES:
            found[mode] = measure_in_process(mode, path, options.batch_size, options.seed)
    print(f"{options.captions} captions, seed {options.seed}")
    print(as_table(found))


if __name__ == "__main__":
    main()
