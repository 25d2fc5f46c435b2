"""Where a run goes by default, and which options differ from the defaults."""

from __future__ import annotations

import pytest

from align.config.arguments import CommonDataArguments
from align.config.options import parse_options, run_folder


@pytest.mark.parametrize(
    ("dataset", "folder"),
    [
        ("mini", "runs/align/mini"),
        ("fsd50k@/data/FSD50K", "runs/align/fsd50k"),
        ("OpenSound/AudioCaps", "runs/align/AudioCaps"),
        ("/home/someone/clips/", "runs/align/clips"),
        ("clips/table.csv", "runs/align/table"),
    ],
)
def test_run_folder_is_named_after_the_dataset(dataset: str, folder: str) -> None:
    assert run_folder("align", CommonDataArguments(dataset=dataset)) == folder


def test_output_dir_given_on_the_command_line_is_kept() -> None:
    assert parse_options("align.train", []).training.output_dir == "runs/align/mini"
    line = ["--dataset", "clips", "--output_dir", "elsewhere"]
    assert parse_options("align.train", line).training.output_dir == "elsewhere"
    assert parse_options("align.train", line[:2]).training.output_dir == "runs/align/clips"
