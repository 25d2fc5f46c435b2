"""Pair files by name, such as an audio file and its image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

AUDIO_ENDINGS = (
    ".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".aac", ".aiff", ".aif", ".caf", ".au",
    ".wma", ".webm", ".mp4",
)  # fmt: skip
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


class FilePairs:
    """Find files with given extensions by the stem of a partner file.

    A file in the partner's folder is preferred, because folders may number their files alike. A
    file in another folder is used only if that folder has no partner for it and no third folder
    has a file with the same stem.

    Args:
        files: All files, in order of preference.
        extensions: Lower-case extensions of the files to find.
        partner_extensions: Lower-case extensions of the partner files.

    Attributes:
        files: The first file per folder and stem.
        duplicates: Further files of the same folder and stem, each with the first one.
    """

    def __init__(
        self, files: Sequence[Path], extensions: Sequence[str], partner_extensions: Sequence[str]
    ) -> None:
        paired = {(p.parent, p.stem) for p in files if p.suffix.lower() in partner_extensions}
        own: dict[tuple[Path, str], Path] = {}
        self.duplicates: list[tuple[Path, Path]] = []
        self._free: dict[str, list[Path]] = defaultdict(list)
        for path in files:
            if path.suffix.lower() not in extensions:
                continue
            key = path.parent, path.stem
            first = own.setdefault(key, path)
            if first is not path:
                self.duplicates.append((path, first))
            elif key not in paired:
                self._free[path.stem].append(path)
        self._own = own
        self.files = list(own.values())

    def same_folder(self, path: Path) -> Path | None:
        """Return the file with the same stem in the same folder, or None."""
        return self._own.get((path.parent, path.stem))

    def find(self, path: Path) -> Path | None:
        """Return the file in the same folder, else the only unpaired one in other folders."""
        found = self._free.get(path.stem, [])
        return self.same_folder(path) or (found[0] if len(found) == 1 else None)

    def is_ambiguous(self, path: Path) -> bool:
        """Return whether only other folders have candidates, and several of them do."""
        return self.same_folder(path) is None and len(self._free.get(path.stem, [])) > 1
