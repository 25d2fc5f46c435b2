"""What is measured on: how its rows are read, and whether they were trained on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import hub_tables
import pytest
from datasets import Dataset

from align import evaluate
from align.arguments import DataArguments

TRAINED = " (trained on, in part or whole)"


def measured(data: DataArguments, *words: str) -> tuple[Dataset, str]:
    """The rows that a command line measures a run of some data on, and what they are called."""
    return evaluate._rows(evaluate._arguments(["run", *words]), asdict(data))


def test_the_runs_data_is_read_as_in_its_training(tmp_path: Path) -> None:
    name = f"fsd50k@{hub_tables.fsd50k(tmp_path)}"
    own = DataArguments(data=name, licences=["cc0"], caption_template="the sound of {}")
    for words in (
        (),
        ("--data", name, "--licences", "cc0", "--caption_template", "the sound of {}"),
    ):
        rows, told = measured(own, *words)
        assert list(rows["caption"]) == ["the sound of bark, dog"]
        assert told.startswith(name) and not told.endswith(TRAINED)
    rows, _ = measured(own, "--data", name)
    assert len(rows) == 2 and rows["caption"][0] == "bark, dog"


def test_folds_of_the_runs_data_are_those_of_its_training(tmp_path: Path) -> None:
    name = f"esc50@{hub_tables.esc50(tmp_path)}"
    own = DataArguments(data=name, folds=[1, 2], eval_folds=[3], caption_template="a {}")
    for words, folds, seen in (
        ((), "3", False),
        (("--folds", "3"), "3", False),
        (("--folds", "1"), "1", True),
        (("--data", name, "--folds", "2", "3"), "2, 3", True),
        (("--data", name), "", True),
    ):
        rows, told = measured(own, *words)
        assert len(rows) == (3 * len(folds.split(",")) if folds else 9)
        assert told.endswith(TRAINED) == seen, told
        assert not folds or f"folds {folds}" in told
        if "--data" not in words:
            assert rows["caption"][0] == "a dog"


def test_a_test_split_was_not_trained_on(tmp_path: Path) -> None:
    name = f"fsd50k@{hub_tables.fsd50k(tmp_path)}"
    own = DataArguments(data=name)
    assert not measured(own, "--data", name)[1].endswith(TRAINED)
    assert measured(own, "--data", name, "--split", "train")[1].endswith(TRAINED)


def test_a_split_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate._arguments(["run", "--split", "validation"])
    assert "--split is of --data" in capsys.readouterr().err
