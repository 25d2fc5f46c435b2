"""Two processes give the same loss, gradients and run as one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from align.training.datasets import EpochSampler
from align.training.distributed import (
    RankBatchSampler,
    barrier,
    gather_rows,
    is_main_process,
    main_process_first,
    rank_slice,
)
from tests.helpers.launches import assert_same_weights, command, session, weights
from tests.helpers.rank_worker import ROWS, Encoder, step

ROOT = Path(__file__).parents[3]


def test_rank_slices_are_even_and_cover_every_row() -> None:
    for count in range(1, 12):
        rows = list(range(count))
        for ranks in (1, 2, 3, 5):
            shares = [rank_slice(rows, rank, ranks) for rank in range(ranks)]
            assert [row for share in shares for row in share] == rows
            sizes = [len(share) for share in shares]
            assert max(sizes) - min(sizes) <= 1 and sizes == sorted(sizes, reverse=True)


def test_rank_batches_are_parts_of_the_global_batches() -> None:
    order = EpochSampler(range(11), seed=3)
    whole = list(RankBatchSampler(order, 4))
    assert [len(batch) for batch in whole] == [4, 4, 3]
    parts = []
    for rank in range(2):
        mine = RankBatchSampler(order, 4)
        mine._rank, mine._world_size = rank, 2
        parts.append(list(mine))
        assert len(mine) == 3
    assert [one + other for one, other in zip(*parts, strict=True)] == whole


def test_rank_without_a_row_repeats_the_first() -> None:
    second = RankBatchSampler(EpochSampler(range(9), seed=0), 4)
    second._rank, second._world_size = 1, 2
    order = list(EpochSampler(range(9), seed=0))
    assert list(second) == [order[2:4], order[6:8], order[8:]]


def test_one_process_needs_no_communication() -> None:
    rows = torch.ones(3, 2), None, torch.arange(3)
    assert all(one is other for one, other in zip(gather_rows(*rows), rows, strict=True))
    with main_process_first():
        barrier()
    assert is_main_process()


def torchrun(*arguments: str) -> str:
    """Run two processes and return their output."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone"),
            *("--nproc_per_node", "2", *arguments),
        ],
        cwd=ROOT, capture_output=True, text=True, timeout=400,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_processes_match_one(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    more = (
        *("--adapter_dropout", "0", "--optim", "sgd", "--learning_rate", "0.05"),
        *("--max_grad_norm", "0.5", "--learn_temperature", "true"),
    )
    line = command(tiny_base, tiny_clap, sound_folder, tmp_path / "two", *more)
    line += ["--per_device_train_batch_size", "4"]
    (tmp_path / "command.json").write_text(json.dumps(line))
    torchrun("tests/helpers/rank_worker.py", str(tmp_path))

    wanted = step(Encoder(), slice(0, ROWS))
    assert wanted["terms"] == 5 and len(wanted["gradients"]) == 9
    for rank in range(2):
        found = torch.load(tmp_path / f"step{rank}.pt")
        for way in ("plain", "cached"):
            torch.testing.assert_close(found[way]["loss"], wanted["loss"], rtol=1e-10, atol=0)
            assert set(found[way]["gradients"]) == set(wanted["gradients"])
            for name, gradient in wanted["gradients"].items():
                assert gradient.abs().max() > 1e-4
                torch.testing.assert_close(
                    found[way]["gradients"][name], gradient, rtol=1e-9, atol=1e-12
                )
    alone = step(Encoder(), slice(0, 4))  # a process with only its own rows
    assert abs(alone["loss"] - wanted["loss"]) > 0.01

    # Two processes with batches of 4 rows match one process with batches of 8.
    one = command(tiny_base, tiny_clap, sound_folder, tmp_path / "one", *more)
    before = session([*one, "--per_device_train_batch_size", "8"])
    start = {name: value.clone() for name, value in before.encoder.state_dict().items()}
    before.train()
    first, second = weights(tmp_path / "one"), weights(tmp_path / "two")
    moved = [name for name in start if not torch.equal(first[name], start[name])]
    assert set(first) == set(second) and len(moved) > 20
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-4, atol=2e-6)


@pytest.mark.slow
def test_run_of_two_processes_resumes(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    more = (
        *("--per_device_train_batch_size", "2", "--save_strategy", "epoch"),
        *("--num_sheet_samples", "2"),
        *("--eval_strategy", "epoch", "--adapter_dropout", "0.3", "--num_train_epochs", "3"),
        *("--folds", "1", "2", "--eval_folds", "3", "--sample_every_eval", "true"),
        *("--save_total_limit", "3", "--cache_dir", str(tmp_path / "cache")),
    )
    printed = torchrun(
        "-m", "align.train", *command(tiny_base, tiny_clap, sound_folder, whole, *more)
    )
    assert printed.count(f"The encoder is in {whole}") == 1
    assert printed.count("'loss'") == 9 and printed.count("'eval_loss'") == 3
    steps = sorted(path.name for path in whole.glob("checkpoint-*"))
    assert steps == ["checkpoint-3", "checkpoint-6", "checkpoint-9"]
    for name in steps:
        there = {path.name for path in (whole / name).iterdir()}
        assert {"model.safetensors", "rng_state_0.pth", "rng_state_1.pth", "run.json"} <= there
    assert (whole / "samples.png").exists() and (whole / "metrics.json").exists()

    broken.mkdir()
    shutil.copytree(whole / "checkpoint-6", broken / "checkpoint-6")
    printed = torchrun(
        "-m", "align.train", *command(tiny_base, tiny_clap, sound_folder, broken, *more)
    )
    assert printed.count(f"resuming from {broken / 'checkpoint-6'}") == 1
    assert printed.count("'loss'") == 3
    assert_same_weights(whole, broken)
    later = weights(whole / "checkpoint-9")
    assert any(
        not torch.equal(tensor, later[n]) for n, tensor in weights(whole / "checkpoint-6").items()
    )
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (whole, broken)]
    assert metrics[0] == metrics[1]
