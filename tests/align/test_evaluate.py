"""What is measured on: how its rows are read, and whether they were trained on."""

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


def measured(data: DataArguments, *words: str) -> tuple[Dataset, str]:
    """The rows that a command line measures a run of some data on, and what they are called."""
    return evaluate._rows(evaluate._arguments(["run", *words]), asdict(data))


def test_the_runs_data_is_read_as_in_its_training(tmp_path: Path) -> None:
    name = f"fsd50k@{hub_tables.fsd50k(tmp_path)}"
    own = DataArguments(dataset=name, licenses=["cc0"], caption_template="the sound of {}")
    for words in (
        (),
        ("--dataset", name, "--licenses", "cc0", "--caption_template", "the sound of {}"),
    ):
        rows, told = measured(own, *words)
        assert list(rows["caption"]) == ["the sound of bark, dog"]
        assert told.startswith(name) and not told.endswith(TRAINED)
    rows, _ = measured(own, "--dataset", name)
    assert len(rows) == 2 and rows["caption"][0] == "bark, dog"


def test_folds_of_the_runs_data_are_those_of_its_training(tmp_path: Path) -> None:
    name = f"esc50@{hub_tables.esc50(tmp_path)}"
    own = DataArguments(dataset=name, folds=[1, 2], eval_folds=[3], caption_template="a {}")
    for words, folds, seen in (
        ((), "3", False),
        (("--folds", "3"), "3", False),
        (("--folds", "1"), "1", True),
        (("--dataset", name, "--folds", "2", "3"), "2, 3", True),
        (("--dataset", name), "", True),
    ):
        rows, told = measured(own, *words)
        assert len(rows) == (3 * len(folds.split(",")) if folds else 9)
        assert told.endswith(TRAINED) == seen, told
        assert not folds or f"folds {folds}" in told
        if "--dataset" not in words:
            assert rows["caption"][0] == "a dog"


def test_a_test_split_was_not_trained_on(tmp_path: Path) -> None:
    name = f"fsd50k@{hub_tables.fsd50k(tmp_path)}"
    own = DataArguments(dataset=name)
    assert not measured(own, "--dataset", name)[1].endswith(TRAINED)
    assert measured(own, "--dataset", name, "--split", "train")[1].endswith(TRAINED)


def test_a_split_of_nothing_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        evaluate._arguments(["run", "--split", "validation"])
    assert "--split is of --dataset" in capsys.readouterr().err


def test_a_split_of_one_set_is_refused(tmp_path: Path) -> None:
    lines = ["file_name,caption,label,fold"]
    for i in range(2):
        write(tmp_path / f"{i}.wav", tone(300 + 100 * i), RATE)
        lines.append(f"{i}.wav,sound {i},{i},1")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    copy = f"esc50@{tmp_path}"
    for data in (str(tmp_path), str(tmp_path / "metadata.csv"), copy):
        for split in ("nonsense", "train"):
            with pytest.raises(
                SystemExit, match=r"align\.evaluate: --split is of data with several"
            ):
                evaluate.main([str(tmp_path), "--dataset", data, "--split", split])
    several = f"fsd50k@{hub_tables.fsd50k(tmp_path / 'several')}"
    for data in (several, "mini", several.partition("@")[2]):
        evaluate._check_split(evaluate._arguments(["run", "--dataset", data, "--split", "train"]))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--guidance_scale nan", "--guidance_scale is a number from 0 on, not nan"),
        ("--guidance_scale -1", "--guidance_scale is a number from 0 on, not -1.0"),
        ("--num_workers -1", "--num_workers is at least 1, not -1"),
        ("--num_workers 0", "--num_workers is at least 1, not 0"),
        ("--num_inference_steps 0", "--num_inference_steps is at least 1, not 0"),
        ("--sample_sheet a.xyz", "--sample_sheet writes a PNG: name it so, not a.xyz"),
    ],
)
def test_what_cannot_be_measured_is_refused_first(
    monkeypatch: pytest.MonkeyPatch, line: str, said: str
) -> None:
    monkeypatch.setattr("align.evaluate._evaluate", lambda options: pytest.fail("too late"))
    with pytest.raises(SystemExit) as caught:
        evaluate.main(["run", *line.split()])
    assert str(caught.value.code) == f"align.evaluate: {said}"


def test_what_a_training_measures_on_may_be_what_it_heard(sound_folder: Path) -> None:
    table = sound_folder / "metadata.csv"
    for heard, eval_data, folds, seen in (
        ([1, 2], sound_folder, [1], True),
        ([1, 2], sound_folder, [3], False),
        ([1, 2], table, [2, 3], True),
        (None, f"{sound_folder}/../{sound_folder.name}", None, True),
    ):
        own = DataArguments(str(sound_folder), folds=heard, eval_dataset=str(eval_data))
        own.eval_folds = folds
        assert load_eval_dataset(own)[1].endswith(TRAINED) == seen
    own = DataArguments(str(sound_folder), folds=[1, 2])
    assert measured(own, "--dataset", str(table), "--folds", "2")[1].endswith(TRAINED)
