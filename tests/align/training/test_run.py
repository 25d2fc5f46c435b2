"""Training runs: loss terms, trained parameters, sample sheets and resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import soundfile
import torch
from PIL import Image

from align.train import main
from tests.conftest import RATE, tone
from tests.helpers.launches import assert_same_weights, command, session, weights

ROOT = Path(__file__).parents[3]
TERMS = {"info_nce", "mse", "distillation"}


def log(folder: Path) -> list[dict[str, Any]]:
    """Return the log of a run, from its last checkpoint."""
    steps = {int(path.name.partition("-")[2]): path for path in folder.glob("checkpoint-*")}
    history = json.loads((steps[max(steps)] / "trainer_state.json").read_text())["log_history"]
    assert history
    return history


@pytest.mark.parametrize(
    ("flags", "there"),
    [
        ((), {"info_nce", "mse"}),
        (("--mse_weight", "0"), {"info_nce"}),
        (("--info_nce_weight", "0"), {"mse"}),
        (("--distillation_weight", "0.5"), TERMS),
        (("--distillation_weight", "1", "--mse_weight", "0", "--info_nce_weight", "0"),
         {"distillation"}),
    ],
)  # fmt: skip
def test_loss_terms_are_logged(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path,
    flags: tuple[str, ...], there: set[str],
) -> None:  # fmt: skip
    more = ("--save_strategy", "epoch", "--num_train_epochs", "1", *flags)
    session(command(tiny_base, tiny_clap, sound_folder, tmp_path, *more)).train()
    lines = [line for line in log(tmp_path) if "loss" in line]
    assert len(lines) == 3
    for line in lines:
        terms = {name[5:]: value for name, value in line.items() if name.startswith("loss_")}
        assert set(terms) == there
        assert all(value > 0 for value in terms.values())
        assert sum(terms.values()) == pytest.approx(line["loss"], rel=1e-3, abs=1e-3)


@pytest.fixture
def two_captions(sound_folder: Path, tmp_path: Path) -> Path:
    """The dataset, with two captions for the label low."""
    folder = tmp_path / "captions"
    folder.mkdir()
    lines = ["file_name,caption,label"]
    texts = {"low": ("a low hum", "a dog barking"), "high": ("a whistle",), "middle": ("a tone",)}
    for i in range(12):
        label = ("low", "middle", "high")[i % 3]
        caption = texts[label][i // 3 % len(texts[label])]
        lines.append(f"{sound_folder / f'{i}.wav'},{caption},{label}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("target", ["label_mean", "caption"])
def test_target_of_a_row(
    tiny_base: str, tiny_clap: str, two_captions: Path, tmp_path: Path, target: str
) -> None:
    line = command(tiny_base, tiny_clap, two_captions, tmp_path / "run", "--target", target)
    opened = session(line)
    trainer = opened._trainer()
    wanted = trainer.criterion.embeds[trainer.train_dataset.targets]
    standard = opened.encoder.head().statistics()
    # Targets are cached in half precision; the same batch gives the same embeds.
    captions = opened.train_features.captions
    unique = sorted(set(captions))
    exact = opened.space.encode(unique).embeds[[unique.index(c) for c in captions]]
    own = standard.standardize(exact.half().float())
    low = [i for i, label in enumerate(opened.train_features.labels) if label == "low"]
    assert len({opened.train_features.captions[i] for i in low}) == 2
    assert not torch.allclose(own[low[0]], own[low[1]], atol=0.1)
    if target == "label_mean":
        own[low] = own[low].mean(0)
    assert own.abs().max() > 0.5
    assert torch.allclose(wanted, own, atol=1e-4)


@pytest.mark.parametrize("trained", ["none", "1", "all"])
def test_train_backbone_selects_the_trained_parameters(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, trained: str
) -> None:
    line = command(tiny_base, tiny_clap, sound_folder, tmp_path, "--train_backbone", trained)
    opened = session(line)
    before = {name: value.clone() for name, value in opened.encoder.state_dict().items()}
    # The gradient of a key's bias is rounding only.
    trainable = {
        name
        for name, p in opened.encoder.named_parameters()
        if p.requires_grad and not name.endswith(("key.bias", "linear_k.bias"))
    }
    opened.train()
    after = opened.encoder.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    inside = {name for name in before if name.startswith("backbone.")}
    assert inside and any(".batch_norm.running_mean" in name for name in inside)
    layers = "backbone.model.audio_encoder.layers."
    if trained == "none":
        assert not changed & inside
    elif trained == "1":
        last = {name for name in trainable if name.startswith(f"{layers}2.")}
        inside_changed = {n for n in changed & inside if not n.endswith("key.bias")}
        assert last and inside_changed == last
    else:
        assert {n for n in trainable if n.startswith(layers)} <= changed
        assert any(".batch_norm.running_mean" in name for name in changed)
    adapter = {name for name in trainable if name not in inside}
    assert adapter and adapter <= changed
    assert trainable <= changed
    # The other changes are the statistics of the head.
    rest = {n for n in changed - trainable - inside if not n.endswith("key.bias")}
    assert all(".adapter." not in name for name in rest)


@pytest.mark.slow
def test_evaluation_logs_loss_and_centered_cosine(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    more = (
        "--folds", "1", "2", "--eval_folds", "3", "--num_sheet_samples", "3",
        "--save_strategy", "epoch", "--eval_strategy", "epoch", "--sample_every_eval", "true",
    )  # fmt: skip
    opened = session(command(tiny_base, tiny_clap, sound_folder, tmp_path, *more))
    assert len(opened.train_features) == 9 and len(opened.eval_features) == 3
    opened.train()
    lines = [line for line in log(tmp_path) if "eval_loss" in line]
    assert [line["step"] for line in lines] == [3, 6]
    assert all(line["eval_loss"] > 0 for line in lines)
    cosine = opened.evaluate()["centered_cosine"].value
    assert lines[-1]["eval_centered_cosine"] == pytest.approx(cosine, abs=1e-4)
    assert lines[0]["eval_centered_cosine"] != lines[1]["eval_centered_cosine"]
    sheets = sorted((tmp_path / "samples").iterdir())
    assert [sheet.name for sheet in sheets] == ["step-3.png", "step-6.png"]
    for sheet in sheets:
        image = Image.open(sheet)
        assert image.format == "PNG" and len(image.convert("RGB").getcolors(1 << 24)) > 50


@pytest.mark.slow
def test_without_sheet_samples_there_is_no_sheet(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    more = ("--num_images", "1", "--eval_strategy", "epoch", "--sample_every_eval", "true")
    session(command(tiny_base, tiny_clap, sound_folder, tmp_path, *more)).train()
    assert (tmp_path / "model.safetensors").exists() and not (tmp_path / "samples").exists()


def test_augmentation_needs_a_trained_backbone(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    line = command(tiny_base, tiny_clap, sound_folder, tmp_path, "--gain_db", "6")
    with pytest.raises(SystemExit, match="augmentation needs a trained backbone"):
        main(line)


@pytest.fixture(scope="module")
def finished(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[str]]:
    """A finished run with checkpoints, and its command line."""
    folder = tmp_path_factory.mktemp("finished")
    more = ("--folds", "1", "2", "--eval_folds", "3", "--save_strategy", "epoch")
    line = command(tiny_base, tiny_clap, sound_folder, folder, *more)
    main(line)
    return folder, line


@pytest.mark.slow
def test_finished_run_is_not_trained_again(
    finished: tuple[Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, line = finished
    before = weights(folder)
    metrics = (folder / "metrics.json").read_text()
    (folder / "checkpoint-999").mkdir(exist_ok=True)  # as after a run was killed while saving
    main(line)
    out = capsys.readouterr().out
    assert f"resuming from {folder / 'checkpoint-6'}" in out
    assert "'loss'" not in out  # no step was taken
    after = weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (folder / "metrics.json").read_text() == metrics


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--backbone", "w2v-bert", "backbone was"),
        ("--adapter_width", "32", "adapter_width was 16 and is 32"),
        ("--mse_weight", "0.5", "mse_weight was 1.0 and is 0.5"),
        ("--seed", "5", "seed was 0 and is 5"),
        ("--bf16", "true", "bf16 was False and is True"),
    ],
)
def test_resume_with_other_options_is_refused(
    finished: tuple[Path, list[str]], tiny_w2v_bert: str, flag: str, value: str, expected: str
) -> None:
    folder, line = finished
    before = weights(folder)
    with pytest.raises(SystemExit) as caught:
        main([*line, flag, tiny_w2v_bert if value == "w2v-bert" else value])
    message = str(caught.value)
    assert (
        "other options" in message
        and expected in message
        and "--overwrite_output_dir true" in message
    )
    assert "\n" not in message
    after = weights(folder)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_overwrite_output_dir_deletes_checkpoints(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    line = command(tiny_base, tiny_clap, sound_folder, tmp_path, "--save_strategy", "epoch")
    main(line)
    first = weights(tmp_path)
    capsys.readouterr()
    main([*line, "--seed", "5", "--overwrite_output_dir", "true", "--num_train_epochs", "1"])
    out = capsys.readouterr().out
    assert "resuming from" not in out and "deleted 2 checkpoints of an earlier run" in out
    # Older checkpoints with more steps would count as the newest ones.
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-3"]
    record = json.loads((tmp_path / "checkpoint-3" / "run.json").read_text())
    assert record["options"]["training"]["seed"] == 5
    assert any(not torch.equal(first[name], tensor) for name, tensor in weights(tmp_path).items())


AUGMENTED = (
    "--train_backbone", "all", "--backbone_dropout", "0.2", "--gain_db", "6", "--time_shift", "1",
    "--frequency_masks", "1", "--mix_same_label_prob", "0.5", "--mix_other_label_prob", "0.5",
)  # fmt: skip


def killed_after(step: int, line: list[str], folder: Path) -> None:
    """Run a training in a subprocess and kill it when the checkpoint of a step is complete."""
    process = subprocess.Popen(
        [sys.executable, "-m", "align.train", *line], cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    limit = time.monotonic() + 240
    while not (folder / f"checkpoint-{step}" / "run.json").exists():
        if process.poll() is not None:
            assert process.stderr is not None
            pytest.fail(f"the training ended by itself: {process.stderr.read()[-2000:]}")
        assert time.monotonic() < limit
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (folder / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [(), AUGMENTED], ids=["frozen", "augmented"])
def test_killed_run_resumes(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, flags: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    more = (
        "--folds", "1", "2", "--eval_folds", "3", "--per_device_train_batch_size", "2",
        "--save_strategy", "steps", "--save_steps", "3", "--eval_strategy", "steps",
        "--eval_steps", "3", "--num_train_epochs", "24", "--adapter_dropout", "0.2", *flags,
    )  # fmt: skip
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    main(command(tiny_base, tiny_clap, sound_folder, whole, *more))
    line = command(tiny_base, tiny_clap, sound_folder, broken, *more)
    killed_after(12, line, broken)  # five steps an epoch: in the middle of the third
    capsys.readouterr()
    main(line)
    out = capsys.readouterr().out
    last = next(line for line in out.splitlines() if line.startswith("resuming from"))
    assert 12 <= int(last.rpartition("-")[2]) < 120
    assert_same_weights(whole, broken)
    metrics = [json.loads((run / "metrics.json").read_text()) for run in (whole, broken)]
    assert metrics[0] == metrics[1]
    # The last steps changed the weights, so that the comparison is meaningful.
    newest = weights(whole / "checkpoint-117")
    assert any(not torch.equal(newest[n], tensor) for n, tensor in weights(whole).items())


@pytest.mark.slow
def test_frozen_backbone_encodes_clips_of_any_length(
    tiny_base: str, tiny_clap: str, tmp_path: Path
) -> None:
    lines = ["file_name,caption"]
    for i in range(34):  # more than one batch of tokens, the longest clip in the second
        soundfile.write(tmp_path / f"{i}.wav", tone(300 + 90 * i, 9.0 if i == 33 else 1.0), RATE)
        lines.append(f"{i}.wav,sound {i % 3}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    short = command(tiny_base, tiny_clap, tmp_path, tmp_path / "run", "--num_train_epochs", "1")
    run = session(short)
    run.encoder.config.max_tokens = 24
    run.train()
    assert weights(tmp_path / "run")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--backbone_dropout", "0.2"), "--backbone_dropout"),
        (("--resume_from_checkpoint", "elsewhere"), "elsewhere is not a checkpoint"),
    ],
)
def test_option_without_effect_is_refused(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, flags: tuple, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        session(command(tiny_base, tiny_clap, sound_folder, tmp_path, *flags))
