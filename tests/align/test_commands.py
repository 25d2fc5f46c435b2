"""The commands train, evaluate and encode: their outputs and error messages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from align import AudioPromptEncoder, encode, evaluate, train
from align.registry import IMAGE_CLASSIFIERS
from tests.conftest import RATE, tone
from tests.helpers.launches import command

ROOT = Path(__file__).parents[2]
EMBED_METRICS = (
    "class_accuracy",
    "centered_cosine",
    "centered_cosine_nearest_caption",
    "centered_cosine_oracle",
    "euclidean",
    "cosine",
    "mse",
    # With three clips and captions, R@k is reported for k = 1 only.
    "audio_to_caption_R@1",
    "audio_to_caption_mAP@10",
    "caption_to_audio_R@1",
    "caption_to_audio_mAP@10",
)
IMAGE_METRICS = ("image_accuracy", "image_accuracy_text", "image_accuracy_nearest_caption")


class ParityClassifier:
    """Accepts an image if the sum of its red values has the parity of the label's length."""

    def is_correct(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[bool]:
        """Return one result per image."""
        red = [int(np.asarray(image)[..., 0].sum()) for image in images]
        return [(r + len(label)) % 2 == 0 for r, label in zip(red, labels, strict=True)]


@pytest.fixture(scope="module")
def image_classifier() -> Iterator[str]:
    """Register the image classifier of these tests and return its name."""
    IMAGE_CLASSIFIERS["parity"] = f"{__name__}:ParityClassifier"
    yield "parity"
    del IMAGE_CLASSIFIERS["parity"]


@pytest.fixture(scope="module")
def run(
    tiny_base: str, tiny_clap: str, sound_folder: Path, image_classifier: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:  # fmt: skip
    """A run with image metrics."""
    folder = tmp_path_factory.mktemp("run")
    more = (
        "--folds", "1", "2", "--eval_folds", "3", "--image_classifier", image_classifier,
        "--num_images", "7", "--num_sheet_samples", "3", "--save_strategy", "epoch",
        "--eval_strategy", "epoch",
    )  # fmt: skip
    train.main(command(tiny_base, tiny_clap, sound_folder, folder, *more))
    return folder


def test_train_writes_metrics_and_samples(run: Path, sound_folder: Path) -> None:
    kept = json.loads((run / "metrics.json").read_text())
    names = {
        f"{n}{end}" for n in (*EMBED_METRICS, *IMAGE_METRICS) for end in ("", "_interval", "_n")
    }
    assert set(kept) == names | {"evaluated_on"}
    assert kept["evaluated_on"] == f"{sound_folder}, folds 3"
    for name in (*EMBED_METRICS, *IMAGE_METRICS):
        low, high = kept[f"{name}_interval"]
        assert low <= kept[name] <= high
        assert kept[f"{name}_n"] == (7 if name in IMAGE_METRICS else 3)
    assert kept["centered_cosine"] <= kept["centered_cosine_oracle"]
    sheet = Image.open(run / "samples.png")
    assert sheet.format == "PNG" and min(sheet.size) > 200
    assert len(sheet.convert("RGB").getcolors(1 << 24)) > 50


def test_train_writes_encoder_checkpoints_and_record(run: Path) -> None:
    there = {path.name for path in run.iterdir()}
    whole = {"config.json", "model.safetensors", "preprocessor_config.json", "run.json"}
    assert whole <= there
    assert sorted(name for name in there if name.startswith("checkpoint-")) == [
        "checkpoint-3", "checkpoint-6",
    ]  # fmt: skip
    assert all((run / "checkpoint-6" / name).exists() for name in whole)
    record = json.loads((run / "run.json").read_text())
    assert record["captions"]["high"] == ["a whistle"] * 3
    assert record["options"]["model"]["adapter_width"] == 16


@pytest.mark.slow
def test_without_image_classifier_there_are_no_image_metrics(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    train.main(command(tiny_base, tiny_clap, sound_folder, tmp_path, "--num_images", "5"))
    kept = json.loads((tmp_path / "metrics.json").read_text())
    assert {name for name in kept if not name.endswith(("_n", "_interval"))} == {
        *EMBED_METRICS, "evaluated_on",
        "caption_to_audio_R@5", "caption_to_audio_R@10",  # among twelve clips
    }  # fmt: skip
    assert "no fold was held out" in kept["evaluated_on"]
    assert not (tmp_path / "samples.png").exists()
    out = capsys.readouterr().out
    assert "no fold was held out" in out and "class_accuracy" in out


@pytest.mark.slow
def test_evaluate_reproduces_the_metrics(
    run: Path,
    sound_folder: Path,
    image_classifier: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = [
        *("--image_classifier", image_classifier, "--num_images", "7"),
        *("--num_inference_steps", "2", "--num_workers", "1"),
    ]
    wanted = json.loads((run / "metrics.json").read_text())
    given = ["--dataset", str(sound_folder), "--folds", "3"]
    for i, data in enumerate((given, [])):  # given, and by default the held-out rows
        path = tmp_path / "new" / f"{i}.json"
        sheet = tmp_path / f"{i}.png"
        more = ["--json", str(path), "--sample_sheet", str(sheet), "--num_sheet_samples", "2"]
        evaluate.main([str(run), *data, *flags, *more])
        assert json.loads(path.read_text()) == wanted
        assert Image.open(sheet).format == "PNG"
        assert "centered_cosine_oracle" in capsys.readouterr().out


def test_evaluate_on_other_folds(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    flags = ["--folds", "1", "2", "--num_images", "0", "--num_workers", "1", "--json", str(path)]
    evaluate.main([str(run), *flags, "--device", "cpu"])
    kept = json.loads(path.read_text())
    assert kept["class_accuracy_n"] == kept["audio_to_caption_R@1_n"] == 9
    assert kept["caption_to_audio_R@5_n"] == 3  # captions, among nine clips
    assert kept["evaluated_on"].endswith("folds 1, 2 (trained on, in part or whole)")
    assert not set(kept) & set(IMAGE_METRICS)
    evaluate.main([str(run), "--folds", "3", *flags[3:]])
    assert json.loads(path.read_text())["evaluated_on"].endswith("folds 3")


def test_encode_writes_pipeline_arguments(
    run: Path, sound_folder: Path, tiny_base: str, tmp_path: Path
) -> None:
    files = [sound_folder / "0.wav", sound_folder / "7.wav"]
    out = tmp_path / "new" / "prompts.safetensors"
    encode.main([str(run), *map(str, files), "--output_file", str(out)])
    expected = AudioPromptEncoder.from_pretrained(run).encode_prompt(files)
    kept = load_file(out)
    assert set(kept) == set(expected) == {"prompt_embeds", "negative_prompt_embeds"}
    assert all(torch.equal(kept[name], expected[name]) for name in kept)
    assert kept["prompt_embeds"].shape == (2, 77, 32)
    assert not torch.equal(*kept["prompt_embeds"])
    with safe_open(out, "pt") as file:
        assert file.metadata() == {
            "base_model": tiny_base, "audio_files": "\n".join(str(file) for file in files),
        }  # fmt: skip


def test_encode_in_half_precision(run: Path, sound_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "half.safetensors"
    encode.main(
        [
            str(run),
            str(sound_folder / "0.wav"),
            "--output_file",
            str(out),
            "--torch_dtype",
            "float16",
        ]
    )
    kept = load_file(out)
    assert {tensor.dtype for tensor in kept.values()} == {torch.float16}
    whole = AudioPromptEncoder.from_pretrained(run).encode_prompt(sound_folder / "0.wav")
    assert torch.equal(kept["prompt_embeds"], whole["prompt_embeds"].half())


COMMANDS = {"train": train.main, "evaluate": evaluate.main, "encode": encode.main}


@pytest.fixture(scope="module")
def places(
    tiny_base: str, tiny_clap: str, sound_folder: Path, run: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, str]:  # fmt: skip
    """Placeholders of paths in the command lines below."""
    folder = tmp_path_factory.mktemp("places")
    soundfile.write(folder / "silent.wav", np.zeros(RATE, np.float32), RATE)
    soundfile.write(folder / "good.wav", tone(440), RATE)
    (folder / "text.wav").write_text("no sound")
    (folder / "empty").mkdir()
    (folder / "occupied").write_text("a file where a folder should be")
    paths = {"RUN": run, "DATA": sound_folder, "BASE": tiny_base, "CLAP": tiny_clap}
    names = ("silent.wav", "good.wav", "text.wav", "absent.wav", "empty", "absent", "occupied")
    return {**{k: str(v) for k, v in paths.items()}, **{n: str(folder / n) for n in names}}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train --base_model BASE --backbone CLAP --dataset absent", "there is no dataset"),
        ("train --base_model BASE --backbone CLAP --dataset empty", "no metadata.csv"),
        ("train --base_model absent --backbone CLAP --dataset DATA", "absent"),
        ("train --base_model BASE --backbone absent --dataset DATA", "absent"),
        ("train --base_model BASE --backbone BASE --dataset DATA", "BASE"),
        ("train --base_model BASE --backbone CLAP --dataset DATA --folds 8", "no fold 8"),
        (
            "train --base_model BASE --backbone CLAP --dataset DATA --image_classifier nobody",
            "no image classifier 'nobody'",
        ),
        (
            "train --base_model BASE --backbone CLAP --dataset DATA --adapter none",
            "there is no adapter",
        ),
        ("train --base_model BASE --backbone CLAP --dataset DATA --train_backbone 9", "3 layers"),
        ("train --base_model BASE --backbone CLAP --dataset DATA --train_backbone x", "not 'x'"),
        (
            "train --base_model BASE --backbone CLAP --dataset DATA --output_dir occupied",
            "occupied",
        ),
        ("evaluate absent", "there is no trained encoder"),
        ("evaluate CLAP --dataset DATA", "there is no trained encoder"),
        ("evaluate empty", "there is no trained encoder"),
        ("evaluate RUN --dataset absent --num_images 0", "there is no dataset"),
        ("evaluate RUN --dataset DATA --image_classifier nobody", "invalid choice: 'nobody'"),
        ("evaluate RUN --dataset DATA --sample_sheet a.jpg", "must be a .png file, not a.jpg"),
        ("evaluate RUN --dataset DATA --sample_sheet a.png --num_sheet_samples 0", "at least 1"),
        ("evaluate RUN --dataset DATA --num_images -1", "cannot be negative"),
        ("encode absent good.wav --output_file a.safetensors", "there is no trained encoder"),
        ("encode RUN absent.wav --output_file a.safetensors", "absent.wav' does not exist"),
        ("encode RUN good.wav text.wav --output_file a.safetensors", "text.wav"),
        ("encode RUN silent.wav --output_file a.safetensors", "silent"),
        ("encode RUN good.wav --output_file a.pt", "must be a .safetensors file, not a.pt"),
        (
            "encode RUN good.wav --output_file a.safetensors --space other",
            "no prompt space 'other'",
        ),
        ("encode RUN good.wav --output_file occupied/a.safetensors", "occupied"),
        ("encode RUN --output_file a.safetensors", "required: audio"),
        ("evaluate RUN --device cuda:99", "no device 'cuda:99'"),
        ("encode RUN good.wav --output_file a.safetensors --device gpu", "no device 'gpu'"),
        ("encode RUN good.wav --output_file a.safetensors --device meta", "no device 'meta'"),
    ],
)
def test_invalid_command_line_has_one_line_message(
    places: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], line: str, expected: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    name, *words = line.split()
    words = [places.get(w, w.replace("occupied/", places["occupied"] + "/")) for w in words]
    with pytest.raises(SystemExit) as caught:
        COMMANDS[name](words)
    code = caught.value.code
    assert code == 2 or isinstance(code, str)  # a string is printed, and the exit status is 1
    message = code if isinstance(code, str) else capsys.readouterr().err.strip().splitlines()[-1]
    assert places.get(expected, expected) in message
    assert message.startswith((f"align.{name}: ", f"python -m align.{name}: error: "))
    assert "\n" not in message.strip()
    assert not list(tmp_path.glob("a.*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", ["align.evaluate absent", "align.encode absent a --output_file a.pt"]
)
def test_error_exits_without_traceback(line: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *line.split()], cwd=ROOT, capture_output=True, text=True,
        timeout=240, env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert done.returncode in (1, 2) and not done.stdout
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].count("align.") >= 1
