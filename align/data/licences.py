"""Licences of recordings: told apart by family, counted, and filtered by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from align.data.error import DataError

UNSTATED = "not stated"
# The condition after "by" makes another licence of it: cc-by is not cc-by-nc.
_BY = re.compile(r"\bby((?:[-_ ](?:nc|nd|sa))*)\b")
_WORDS = (
    (r"non[- ]?commercial", "-nc"),
    (r"no[- ]?deriv\w*", "-nd"),
    (r"share[- ]?alike", "-sa"),
)


def family(licence: object) -> str:
    """A licence's short name: cc0, cc-by, cc-by-nc, sampling+ …, however it was written.

    What is none of Creative Commons' is given back in lower case; nothing at all is "not stated".
    """
    text = str(licence if licence is not None else "").strip().lower()
    if text in ("", "none", "nan"):
        return UNSTATED
    if "sampling" in text:
        return "sampling+"
    if re.search(r"cc[- _]?0|cc[- ]?zero|public ?domain|/zero/|creative commons 0", text):
        return "cc0"
    by = _BY.search(text)
    if by:
        return "cc-by" + by[1].replace("_", "-").replace(" ", "-")
    if "attribution" in text:
        return "cc-by" + "".join(end for pattern, end in _WORDS if re.search(pattern, text))
    return text


def told(licences: Sequence[object]) -> str:
    """How many rows each family has, the most frequent first."""
    counts = Counter(map(family, licences)).most_common()
    return ", ".join(f"{name} {count}" for name, count in counts)


def kept_rows(licences: Sequence[object] | None, wanted: Sequence[str], data: str) -> list[int]:
    """The numbers of rows whose licence is wanted; what is left out is counted and said.

    Args:
        licences: one a row; None where the data states none.
        wanted: families, or licences as the data writes them; case does not matter.
        data: the data's name.

    Raises:
        DataError: no licences are stated, or no row has a wanted one.
    """
    if licences is None:
        raise DataError(
            f"{data} has no column of licences to keep {', '.join(wanted)} by: "
            "name it with --licence_column, or leave --licences out"
        )
    names = wanted_names(wanted)
    kept = [i for i, text in enumerate(licences) if is_wanted(text, names)]
    if not kept:
        raise DataError(
            f"no row of {data} has the licence {' or '.join(wanted)}; it has: {told(licences)}"
        )
    chosen = set(kept)
    out = [text for i, text in enumerate(licences) if i not in chosen]
    if out:
        print(f"{data}: left out by licence: {len(out)} of {len(licences)} ({told(out)})")
    return kept


def wanted_names(wanted: Sequence[str]) -> set[str]:
    """What `is_wanted` compares with: licences as they were asked for, and their families."""
    names = {name.strip().lower() for name in wanted}
    return names | {family(name) for name in wanted} - {UNSTATED}


def is_wanted(licence: object, names: set[str]) -> bool:
    """Whether a licence is among names in lower case, by family or as it is written."""
    return family(licence) in names or str(licence).strip().lower() in names
