"""Folds: the parts that a data set's column fold divides it into."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from align.data.error import DataError
from align.data.layout import written


def fold_names(folds: Sequence[int]) -> set[str]:
    """Folds as they stand in a table."""
    return {str(fold) for fold in folds}


def fold_name(cell: Any) -> str:
    """A cell of the column fold as `fold_names` has it, "" where it is empty.

    Programs that know numbers alone write 1.0 for the fold 1 of a column with an empty cell.
    """
    return re.sub(r"\.0+$", "", written(cell).strip())


def check_column(columns: Collection[str], data: str) -> None:
    """Refuses a data set that is not divided into folds.

    Raises:
        DataError: there is no column fold.
    """
    if "fold" not in columns:
        raise DataError(f"{data} has no column fold; it has: {', '.join(columns)}")


def check_folds(wanted: set[str], stated: Iterable[str], data: str) -> None:
    """Refuses folds that no row has.

    Args:
        wanted: those asked for.
        stated: of every row, "" where it is in none.
        data: the data's name.

    Raises:
        DataError: one is absent.
    """
    there = set(stated) - {""}
    absent = wanted - there
    if absent:
        raise DataError(f"{data} has no fold {', '.join(sorted(absent))}; it has {sorted(there)}")
