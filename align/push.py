"""Upload a trained encoder to the Hugging Face Hub.

Uploads the encoder, its model card, its metrics and samples.png. Checkpoints and training captions
are not uploaded.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from align.cli import CommandParser, argument_group

COMMAND = "python -m align.push"
EXAMPLES = (
    f"{COMMAND} runs/align/mini OWNER/NAME",
    f"{COMMAND} runs/align/mini OWNER/NAME --private",
)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    model, output = argument_group(parser, "model"), argument_group(parser, "output")
    model.add_argument("encoder", type=Path, help="Folder of a trained encoder.")
    output.add_argument(
        "repo_id", help="Hub repository: OWNER/NAME, or NAME in your own namespace."
    )
    output.add_argument("--private", action="store_true", help="Create a private repository.")
    output.add_argument("--revision", help="Branch to upload to. Defaults to main.")
    options = parser.parse_args(given)
    if not options.encoder.is_dir():
        parser.error(f"there is no folder {options.encoder}: give one that align.train wrote")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Upload an encoder and print its address."""
    options = _arguments(arguments)
    from huggingface_hub import get_token

    from align.models.encoder import load_encoder

    try:
        if get_token() is None:
            raise ValueError("no token to upload with: log in with `hf auth login` or set HF_TOKEN")
        encoder = load_encoder(str(options.encoder))
        where = encoder.push_to_hub(
            options.repo_id,
            run_dir=options.encoder,
            private=options.private or None,
            revision=options.revision,
        )
    except (ValueError, OSError) as error:
        raise SystemExit(f"align.push: {error}") from error
    print(f"{options.encoder} is at {where}")


if __name__ == "__main__":
    main()
