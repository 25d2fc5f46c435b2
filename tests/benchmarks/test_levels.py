"""The benchmark of levels: that its variants differ, what it runs, and its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import levels
from diffuse.config.options import parse_options
from diffuse.models.levels import ROUTINGS


def test_every_variant_is_another_valid_command() -> None:
    read = {n: parse_options("x", list(flags)) for n, flags in levels.VARIANTS.items()}
    told = {name: repr(options) for name, options in read.items()}
    assert len(set(told.values())) == len(told) > len(ROUTINGS)


def test_a_variant_is_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    shares = dict.fromkeys(levels.FIGURES, 0.5)
    figures = shares | {f"{name}_interval": [0.4, 0.6] for name in levels.FIGURES}

    def train(line: list[str]) -> None:
        ran.append("train")
        Path(line[line.index("--output_dir") + 1]).mkdir(parents=True)

    def evaluate(line: list[str]) -> None:
        ran.append("evaluate")
        Path(line[line.index("--json") + 1]).write_text(json.dumps(figures))

    monkeypatch.setattr("diffuse.train.main", train)
    monkeypatch.setattr("diffuse.evaluate.main", evaluate)
    line = ["--out", str(tmp_path), "--variants", "default"]
    levels.main(line)
    levels.main(line)
    assert ran == ["train", "evaluate"]
    with pytest.raises(SystemExit, match="other options"):
        levels.main([*line, "--num_images", "7"])


def test_the_table_states_every_figure() -> None:
    run = dict.fromkeys(levels.FIGURES, 0.25)
    lines = levels.as_table(
        {"reverse": run | {f"{name}_interval": [0.1, 0.4] for name in levels.FIGURES}}
    ).splitlines()
    assert lines[2].startswith("| reverse | 25% [10%, 40%] |")
    assert {line.count("|") for line in lines} == {len(levels.FIGURES) + 2}
