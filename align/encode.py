"""Encode audio files to prompt embeddings and save them as safetensors."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from align.cli import (
    CommandParser,
    add_device,
    argument_group,
    check_audio,
    check_output_file,
    resolve_device,
)

COMMAND = "python -m align.encode"
EXAMPLES = (
    f"{COMMAND} runs/align/mini dog.wav --output_file dog.safetensors",
    f"{COMMAND} OWNER/NAME a.wav b.wav --output_file ab.safetensors --torch_dtype float16",
)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    model, data = argument_group(parser, "model"), argument_group(parser, "data")
    output = argument_group(parser, "output")
    model.add_argument("encoder", help="Trained encoder: folder or Hub id.")
    data.add_argument("audio", nargs="+", type=Path, help="Audio files to encode.")
    model.add_argument(
        "--space", help="Prompt space to encode into. Defaults to the encoder's default space."
    )
    add_device(model)
    output.add_argument(
        "--output_file", type=Path, required=True,
        help="Output .safetensors file with the pipeline's keyword arguments.",
    )  # fmt: skip
    output.add_argument(
        "--torch_dtype", choices=("float32", "float16", "bfloat16"), default="float32",
        help="Data type of the saved tensors.",
    )  # fmt: skip
    options = parser.parse_args(given)
    if options.output_file.suffix != ".safetensors":
        parser.error(f"--output_file must be a .safetensors file, not {options.output_file.name}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Encode audio files and save the embeds under the pipeline's argument names."""
    options = _arguments(arguments)
    from align.audio.files import AudioError

    try:
        check_output_file(options.output_file)
        check_audio(options.audio)
        message = encode(options)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"align.encode: {error}") from error
    print(message)


def encode(options: argparse.Namespace) -> str:
    """Encode audio files and write their prompt embeds.

    Args:
        options: Parsed options of the command.

    Returns:
        A message with the output file, the tensors' shapes and the base model.

    Raises:
        AudioError: If an audio file has no audible content.
        ValueError: If the encoder, the prompt space or the device does not exist.
    """
    import torch

    from align.models.encoder import load_encoder
    from align.models.weights import save_file

    device = resolve_device(options.device)
    encoder = load_encoder(options.encoder).to(device)
    prompt = encoder.encode_prompt(
        list(options.audio), space=options.space, torch_dtype=getattr(torch, options.torch_dtype)
    )
    tensors = {name: value.cpu().contiguous().clone() for name, value in prompt.items()}
    names = "\n".join(str(file) for file in options.audio)
    base_model = encoder.head(options.space).space.base_model
    options.output_file.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        tensors, options.output_file, metadata={"base_model": base_model, "audio_files": names}
    )
    shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
    return f"{options.output_file}: {shapes}, for {base_model}"


if __name__ == "__main__":
    main()
