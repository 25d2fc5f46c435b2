"""Files that belong together by their names, such as a recording and its picture."""

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
    """Files of some endings, found by the name of another file.

    What lies beside it goes first: folders may number their files alike. A file of that name in
    another folder is meant only where it lies beside none that could ask for it, and no third
    folder has one too.

    Args:
        files: all there are, in the order in which they go first.
        endings: of these files, in lower case.
        asking: endings of files that look for them.

    Attributes:
        files: one of each folder and name.
        beside: further ones of the same folder and name, each with that one.
    """

    def __init__(
        self, files: Sequence[Path], extensions: Sequence[str], partner_extensions: Sequence[str]
    ) -> None:
        taken = {(p.parent, p.stem) for p in files if p.suffix.lower() in partner_extensions}
        own: dict[tuple[Path, str], Path] = {}
        self.duplicates: list[tuple[Path, Path]] = []
        self._free: dict[str, list[Path]] = defaultdict(list)
        for path in files:
            if path.suffix.lower() not in extensions:
                continue
            place = path.parent, path.stem
            first = own.setdefault(place, path)
            if first is not path:
                self.duplicates.append((path, first))
            elif place not in taken:
                self._free[path.stem].append(path)
        self._own = own
        self.files = list(own.values())

    def same_folder(self, path: Path) -> Path | None:
        """The file of that name in the same folder."""
        return self._own.get((path.parent, path.stem))

    def find(self, path: Path) -> Path | None:
        """The file of that name in the same folder, else the only free one in all others."""
        found = self._free.get(path.stem, [])
        return self.same_folder(path) or (found[0] if len(found) == 1 else None)

    def is_ambiguous(self, path: Path) -> bool:
        """Whether several other folders have a file of that name, and its own has none."""
        return self.same_folder(path) is None and len(self._free.get(path.stem, [])) > 1
