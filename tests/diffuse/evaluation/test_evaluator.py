"""Figures of an adapter: which rows are drawn, what counts as right, and the whole command."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from align.models.encoder import AudioPromptEncoder
from diffuse.evaluate import main as evaluate
from diffuse.evaluation.evaluator import (
    UNetEvaluator,
    _mixture_figures,
    _other_mixture,
    _other_name,
)
from diffuse.train import main as train
from tests.helpers.adapter_runs import command, fill

pytestmark = pytest.mark.slow  # trainings, or an app that is started

KEYS = (
    "object_accuracy", "object_accuracy_scale0", "object_accuracy_embeds_only", "scene_accuracy",
    "text_accuracy_before", "text_accuracy_after", "mixture_both_accuracy", "foreground_swapped_both",
    "background_swapped_both_accuracy", "contradictory_both_accuracy",
)  # fmt: skip


def test_a_level_is_swapped_for_a_thing_that_is_not_there() -> None:
    pairs = [["dog", "rain"], ["rain", "dog"], ["clock tick", "rain"], ["rooster", "dog"]]
    assert _other_mixture(0, pairs, "foreground") == 2
    assert (
        _other_mixture(0, pairs, "background") == 1
        or pairs[_other_mixture(0, pairs, "background")][1] != "rain"
    )
    assert _other_mixture(3, pairs, "background") == 0


def test_another_name_is_never_the_same() -> None:
    names = ["a", "b", "c"]
    found = {(name, _other_name(name, turn, names)) for name in names for turn in range(4)}
    assert len(found) == 6 and all(a != b for a, b in found)


def test_a_mixture_is_right_where_both_things_are() -> None:
    seen = [SimpleNamespace(near="dog", far="rain"), SimpleNamespace(near="dog", far=None)]
    found = _mixture_figures(seen, [["dog", "rain"], ["dog", "rain"]], "m")
    assert [found[f"m_{k}"].value for k in ("front", "background_only", "both")] == [1.0, 0.5, 0.5]


def test_rows_are_spread_over_those_that_name_so_many_things() -> None:
    labels = ["dog", "dog + rain", "rain", "clock tick", "rain + dog", "rooster"]
    drawing: Any = SimpleNamespace(prepared=SimpleNamespace(kept=[0, 1, 2, 3, 4, 5]))
    pairs: Any = SimpleNamespace(labels=labels)
    seen = UNetEvaluator(drawing, pairs, None)  # type: ignore[arg-type]
    assert seen.select_rows(10, 1) == [0, 2, 3, 5] and seen.select_rows(2, 1) == [0, 3]
    assert seen.select_rows(10, 2) == [1, 4] and seen.source_names([1]) == [["dog", "rain"]]


@pytest.fixture(scope="module")
def run(
    tiny_base: str, tiny_encoder: AudioPromptEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A short run on pairs whose labels the miniature's judge knows."""
    data, encoder = tmp_path_factory.mktemp("pairs"), tmp_path_factory.mktemp("encoder")
    tiny_encoder.save_pretrained(encoder)
    lines = (fill(data, 6) / "metadata.csv").read_text().splitlines()
    things = ["dog", "rain", "dog + rain", "rain + dog", "clock tick", "rooster"]
    rows = [f"{lines[0]},prompt,scene"]
    for line, thing in zip(lines[1:], things, strict=True):
        cells = line.split(",")
        cells[3] = thing
        rows.append(",".join([*cells, "a picture at night", "night"]))
    (data / "metadata.csv").write_text("\n".join(rows) + "\n")
    folder = tmp_path_factory.mktemp("run")
    more = (
        "--image_classifier",
        "mini",
        "--num_images",
        "3",
        "--warmup_steps",
        "0",
        "--learning_rate",
        "0.1",
    )
    train(command(tiny_base, encoder, data, folder, *more))
    return folder


def test_training_ends_with_figures(run: Path) -> None:
    figures = json.loads((run / "metrics.json").read_text())
    for key in KEYS[:6]:
        assert 0 <= figures[key] <= 1
        low, high = figures[f"{key}_interval"]
        assert low <= figures[key] <= high and figures[f"{key}_n"] > 0
    assert figures["text_accuracy_before"] == figures["text_accuracy_after"]
    assert figures["evaluated_on"].startswith("the training pairs themselves")


def test_the_command_measures_everything(run: Path, tmp_path: Path, capsys: Any) -> None:
    told, sheet = tmp_path / "f.json", tmp_path / "s.png"
    evaluate([str(run), "--num_images", "4", "--num_captions", "2", "--num_mixtures", "2", "--num_contradictory", "2",
              "--num_inference_steps", "2", "--num_sheet_samples", "2", "--num_workers", "1", "--device", "cpu",
              "--json", str(told),
              "--clip_model", "mini",
              "--sample_sheet", str(sheet)])  # fmt: skip
    figures = json.loads(told.read_text())
    assert {*KEYS, "iis", "aic"} <= set(figures) and figures["fid"] > 0
    assert Image.open(sheet).format == "PNG"
    assert "mixture_both_accuracy" in capsys.readouterr().out


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is no run: give a folder"):
        evaluate([str(tmp_path)])
    with pytest.raises(SystemExit):
        evaluate([str(tmp_path), "--folds", "1"])
