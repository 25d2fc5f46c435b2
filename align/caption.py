"""Captions for pictures, made once: `python -m align.caption FOLDER [--captioner ID]`.

For folders of recordings and pictures without captions. What is made goes into captions.csv beside
them; captions that people wrote, there or in metadata.csv, are never touched.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from align.data.captioning import DEFAULT_CAPTIONER, caption_folder
from align.registry import first_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Captions a folder's pictures and says where the captions are."""
    parser = argparse.ArgumentParser(
        prog="python -m align.caption", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("folder", type=Path, help="recordings and pictures of the same names")
    parser.add_argument(
        "--captioner", default=DEFAULT_CAPTIONER, help=f"a BLIP: {DEFAULT_CAPTIONER} by default"
    )
    options = parser.parse_args(arguments)
    from align.data.errors import DataError
    from align.data.tables import CAPTIONS

    if not options.folder.is_dir():
        parser.error(f"there is no folder {options.folder}")
    try:
        count = caption_folder(options.folder, options.captioner)
    except (DataError, OSError, ValueError) as error:
        reason = first_line(error)
        raise SystemExit(f"align.caption: {reason}") from error
    print(f"{count} captions made; all of them are in {options.folder / CAPTIONS}.")


if __name__ == "__main__":
    main()
