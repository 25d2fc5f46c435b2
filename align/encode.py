"""Writes prompt embeds of recordings: `python -m align.encode RUN FILES --out F.safetensors`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from align.cli import (
    DefaultsHelpFormatter,
    add_device,
    check_audio,
    check_output_file,
    resolve_device,
)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m align.encode", description=__doc__, allow_abbrev=False,
        formatter_class=DefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("encoder", help="folder or hub id of a trained encoder")
    parser.add_argument("audio", nargs="+", type=Path, help="recordings")
    parser.add_argument("--out", type=Path, required=True, help="a .safetensors file")
    parser.add_argument("--space", help="the prompt space; the encoder's default one if not given")
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the file"
    )
    add_device(parser)
    options = parser.parse_args(given)
    if options.output_file.suffix != ".safetensors":
        parser.error(f"--out writes safetensors: name it so, not {options.output_file.name}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Encodes the files and saves what a pipeline takes, by the pipeline's own argument names."""
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
    """Writes the prompt embeds of recordings; what was written, in words.

    Raises:
        AudioError: a recording has nothing to hear.
        ValueError: there is no such encoder, prompt space or device.
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
