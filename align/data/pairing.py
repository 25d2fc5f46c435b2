"""Files that belong together by their names, such as a recording and its picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path


class Namesakes:
    """Files of some endings, found by the name of another file.

    What lies beside it goes first: folders may number their files alike. A file of that name in
    another folder is the one that is meant only where no other folder has any.

    Args:
        files: all there are, in the order in which they go first.
        endings: of these files, in lower case.

    Attributes:
        files: one of each folder and name.
        beside: further ones of the same folder and name, each with that one.
    """

    def __init__(self, files: Sequence[Path], endings: Sequence[str]) -> None:
        own: dict[tuple[Path, str], Path] = {}
        self.beside: list[tuple[Path, Path]] = []
        self._by_stem: dict[str, list[Path]] = defaultdict(list)
        for path in files:
            if path.suffix.lower() not in endings:
                continue
            first = own.setdefault((path.parent, path.stem), path)
            if first is path:
                self._by_stem[path.stem].append(path)
            else:
                self.beside.append((path, first))
        self._own = own
        self.files = list(own.values())

    def near(self, path: Path) -> Path | None:
        """The file of that name in the same folder."""
        return self._own.get((path.parent, path.stem))

    def of(self, path: Path) -> Path | None:
        """The file of that name in the same folder, else the only one in all others."""
        found = self._by_stem.get(path.stem, [])
        return self.near(path) or (found[0] if len(found) == 1 else None)

    def is_ambiguous(self, path: Path) -> bool:
        """Whether several other folders have a file of that name, and its own has none."""
        return self.near(path) is None and len(self._by_stem.get(path.stem, [])) > 1
