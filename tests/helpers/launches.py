"""Short training runs on the tiny checkpoints."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from align.config.options import parse_options
from align.training.run import TrainingRun

# Options of a short training run without augmentation.
SHORT = (
    "--num_workers", "1", "--image_classifier", "none", "--num_images", "0",
    "--num_sheet_samples", "0", "--num_inference_steps", "2",
    "--adapter_width", "16", "--adapter_depth", "1", "--adapter_heads", "2",
    "--num_train_epochs", "2", "--per_device_train_batch_size", "4",
    "--eval_strategy", "no", "--save_strategy", "no", "--logging_steps", "1",
    "--disable_tqdm", "true", "--use_cpu", "true",
)  # fmt: skip


def command(base: str, backbone: str, data: Path, folder: Path, *more: str) -> list[str]:
    """Return the command line of a short training; later flags take precedence."""
    models = ("--base_model", base, "--backbone", backbone, "--dataset", str(data))
    return [*models, *SHORT, "--output_dir", str(folder), *more]


def session(line: list[str]) -> TrainingRun:
    """Return the training run of a command line."""
    return TrainingRun.from_options(parse_options("align.train", line))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Load the tensors of a saved encoder."""
    tensors: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    assert len(tensors) > 20
    return tensors


def assert_same_weights(one: Path, other: Path) -> None:
    """Assert that two saved encoders have identical tensors."""
    first, second = weights(one), weights(other)
    assert set(first) == set(second)
    differ = [name for name in first if not torch.equal(first[name], second[name])]
    assert not differ, f"{len(differ)} of {len(first)} tensors differ: {differ[:5]}"
