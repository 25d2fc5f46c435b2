"""The sequence loss and the gradient cache, measured: `python -m benchmarks.losses`.

Prints three tables in Markdown: how equal loss and gradients are to audio2img's plain formula; the
peak memory of a forward and backward pass at B = 64, T = 76, D = 768; and what the miniature's
encoder keeps for its backward pass from batch 64 to 1,024, with and without the cache. Every
memory figure is taken in a process of its own, above what that process held just before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.memory import MIB, SavedTensorCounter, peak_above

BATCH, POSITIONS, WIDTH, TEMPERATURE = 64, 76, 768, 0.15


def plain(embeds1: Any, embeds2: Any) -> Any:
    """audio2img's loss as its README has it: cosines through a (B, B, T, D) tensor."""
    import torch

    similarity = torch.cosine_similarity(embeds1.unsqueeze(1), embeds2.unsqueeze(0), dim=-1)
    labels = torch.arange(len(embeds1)).unsqueeze(1).repeat(1, embeds1.shape[1])
    return torch.nn.functional.cross_entropy(similarity / TEMPERATURE, labels)


def ours(embeds1: Any, embeds2: Any) -> Any:
    """The same by `align.losses.functional`."""
    import torch

    from align.losses.functional import same_group, sequence_info_nce

    alone = same_group(torch.arange(len(embeds1)))
    return sequence_info_nce(embeds1, embeds2, alone, TEMPERATURE, "audio_to_text")


def sequences(rows: int, width: int, dtype: Any, seed: int) -> list[Any]:
    """Two sets of embeds that ask for gradients."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    shape = rows, POSITIONS, width
    return [torch.randn(shape, generator=generator).to(dtype).requires_grad_() for _ in range(2)]


def equality(seed: int) -> list[str]:
    """Largest relative differences of loss and gradients from the plain formula in float64."""
    import torch

    lines = ["| precision | loss | gradient of sound | gradient of text |", "|---|---|---|---|"]
    exact = sequences(16, WIDTH, torch.float64, seed)
    wanted = plain(*exact)
    right = torch.autograd.grad(wanted, exact)
    for dtype, name in ((torch.float64, "fp64"), (torch.float32, "fp32")):
        pair = sequences(16, WIDTH, dtype, seed)
        loss = ours(*pair)
        found = torch.autograd.grad(loss, pair)
        differences = [abs(loss.item() - wanted.item()) / wanted.item()]
        pairs = zip(found, right, strict=True)
        differences += [((f - r).norm() / r.norm()).item() for f, r in pairs]
        lines.append(f"| {name} | " + " | ".join(f"{d:.1e}" for d in differences) + " |")
    return lines


def loss_memory(which: str, batch: int, seed: int) -> dict[str, float]:
    """Peak memory and seconds of one loss, forward and backward."""
    import torch

    formula = {"plain": plain, "ours": ours}[which]
    formula(*sequences(2, 8, torch.float32, seed)).backward()  # what is loaded once
    pair = sequences(batch, WIDTH, torch.float32, seed)
    start = time.perf_counter()
    peak = peak_above(lambda: formula(*pair).backward())
    return {"mib": peak, "seconds": time.perf_counter() - start}


def encoder_memory(rows: int, batch: int, seed: int) -> dict[str, float]:
    """What a step of the miniature's encoder keeps, its peak memory, and the embeds alone.

    Args:
        rows: of the gradient cache; 0 for a plain step.
        batch: recordings.
        seed: of the features.
    """
    import torch

    from align.losses.functional import same_group, sequence_info_nce
    from align.losses.gradient_cache import GradientCache

    encoder = _mini_encoder()
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(batch, 1, *_window(encoder), generator=generator)
    inputs = {"features": features, "features_mask": torch.ones(features.shape[:3]).bool()}
    target = torch.randn(batch, *_space(encoder), generator=generator)
    kept, groups = (
        SavedTensorCounter([*encoder.parameters(), *inputs.values()]),
        same_group(torch.arange(batch)),
    )
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
    """Frames and bins of the window that the extractor makes of a second of noise."""
    import numpy as np

    rate = encoder.feature_extractor.sampling_rate
    noise = np.random.default_rng(0).normal(0, 0.1, rate).astype(np.float32)
    return tuple(encoder.processor.extract_features(noise, rate)[0].shape)


def _space(encoder: Any) -> tuple[int, int]:
    space = encoder.head().space
    return space.length, space.width


def _measured(*arguments: object) -> dict[str, float]:
    """One figure's process."""
    line = [sys.executable, "-m", "benchmarks.losses", "--one", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def memory_table(seed: int) -> list[str]:
    """The plain formula's peak beside ours."""
    there, here = (_measured("loss", which, BATCH, seed) for which in ("plain", "ours"))
    lines = ["| loss | peak, MiB | seconds |", "|---|---|---|"]
    lines += [
        f"| {n} | {m['mib']:,.0f} | {m['seconds']:.1f} |"
        for n, m in (("plain formula", there), ("align.losses.functional", here))
    ]
    return [
        *lines,
        f"| ratio | {there['mib'] / here['mib']:.0f} | {there['seconds'] / here['seconds']:.1f} |",
    ]


def cache_table(batches: Sequence[int], rows: int, most: int, seed: int) -> list[str]:
    """What the encoder keeps, by batch, plain and cached; ratios are to the smallest batch."""
    heads = (
        "batch", "plain: kept, MiB", "cached: kept, MiB", "ratio to the first",
        "cached: peak of the step, MiB", "one copy of the embeds, MiB", "cached to plain, seconds",
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
    """Prints the tables; or, called by itself, one figure."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.losses", description=__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--rows", type=int, default=32, help="of the gradient cache")
    parser.add_argument("--plain_up_to", type=int, default=256, help="batch of a step without it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        kind, what, batch, seed = options.one
        given = (what, int(batch), int(seed)) if kind == "loss" else map(int, options.one[1:])
        measures: dict[str, Any] = {"loss": loss_memory, "encoder": encoder_memory}
        print(json.dumps(measures[kind](*given)))
        return
    print(f"Differences from the plain formula in fp64 (B = 16, T = {POSITIONS}, D = {WIDTH}):\n")
    print("\n".join(equality(options.seed)), flush=True)
    print(f"\nForward and backward at B = {BATCH}, T = {POSITIONS}, D = {WIDTH}, fp32:\n")
    print("\n".join(memory_table(options.seed)), flush=True)
    print(f"\nThe miniature's encoder, all of it training, {options.rows} rows at a time:\n")
    print("\n".join(cache_table(options.batches, options.rows, options.plain_up_to, options.seed)))


if __name__ == "__main__":
    main()
