"""Cost and gain of the token cache: `python -m benchmarks.caching [--only PART]`.

Steps: time of a training step of a full-size adapter with tokens from disk, and with the same
tokens in memory as float32; both alternate, and the medians are reported. Backbones: time per clip
that CLAP and Wav2Vec2-BERT (published configurations, random weights) take to compute tokens, and
the time to read them.

All times are processor times, including reads from the page cache. With OMP_NUM_THREADS=1 they do
not depend on other load on the machine.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from align.cli import CommandParser

WIDTH, LENGTH = 768, 77  # Stable Diffusion 1's prompt embeds
SPACE: dict[str, Any] = {"base_model": "none", "length": LENGTH, "width": WIDTH}
ADAPTER = {"adapter_type": "resampler", "width": 256, "depth": 2, "heads": 4, "dropout": 0.0}


def _store(folder: Path, rows: int, tokens: int, width: int) -> Any:
    """Write random tokens to disk."""
    import numpy as np

    from align.preprocessing.store import Store

    store = Store(folder, {"random": [rows, tokens, width]})
    rng = np.random.default_rng(0)
    for start in range(0, rows, 32):
        block = rng.standard_normal((min(32, rows - start), tokens, width)).astype(np.float32)
        store.append([[one, np.ones(tokens, np.float32)] for one in block])
    store.finalize()
    return store


def _steps(data: Any, batch: int, seed: int) -> Iterator[float]:
    """Yield the seconds of consecutive training steps, including reading."""
    import torch

    from align.losses.functional import sequence_mse
    from align.models.heads import Heads
    from align.prompts.embeds import SpaceShape
    from align.training.datasets import EpochSampler, collate

    torch.manual_seed(seed)
    heads = Heads(data[0]["tokens"].shape[1], {"space": SpaceShape(**SPACE)}, ADAPTER)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=1e-3)
    target = torch.randn(batch, LENGTH, WIDTH)
    order = EpochSampler(data, seed)
    epoch = 0
    while True:
        order.set_epoch(epoch)
        rows = list(order)
        for start in range(0, len(rows) - batch + 1, batch):
            before = time.process_time()
            given = collate([data[row] for row in rows[start : start + batch]])
            embeds, _ = heads.for_space("space")(given["tokens"], given["tokens_mask"])
            optimizer.zero_grad()
            sequence_mse(embeds, target).backward()
            optimizer.step()
            yield time.process_time() - before
        epoch += 1


def measure_steps(rows: int, batch: int, steps: int, seed: int) -> list[tuple[str, float, float]]:
    """Measure the median seconds per step with tokens from disk and from memory.

    Args:
        rows: Number of rows.
        batch: Batch size.
        steps: Number of training steps.
        seed: Random seed.

    Returns:
        Backbone, seconds from disk, and seconds from memory.
    """
    import torch

    from align.training.datasets import TokenDataset

    found = []
    for name, tokens, width in (("CLAP, 10 s", 64, 1024), ("Wav2Vec2-BERT, 10 s", 499, 1024)):
        with tempfile.TemporaryDirectory() as folder:
            store = _store(Path(folder) / "tokens", rows, tokens, width)
            row_captions = torch.zeros(rows, dtype=torch.long), [0] * rows
            memory = [[torch.tensor(part).float() for part in row] for row in store]
            sides = [
                _steps(TokenDataset(data, *row_captions), batch, seed) for data in (store, memory)
            ]
            times = [[next(side) for side in sides] for _ in range(steps + 2)][2:]
        disk, ram = (statistics.median(column) for column in zip(*times, strict=True))
        found.append((name, disk, ram))
    return found


def _clap() -> tuple[Any, Any]:
    """Audio configuration and feature extractor of laion/larger_clap_general."""
    from transformers import ClapAudioConfig, ClapFeatureExtractor

    config = ClapAudioConfig(
        hidden_size=1024, patch_embeds_hidden_size=128, depths=[2, 2, 12, 2],
        num_attention_heads=[4, 8, 16, 32], enable_fusion=False,
    )  # fmt: skip
    return config, ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad")


def _w2v_bert() -> tuple[Any, Any]:
    """Configuration and feature extractor of facebook/w2v-bert-2.0."""
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig

    return Wav2Vec2BertConfig(), SeamlessM4TFeatureExtractor()


def _write_clips(folder: Path, count: int, duration_s: float) -> Any:
    import numpy as np
    import soundfile

    from align.data.loading import load_rows

    lines = ["file_name,caption"]
    for i in range(count):
        noise = np.random.default_rng(i).standard_normal(int(48_000 * duration_s)) * 0.1
        soundfile.write(folder / f"{i}.wav", noise, 48_000)
        lines.append(f"{i}.wav,noise {i}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return load_rows(str(folder), "train")


def _timed(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.process_time()
    found = work()
    return found, time.process_time() - start


def measure_size(
    make: Callable[[], tuple[Any, Any]], count: int, duration_s: float, seed: int
) -> dict[str, float]:
    """Measure the cost per clip of computing and of reading tokens.

    Args:
        make: Creates the configuration and the feature extractor of a backbone.
        count: Number of clips.
        duration_s: Duration of a clip in seconds.
        seed: Random seed.
    """
    import torch

    from align.models.configuration import AudioPromptConfig
    from align.models.encoder import AudioPromptEncoder
    from align.preprocessing.audio_tokens import frozen_tokens
    from align.preprocessing.cache import Cache
    from align.preprocessing.features import extract_features

    config, extractor = make()
    torch.manual_seed(seed)
    own = AudioPromptConfig(config.to_dict(), ADAPTER, {"space": SPACE})
    encoder = AudioPromptEncoder(own).eval()
    encoder.feature_extractor = extractor
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "data").mkdir()
        rows, cache = _write_clips(folder / "data", count, duration_s), Cache(folder / "cache")
        features, features_s = _timed(
            lambda: extract_features(encoder.processor, rows, cache=cache)
        )
        _, made_s = _timed(lambda: frozen_tokens(encoder, features, cache=cache))
        store, open_s = _timed(lambda: frozen_tokens(encoder, features, cache=cache))
        _, read_s = _timed(lambda: [part.astype("float32") for row in store for part in row])
        size = (store.store.folder / "values.bin").stat().st_size
    return {
        "parameters, M": sum(p.numel() for p in encoder.backbone.parameters()) / 1e6,
        "features, s": features_s / count,
        # One more clip is encoded, to estimate the size of the cache.
        "tokens, s": (made_s - open_s) / (count + 1),
        "read, s": read_s / count,
        "kB": size / count / 1e3,
        "opening, s": open_s,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print both tables."""
    parser = CommandParser("python -m benchmarks.caching", description=__doc__)
    parser.add_argument(
        "--only", choices=("steps", "clap", "w2v-bert"), help="Part to run. Defaults to all."
    )
    parser.add_argument("--rows", type=int, default=64, help="Number of rows.")
    parser.add_argument("--batch_size", type=int, default=16, help="Batch size.")
    parser.add_argument("--steps", type=int, default=10, help="Number of training steps.")
    parser.add_argument("--num_clips", type=int, default=2, help="Number of clips per backbone.")
    parser.add_argument("--duration_s", type=float, default=10.0, help="Clip length in seconds.")
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    options = parser.parse_args(arguments)
    if options.only in (None, "steps"):
        print(f"{'tokens of':<22} {'from disk, s':>12} {'in memory, s':>12} {'ratio':>7}")
        given = options.rows, options.batch_size, options.steps, options.seed
        for name, disk, ram in measure_steps(*given):
            print(f"{name:<22} {disk:12.4f} {ram:12.4f} {disk / ram:7.3f}", flush=True)
    for name, make in (("clap", _clap), ("w2v-bert", _w2v_bert)):
        if options.only in (None, name):
            figures = measure_size(make, options.num_clips, options.duration_s, options.seed)
            print(f"{name}: " + ", ".join(f"{k} {v:.4g}" for k, v in figures.items()), flush=True)


if __name__ == "__main__":
    main()
