"""The level benchmark: its variants, runs and table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import levels
from diffuse.config.options import parse_options
from diffuse.models.levels import ROUTINGS


def test_variants_are_valid_and_different() -> None:
    read = {n: parse_options("x", list(flags)) for n, flags in levels.VARIANTS.items()}
    shown = {name: repr(options) for name, options in read.items()}
    assert len(set(shown.values())) == len(shown) > len(ROUTINGS)


def test_finished_variant_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    line = ["--output_dir", str(tmp_path), "--variants", "default"]
    levels.main(line)
    levels.main(line)
    assert ran == ["train", "evaluate"]
    with pytest.raises(SystemExit, match="other options"):
        levels.main([*line, "--num_images", "7"])


def test_as_table_has_all_metrics() -> None:
    run = dict.fromkeys(levels.FIGURES, 0.25)
    lines = levels.as_table(
        {"reverse": run | {f"{name}_interval": [0.1, 0.4] for name in levels.FIGURES}}
    ).splitlines()
    assert lines[2].startswith("| reverse | 25% [10%, 40%] |")
    assert {line.count("|") for line in lines} == {len(levels.FIGURES) + 2}
