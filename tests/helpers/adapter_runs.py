"""Short trainings of an audio adapter on a tiny UNet."""

from __future__ import annotations

from pathlib import Path

import soundfile
import torch
from PIL import Image
from safetensors.torch import load_file

from diffuse.config.options import parse_options
from diffuse.training.run import TrainingRun
from tests.conftest import RATE, tone

SHORT = (
    "--num_workers", "1", "--image_classifier", "none", "--num_images", "0",
    "--num_sheet_samples", "0", "--num_inference_steps", "2",
    "--projector_width", "16", "--projector_depth", "1", "--projector_heads", "2",
    "--stages", "audio_attention", "--max_steps", "3",
    "--per_device_train_batch_size", "4", "--per_device_eval_batch_size", "4",
    "--save_strategy", "no", "--logging_steps", "1", "--disable_tqdm", "true",
    "--use_cpu", "true", "--bf16", "false", "--cache", "false",
)  # fmt: skip


def fill(folder: Path, count: int = 12) -> Path:
    """Write pairs of three classes in two folds, with metadata.csv."""
    lines = ["file_name,image,caption,label,fold,foreground,background,ambience"]
    kinds = {"low": (200, "red"), "middle": (900, "green"), "high": (4000, "blue")}
    for i in range(count):
        label = list(kinds)[i % 3]
        frequency, color = kinds[label]
        soundfile.write(folder / f"{i}.wav", tone(frequency * (1 + 0.02 * i)), RATE)
        Image.new("RGB", (24, 16), color).save(folder / f"{i}.png")
        phrase = ("a dog barking", "rain falling", "a fire crackling")[i % 3]
        lines.append(
            f"{i}.wav,{i}.png,{phrase} at night,{label},{1 + i % 2},{phrase},rain falling,"
        )
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def command(base_model: str, encoder: Path, data: Path, folder: Path, *more: str) -> list[str]:
    """Return the command line of a short training; later flags override earlier ones."""
    models = ("--base_model", base_model, "--encoder", str(encoder), "--dataset", str(data))
    return [*models, *SHORT, "--output_dir", str(folder), *more]


def training_run(line: list[str]) -> TrainingRun:
    """Return the training run of a command line."""
    return TrainingRun.from_options(parse_options("diffuse.train", line))


def adapter_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Load all tensors of a saved adapter, including its LoRA."""
    found = {f"{p.name}:{k}": v for p in folder.glob("*.safetensors") for k, v in
             load_file(p).items()}  # fmt: skip
    assert len(found) > 20
    return found
