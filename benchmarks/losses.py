"""Precision and memory of InfoNCE over sequences and of GradCache: `python -m benchmarks.losses`.

Prints three Markdown tables: differences of loss and gradients from audio2img's formula; peak
memory of a forward and backward pass at B = 64, T = 76, D = 768; and the memory that the `mini`
encoder keeps for its backward pass at batch sizes from 64 to 1,024, with and without GradCache.
Memory is measured in separate processes, above what the process held before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from align.cli import CommandParser
from benchmarks.memory import MIB, SavedTensorCounter, peak_above

BATCH, POSITIONS, WIDTH, TEMPERATURE = 64, 76, 768, 0.15


def plain(embeds1: Any, embeds2: Any) -> Any:
    """Compute audio2img's loss as in its README: cosines through a (B, B, T, D) tensor.

    Args:
        embeds1: Embeds (B, T, D).
        embeds2: Embeds (B, T, D).
    """
    import torch

    similarity = torch.cosine_similarity(embeds1.unsqueeze(1), embeds2.unsqueeze(0), dim=-1)
    labels = torch.arange(len(embeds1)).unsqueeze(1).repeat(1, embeds1.shape[1])
    return torch.nn.functional.cross_entropy(similarity / TEMPERATURE, labels)


def ours(embeds1: Any, embeds2: Any) -> Any:
    """Compute the same loss with `align.losses.functional`.

    Args:
        embeds1: Embeds (B, T, D).
        embeds2: Embeds (B, T, D).
    """
    import torch

    from align.losses.functional import same_group, sequence_info_nce

    alone = same_group(torch.arange(len(embeds1)))
    return sequence_info_nce(embeds1, embeds2, alone, TEMPERATURE, "audio_to_text")


def sequences(rows: int, width: int, dtype: Any, seed: int) -> list[Any]:
    """Create two random embeds that require gradients.

    Args:
        rows: Batch size.
        width: Dimension of the embeds.
        dtype: Data type.
        seed: Random seed.
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape = rows, POSITIONS, width
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(2)]


def equality(seed: int) -> list[str]:
    """Measure relative differences of loss and gradients from audio2img's formula in float64.

    Args:
        seed: Random seed.
    """
    import torch

    head = "| precision | loss | gradient of audio embeds | gradient of text embeds |"
    lines = [head, "|---|---|---|---|"]
    exact = sequences(16, WIDTH, torch.float64, seed)
    expected = plain(*exact)
    expected_grads = torch.autograd.grad(expected, exact)
    for dtype, name in ((torch.float64, "fp64"), (torch.float32, "fp32")):
        pair = sequences(16, WIDTH, dtype, seed)
        loss = ours(*pair)
        found = torch.autograd.grad(loss, pair)
        differences = [abs(loss.item() - expected.item()) / expected.item()]
        pairs = zip(found, expected_grads, strict=True)
        differences += [((f - r).norm() / r.norm()).item() for f, r in pairs]
        lines.append(f"| {name} | " + " | ".join(f"{d:.1e}" for d in differences) + " |")
    return lines


def loss_memory(which: str, batch: int, seed: int) -> dict[str, float]:
    """Measure peak memory and seconds of a forward and backward pass of a loss.

    Args:
        which: "plain" or "ours".
        batch: Batch size.
        seed: Random seed.
    """
    import torch

    formula = {"plain": plain, "ours": ours}[which]
    formula(*sequences(2, 8, torch.float32, seed)).backward()  # warm-up
    pair = sequences(batch, WIDTH, torch.float32, seed)
    start = time.perf_counter()
    peak = peak_above(lambda: formula(*pair).backward())
    return {"mib": peak, "seconds": time.perf_counter() - start}


def encoder_memory(rows: int, batch: int, seed: int) -> dict[str, float]:
    """Measure the memory of a training step of the `mini` encoder.

    Args:
        rows: Rows per chunk of GradCache; 0 disables it.
        batch: Batch size.
        seed: Random seed of the features.

    Returns:
        MiB kept for the backward pass, MiB at the peak, MiB of the embeds, and seconds.
    """
    import torch

    from align.losses.functional import same_group, sequence_info_nce
    from align.losses.gradient_cache import GradientCache

    encoder = _mini_encoder()
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, 1, *_window(encoder), generator=generator)
    inputs = {"features": features, "features_mask": torch.ones(features.shape[:3]).bool()}
    target = torch.randn(batch, *_space(encoder), generator=generator)
    kept = SavedTensorCounter([*encoder.parameters(), *inputs.values()])
    groups = same_group(torch.arange(batch))
    cache = GradientCache(rows)
    forward = encoder.forward

    def counted(**part: Any) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda held: held.tensor):
            return forward(**part)

    encoder.forward = counted

    def step() -> None:
        out: Any = cache.encode(encoder, inputs) if rows else encoder(**inputs)
        sequence_info_nce(out.embeds, target, groups).backward()
        if rows:
            cache.replay(encoder)

    start = time.perf_counter()
    peak = peak_above(step)
    seconds = time.perf_counter() - start
    embeds = target.numel() * 4 / MIB
    return {"kept": kept.peak / MIB, "mib": peak, "embeds": embeds, "seconds": seconds}


def _mini_encoder() -> Any:
    from align.models.encoder import AudioPromptEncoder
    from align.prompts.embeds import SpaceShape
    from align.registry import BACKBONES, lookup

    sizes = {"adapter_type": "resampler", "width": 64, "depth": 2, "heads": 4, "dropout": 0.0}
    shapes = {"mini": SpaceShape("mini", 77, 128)}
    backbone = lookup(BACKBONES, "mini-clap")
    encoder = AudioPromptEncoder.from_backbone(backbone, sizes, shapes)
    return encoder.train()


def _window(encoder: Any) -> tuple[int, int]:
    """Frames and bins of the features of one second of noise."""
    import numpy as np

    rate = encoder.feature_extractor.sampling_rate
    noise = np.random.default_rng(0).normal(0, 0.1, rate).astype(np.float32)
    return tuple(encoder.processor.extract_features(noise, rate)[0].shape)


def _space(encoder: Any) -> tuple[int, int]:
    space = encoder.head().space
    return space.length, space.width


def _measured(*arguments: object) -> dict[str, float]:
    """Measure in a separate process."""
    line = [sys.executable, "-m", "benchmarks.losses", "--one", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def memory_table(seed: int) -> list[str]:
    """Format the peak memory of both losses as a table.

    Args:
        seed: Random seed.
    """
    plain_run, own_run = (_measured("loss", which, BATCH, seed) for which in ("plain", "ours"))
    lines = ["| loss | peak, MiB | seconds |", "|---|---|---|"]
    lines += [
        f"| {n} | {m['mib']:,.0f} | {m['seconds']:.1f} |"
        for n, m in (("audio2img's formula", plain_run), ("align.losses.functional", own_run))
    ]
    ratios = {key: plain_run[key] / own_run[key] for key in ("mib", "seconds")}
    return [*lines, f"| ratio | {ratios['mib']:.0f} | {ratios['seconds']:.1f} |"]


def cache_table(batches: Sequence[int], rows: int, most: int, seed: int) -> list[str]:
    """Format the memory of the encoder with and without GradCache as a table.

    Args:
        batches: Batch sizes.
        rows: Rows per chunk of GradCache.
        most: Largest batch size without GradCache.
        seed: Random seed.
    """
    heads = (
        "batch", "plain: kept, MiB", "GradCache: kept, MiB", "ratio to the first batch",
        "GradCache: peak of the step, MiB", "one copy of the embeds, MiB",
        "time, GradCache / plain",
    )  # fmt: skip
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    first = None
    for batch in batches:
        cached = _measured("encoder", rows, batch, seed)
        first = first or cached["kept"]
        whole, slower = "not run", "–"
        if batch <= most:
            plain = _measured("encoder", 0, batch, seed)
            whole, slower = f"{plain['kept']:,.0f}", f"{cached['seconds'] / plain['seconds']:.2f}"
        cells = (
            f"{batch:,}", whole, f"{cached['kept']:,.1f}", f"{cached['kept'] / first:.3f}",
            f"{cached['mib']:,.0f}", f"{cached['embeds']:,.1f}", slower,
        )  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables; a child process prints one measurement."""
    parser = CommandParser("python -m benchmarks.losses", description=__doc__)
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[64, 256, 1024], help="Batch sizes."
    )
    parser.add_argument("--rows", type=int, default=32, help="Rows per chunk of GradCache.")
    parser.add_argument(
        "--plain_up_to", type=int, default=256, help="Largest batch size without GradCache."
    )
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        kind, what, batch, seed = options.one
        given = (what, int(batch), int(seed)) if kind == "loss" else map(int, options.one[1:])
        measures: dict[str, Any] = {"loss": loss_memory, "encoder": encoder_memory}
        print(json.dumps(measures[kind](*given)))
        return
    print(f"Differences from audio2img's formula in fp64 (B = 16, T = {POSITIONS}, D = {WIDTH}):\n")
    print("\n".join(equality(options.seed)), flush=True)
    print(f"\nForward and backward at B = {BATCH}, T = {POSITIONS}, D = {WIDTH}, fp32:\n")
    print("\n".join(memory_table(options.seed)), flush=True)
    print(f"\nThe mini encoder, all parameters trained, {options.rows} rows per chunk:\n")
    print("\n".join(cache_table(options.batches, options.rows, options.plain_up_to, options.seed)))


if __name__ == "__main__":
    main()
