"""Resuming a run, and training from an existing encoder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from align import train
from align.config.arguments import ModelArguments
from align.prompts.space import PromptSpace
from align.training.run import TrainingRun
from align.training.setup import build_encoder, resolve_bases
from tests.align.models.backbones.test_lora import scrambled
from tests.conftest import RATE, tone
from tests.helpers.launches import command, session, weights

pytestmark = pytest.mark.slow  # trainings


@pytest.fixture
def data(sound_folder: Path, tmp_path: Path) -> Path:
    """A copy of the dataset, whose table may be changed."""
    return Path(shutil.copytree(sound_folder, tmp_path / "data"))


@pytest.mark.parametrize("further", ["none", "all", "lora"])
def test_init_from_keeps_lora_weights(
    tiny_base: str, tiny_clap: str, tmp_path: Path, further: str
) -> None:
    space = PromptSpace.from_pretrained(tiny_base)
    sizes = {"adapter_width": 16, "adapter_depth": 1, "adapter_heads": 2}
    first = build_encoder(
        ModelArguments(base_model=[tiny_base], backbone=tiny_clap, train_backbone="lora", **sizes),
        space,
    )
    first.head().embeds_std.fill_(1.0)
    untouched = first.encode(tone(300, 1.0), sampling_rate=RATE).embeds
    scrambled(first.backbone)
    first.save_pretrained(tmp_path)
    given = ModelArguments(init_from=str(tmp_path), base_model=[tiny_base], train_backbone=further)
    second = build_encoder(given, space)
    before, after = (e.encode(tone(300, 1.0), sampling_rate=RATE).embeds for e in (first, second))
    assert (before - untouched).abs().max() > 1e-3
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-5)


def test_init_from_defaults_to_its_own_base_model(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    session([*command(tiny_base, tiny_clap, sound_folder, own), "--max_steps", "1"]).train()
    resolved = ModelArguments(init_from=str(own))
    resolve_bases(resolved)
    assert resolved.base_model == [tiny_base]
    assert ModelArguments().base_model == ["mini"]
    for wrong in (tmp_path / "nowhere", tiny_clap):
        with pytest.raises(ValueError, match="there is no trained encoder"):
            resolve_bases(ModelArguments(init_from=str(wrong)))


def test_init_from_reports_a_new_head(
    tiny_base: str, tiny_clap: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(tiny_base, tmp_path / "other"))
    spaces = [PromptSpace.from_pretrained(base) for base in (tiny_base, str(other))]
    first = ModelArguments(base_model=[tiny_base], backbone=tiny_clap, adapter="linear")
    build_encoder(first, spaces[0]).save_pretrained(tmp_path / "first")
    build_encoder(
        ModelArguments(init_from=str(tmp_path / "first"), base_model=[str(other)]), spaces[1]
    )
    assert f"has no space {other}: a new head is trained for it" in capsys.readouterr().out
    build_encoder(ModelArguments(init_from=str(tmp_path / "first")), spaces[0])
    assert "new head" not in capsys.readouterr().out


def test_resume_with_other_rows_is_refused(
    tiny_base: str, tiny_clap: str, data: Path, tmp_path: Path
) -> None:
    line = [*command(tiny_base, tiny_clap, data, tmp_path / "run"), "--save_strategy", "epoch"]
    session(line).train()
    kept = weights(tmp_path / "run")
    longer = [*line, "--num_train_epochs", "3"]
    table = data / "metadata.csv"
    rows = table.read_text().splitlines()
    for changed in (rows[:-1], [*rows, rows[1].replace(",a ", ",another ")]):
        table.write_text("\n".join(changed) + "\n")
        with pytest.raises(SystemExit) as caught:
            train.main(longer)
        assert "was trained on other rows" in str(caught.value)
        assert "--overwrite_output_dir true" in str(caught.value)
        found = weights(tmp_path / "run")
        assert [name for name in kept if not torch.equal(kept[name], found[name])] == []
    table.write_text("\n".join(rows) + "\n")
    assert session(longer).checkpoint is not None
    session([*longer, "--overwrite_output_dir", "true"]).train()


def test_too_few_readable_clips_are_refused(
    tiny_base: str, tiny_clap: str, data: Path, tmp_path: Path
) -> None:
    (data / "broken.wav").write_text("no sound")
    rows = ["file_name,caption,label", "0.wav,a low hum,hum", "broken.wav,a beep,beep"]
    (data / "metadata.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(SystemExit) as caught:
        train.main(command(tiny_base, tiny_clap, data, tmp_path / "run"))
    assert "all 1 rows of" in str(caught.value)
    assert "at least two different captions" in str(caught.value)


def test_interrupted_run_explains_how_to_resume(
    tiny_base: str, tiny_clap: str, data: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    def stop(run: TrainingRun) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(TrainingRun, "train", stop)
    line = command(tiny_base, tiny_clap, data, tmp_path / "run")
    for more, expected in (
        (("--save_strategy", "epoch"), "resumes from the last checkpoint"),
        (("--save_strategy", "epoch", "--overwrite_output_dir", "true"), "starts over"),
        (("--save_strategy", "no"), "starts over"),
    ):
        with pytest.raises(SystemExit) as caught:
            train.main([*line, *more])
        assert caught.value.code == 130
        assert f"the same command {expected}" in capsys.readouterr().out


def test_invalid_output_dir_is_refused_first(
    tiny_base: str, tiny_clap: str, data: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"--output_dir .* is a file: give a folder"):
        session(command(tiny_base, tiny_clap, data, tmp_path / "file"))
