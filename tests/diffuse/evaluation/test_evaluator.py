"""Evaluation of an audio adapter: rows, metrics and the command."""

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

pytestmark = pytest.mark.slow  # trains

KEYS = (
    "object_accuracy", "object_accuracy_scale0", "object_accuracy_embeds_only", "scene_accuracy",
    "text_accuracy_before", "text_accuracy_after", "mixture_both_accuracy",
    "foreground_swapped_both_accuracy", "background_swapped_both_accuracy",
    "contradictory_both_accuracy",
)  # fmt: skip


def test_other_mixture_has_a_new_source() -> None:
    pairs = [["dog", "rain"], ["rain", "dog"], ["clock tick", "rain"], ["rooster", "dog"]]
    assert _other_mixture(0, pairs, "foreground") == 2
    assert (
        _other_mixture(0, pairs, "background") == 1
        or pairs[_other_mixture(0, pairs, "background")][1] != "rain"
    )
    assert _other_mixture(3, pairs, "background") == 0


def test_other_name_differs() -> None:
    names = ["a", "b", "c"]
    found = {(name, _other_name(name, turn, names)) for name in names for turn in range(4)}
    assert len(found) == 6 and all(a != b for a, b in found)


def test_mixture_accuracy_of_both_sources() -> None:
    predictions = [SimpleNamespace(near="dog", far="rain"), SimpleNamespace(near="dog", far=None)]
    found = _mixture_figures(predictions, [["dog", "rain"], ["dog", "rain"]], "m")
    keys = ("foreground", "background", "both")
    assert [found[f"m_{key}_accuracy"].value for key in keys] == [1.0, 0.5, 0.5]


def test_select_rows_by_number_of_sources() -> None:
    labels = ["dog", "dog + rain", "rain", "clock tick", "rain + dog", "rooster"]
    generator: Any = SimpleNamespace(prepared=SimpleNamespace(kept=[0, 1, 2, 3, 4, 5]))
    pairs: Any = SimpleNamespace(labels=labels)
    evaluator = UNetEvaluator(generator, pairs, None)  # type: ignore[arg-type]
    assert evaluator.select_rows(10, 1) == [0, 2, 3, 5] and evaluator.select_rows(2, 1) == [0, 3]
    assert evaluator.select_rows(10, 2) == [1, 4] and evaluator.source_names([1]) == [
        ["dog", "rain"]
    ]


@pytest.fixture(scope="module")
def run(
    tiny_base: str, tiny_encoder: AudioPromptEncoder, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A short run on pairs whose labels the mini image classifier supports."""
    data, encoder = tmp_path_factory.mktemp("pairs"), tmp_path_factory.mktemp("encoder")
    tiny_encoder.save_pretrained(encoder)
    lines = (fill(data, 6) / "metadata.csv").read_text().splitlines()
    labels = ["dog", "rain", "dog + rain", "rain + dog", "clock tick", "rooster"]
    rows = [f"{lines[0]},prompt,scene"]
    for line, label in zip(lines[1:], labels, strict=True):
        cells = line.split(",")
        cells[3] = label
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


def test_training_writes_metrics(run: Path) -> None:
    metrics = json.loads((run / "metrics.json").read_text())
    for key in KEYS[:6]:
        assert 0 <= metrics[key] <= 1
        low, high = metrics[f"{key}_interval"]
        assert low <= metrics[key] <= high and metrics[f"{key}_n"] > 0
    assert metrics["text_accuracy_before"] == metrics["text_accuracy_after"]
    assert metrics["evaluated_on"].startswith("the training pairs")


def test_evaluate_command_all_metrics(run: Path, tmp_path: Path, capsys: Any) -> None:
    json_file, sheet = tmp_path / "f.json", tmp_path / "s.png"
    evaluate([
        str(run), "--num_images", "4", "--num_captions", "2", "--num_mixtures", "2",
        "--num_contradictory", "2", "--num_inference_steps", "2", "--num_sheet_samples", "2",
        "--num_workers", "1", "--device", "cpu", "--json", str(json_file), "--clip_model", "mini",
        "--sample_sheet", str(sheet),
    ])  # fmt: skip
    metrics = json.loads(json_file.read_text())
    assert {*KEYS, "iis", "aic"} <= set(metrics) and metrics["clip_fid"] > 0
    assert Image.open(sheet).format == "PNG"
    assert "mixture_both_accuracy" in capsys.readouterr().out


def test_evaluate_command_rejects_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="is no"):
        evaluate([str(tmp_path)])
    with pytest.raises(SystemExit):
        evaluate([str(tmp_path), "--folds", "1"])
