"""Uploads a trained encoder to the hub: `python -m align.publish RUN REPO_ID [--private]`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m align.publish",
        description=__doc__,
        epilog="What goes up: the encoder, its card, its figures and samples.png. Checkpoints and "
        "captions stay here.",
        allow_abbrev=False,
    )
    parser.add_argument("encoder", type=Path, help="folder that align.train wrote")
    parser.add_argument("repo_id", help="OWNER/NAME on the hub; NAME alone is one of your own")
    parser.add_argument("--private", action="store_true", help="only you can see a new repository")
    parser.add_argument("--revision", help="branch that is written to; main by default")
    options = parser.parse_args(given)
    if not options.encoder.is_dir():
        parser.error(f"there is no folder {options.encoder}: give one that align.train wrote")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Pushes a run's encoder and says where it is."""
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
        raise SystemExit(f"align.publish: {error}") from error
    print(f"{options.run} is at {where}")


if __name__ == "__main__":
    main()
