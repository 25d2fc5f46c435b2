"""Caption the images of a folder dataset with BLIP, once.

For folders of audio files and images without captions. The captions are written to captions.csv in
the folder. Existing captions, in captions.csv or metadata.csv, are never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from align.cli import CommandParser, argument_group
from align.data.captioning import DEFAULT_CAPTIONER, caption_folder
from align.registry import first_line

COMMAND = "python -m align.caption"


def main(arguments: Sequence[str] | None = None) -> None:
    """Caption the images of a folder and print where the captions are."""
    examples = (f"{COMMAND} FOLDER", f"{COMMAND} FOLDER --captioner {DEFAULT_CAPTIONER}")
    parser = CommandParser(COMMAND, examples, description=__doc__)
    argument_group(parser, "data").add_argument(
        "folder", type=Path, help="Folder of audio files and images with matching names."
    )
    argument_group(parser, "model").add_argument(
        "--captioner", default=DEFAULT_CAPTIONER, help="BLIP model: folder or Hub id."
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
