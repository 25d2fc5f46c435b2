"""Resuming a UNet training requires the pairs that it was started on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from align.models.encoder import AudioPromptEncoder
from diffuse.train import main
from tests.helpers.adapter_runs import adapter_weights, command, fill

pytestmark = pytest.mark.slow  # trainings


def test_resume_on_other_pairs_raises(
    tiny_base: str, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "encoder")
    (tmp_path / "pairs").mkdir()
    pairs, run = fill(tmp_path / "pairs"), tmp_path / "run"
    line = command(tiny_base, tmp_path / "encoder", pairs, run)
    main(line)
    before, record = adapter_weights(run), json.loads((run / "run.json").read_text())
    table = pairs / "metadata.csv"
    rows = table.read_text().splitlines()
    first, last = rows[1], rows[-1]
    for other in (
        rows[:-1],
        [*rows[:-1], last.replace("at night", "by day")],
        [*rows[:-1], last.replace("11.png", "10.png")],
        [rows[0], first.replace("0.wav", "3.wav"), *rows[2:]],
    ):
        table.write_text("\n".join(other) + "\n")
        with pytest.raises(SystemExit, match="has a run on other pairs: the dataset has changed"):
            main(line)
    assert json.loads((run / "run.json").read_text()) == record
    table.write_text("\n".join(rows) + "\n")
    main(line)
    after = adapter_weights(run)
    assert all(torch.equal(before[name], after[name]) for name in before)
    table.write_text("\n".join(rows[:-1]) + "\n")
    main([*line, "--overwrite_output_dir", "true"])
    assert json.loads((run / "run.json").read_text())["pairs"] != record["pairs"]
