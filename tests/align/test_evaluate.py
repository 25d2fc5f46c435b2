"""Rows of `align.evaluate`: how they are read, and whether they were trained on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from datasets import Dataset
from soundfile import write

from align import evaluate
from align.config.arguments import DataArguments
from align.data.splits import load_eval_dataset
from tests.conftest import RATE, tone
from tests.helpers import hub_tables

TRAINED = " (trained on, in part or whole)"


def evaluation_rows(data: DataArguments, *words: str) -> tuple[Dataset, str]:
    """Return the rows that a command line evaluates a run on, and their description."""
    return evaluate._rows(evaluate._arguments(["run", *words]), asdict(data))


def test_dataset_of_the_run_has_the_same_options(tmp_path: Path) -> None:
    name = f"fsd50k@{hub_tables.fsd50k(tmp_path)}"
    own = DataArguments(dataset=name, licenses=["cc0"], caption_template="the sound of {}")
    for words in (
        (),
        ("--dataset", name, "--licenses", "cc0", "--caption_template", "the sound of {}"),
    ):
        rows, name_ = evaluation_rows(own, *words)
        assert list(rows["caption"]) == ["the sound of bark, dog"]
        assert name_.startswith(name) and not name_.endswith(TRAINED)
    rows, _ = evaluation_rows(own, "--dataset", name)
    assert len(rows) == 2 and rows["caption"][0] == "bark, dog"


def test_folds_of_the_run_are_the_training_folds(tmp_path: Path) -> None:
    name = f"esc50@{hub_tables.esc50(tmp_path)}"
    own = DataArguments(dataset=name, folds=[1, 2], eval_folds=[3], caption_template="a {}")
    for words, folds, seen in (
        ((), "3", False),
        (("--folds", "3"), "3", False),
        (("--folds", "1"), "1", True),
        (("--dataset", name, "--folds", "2", "3"), "2, 3", True),
        (("--dataset", name), "", True),
    ):
        rows, name_ = evaluation_rows(own, *words)
        assert len(rows) == (3 * len(folds.split(",")) if folds else 9)
        assert name_.endswith(TRAINED) == seen, name_
        assert not folds or f"folds {folds}" in name_
        if "--dataset" not in words:
            assert rows["caption"][0] == "a dog"


def test_test_split_was_not_trained_on(tmp_path: Path) -> None:
    name = f"fsd50k@{hub_tables.fsd50k(tmp_path)}"
    own = DataArguments(dataset=name)
    assert not evaluation_rows(own, "--dataset", name)[1].endswith(TRAINED)
    assert evaluation_rows(own, "--dataset", name, "--split", "train")[1].endswith(TRAINED)


def test_split_without_dataset_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate._arguments(["run", "--split", "validation"])
    assert "--split is the split of --dataset" in capsys.readouterr().err


def test_split_of_a_folder_is_refused(tmp_path: Path) -> None:
    lines = ["file_name,caption,label,fold"]
    for i in range(2):
        write(tmp_path / f"{i}.wav", tone(300 + 100 * i), RATE)
        lines.append(f"{i}.wav,sound {i},{i},1")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    copy = f"esc50@{tmp_path}"
    for data in (str(tmp_path), str(tmp_path / "metadata.csv"), copy):
        for split in ("nonsense", "train"):
            with pytest.raises(
                SystemExit, match=r"align\.evaluate: --split needs a dataset with splits"
            ):
                evaluate.main([str(tmp_path), "--dataset", data, "--split", split])
    several = f"fsd50k@{hub_tables.fsd50k(tmp_path / 'several')}"
    for data in (several, "mini", several.partition("@")[2]):
        evaluate._check_split(evaluate._arguments(["run", "--dataset", data, "--split", "train"]))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("--guidance_scale nan", "--guidance_scale is 0 or more, not nan"),
        ("--guidance_scale -1", "--guidance_scale is 0 or more, not -1.0"),
        ("--num_workers -1", "--num_workers is at least 1, not -1"),
        ("--num_workers 0", "--num_workers is at least 1, not 0"),
        ("--num_inference_steps 0", "--num_inference_steps is at least 1, not 0"),
        ("--sample_sheet a.xyz", "--sample_sheet must be a .png file, not a.xyz"),
    ],
)
def test_invalid_options_are_refused_first(
    monkeypatch: pytest.MonkeyPatch, line: str, expected: str
) -> None:
    monkeypatch.setattr("align.evaluate._evaluate", lambda options: pytest.fail("too late"))
    with pytest.raises(SystemExit) as caught:
        evaluate.main(["run", *line.split()])
    assert str(caught.value.code) == f"align.evaluate: {expected}"


def test_evaluation_rows_may_be_training_rows(sound_folder: Path) -> None:
    table = sound_folder / "metadata.csv"
    for train_folds, eval_data, folds, seen in (
        ([1, 2], sound_folder, [1], True),
        ([1, 2], sound_folder, [3], False),
        ([1, 2], table, [2, 3], True),
        (None, f"{sound_folder}/../{sound_folder.name}", None, True),
    ):
        own = DataArguments(str(sound_folder), folds=train_folds, eval_dataset=str(eval_data))
        own.eval_folds = folds
        assert load_eval_dataset(own)[1].endswith(TRAINED) == seen
    own = DataArguments(str(sound_folder), folds=[1, 2])
    assert evaluation_rows(own, "--dataset", str(table), "--folds", "2")[1].endswith(TRAINED)
