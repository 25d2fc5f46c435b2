"""Writes prompt embeds of recordings: `python -m align.encode RUN FILES --out F.safetensors`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from align.cli import Defaults, add_device, check_file, check_recordings, chosen_device


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m align.encode", description=__doc__, allow_abbrev=False,
        formatter_class=Defaults,
    )  # fmt: skip
    parser.add_argument("run", help="folder or hub id of a trained encoder")
    parser.add_argument("files", nargs="+", type=Path, help="recordings")
    parser.add_argument("--out", type=Path, required=True, help="a .safetensors file")
    parser.add_argument("--space", help="the prompt space; the encoder's default one if not given")
    parser.add_argument(
        "--dtype", choices=("float32", "float16", "bfloat16"), default="float32", help="of the file"
    )
    add_device(parser)
    options = parser.parse_args(given)
    if options.out.suffix != ".safetensors":
        parser.error(f"--out writes safetensors: name it so, not {options.out.name}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Encodes the files and saves what a pipeline takes, by the pipeline's own argument names."""
    options = _arguments(arguments)
    from align.audio.files import AudioError

    try:
        check_file(options.out)
        check_recordings(options.files)
        said = encode(options)
    except (AudioError, ValueError, OSError) as error:
        raise SystemExit(f"align.encode: {error}") from error
    print(said)


def encode(options: argparse.Namespace) -> str:
    """Writes the prompt embeds of recordings; what was written, in words.

    Raises:
        AudioError: a recording has nothing to hear.
        ValueError: there is no such encoder, prompt space or device.
    """
    import torch

    from align.models.encoder import load_encoder
    from align.models.weights import save_file

    device = chosen_device(options.device)
    encoder = load_encoder(options.run).to(device)
    prompt = encoder.prompt(
        list(options.files), space=options.space, dtype=getattr(torch, options.dtype)
    )
    tensors = {name: value.cpu().contiguous().clone() for name, value in prompt.items()}
    names = "\n".join(str(file) for file in options.files)
    base = encoder.head(options.space).space.base
    options.out.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, options.out, metadata={"base": base, "recordings": names})
    shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in tensors.items())
    return f"{options.out}: {shapes}, for {base}"


if __name__ == "__main__":
    main()
