"""Licences of recordings: told apart by family, counted, and filtered by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from align.data.errors import DataError

UNSTATED = "not stated"
# All that follows reads licences in lower case whose words a single space parts.
_NEGATED = re.compile(
    r"\b(?:not|never|neither|without)\b|n't\b|\bnon? (?:cc|creative|public)"
    r"|\b(?:prohibit|forbid|no modif|personal use|private use)"
)
_SAMPLING = re.compile(
    r"^(?:(?:cc|creative commons) )?sampling$|\bsampling ?(?:\+|plus)|/licen[cs]es/(?:nc )?sampling"
)
_ZERO = re.compile(
    r"\bcc ?(?:0|zero)(?![a-z\d.])|\bcreative commons (?:0|zero)(?![a-z\d.])|\bpublic ?domain\b"
    r"|/licen[cs]es/zero/"
)
# "By" is a licence's where Creative Commons stands before it or nothing beside: people write
# "all rights reserved by" somebody, too.
_BY = re.compile(
    r"\b(?:cc|creative commons)\W*(?:\d\.\d\W*)?by(?![a-z])|/licen[cs]es/by(?![a-z])"
    r"|^by(?: (?:nc|nd|sa))*(?: v?\d[.\d]*)?$"
)
_CC = re.compile(r"\b(?:cc|creative ?commons)\b")
_ATTRIBUTION = re.compile(r"(?<!\bno )\battribution\b")
# So Freesound writes it.
_ATTRIBUTION_ALONE = re.compile(
    r"^attribution(?:[ ,]+(?:non ?commercial|no ?deriv\w*|share ?alike|nc|nd|sa))*(?: licen[cs]e)?"
    r"(?: v?\d[.\d]*\b.*)?$"
)
# Conditions make another licence of it, wherever they stand: cc-by is not cc-by-nc.
_CONDITIONS = (
    (re.compile(r"\bnon? ?com|\b(?:nd|sa)*nc(?:nd|sa)*(?![a-z])|\bn\.c\b"), "-nc"),
    (re.compile(r"\bno ?deriv|\b(?:nc|sa)*nd(?:nc|sa)*(?![a-z])|\bn\.d\b"), "-nd"),
    (re.compile(r"\bshare ?alike|\b(?:nc|nd)*sa(?:nc|nd)*(?![a-z])|\bs\.a\b"), "-sa"),
)


def license_family(license: object) -> str:
    """A licence's short name: cc0, cc-by, cc-by-nc, sampling+ …, however it was written.

    What is none of Creative Commons', denies to be, names two of them or puts a condition to one
    that has none, is given back in lower case; nothing at all is "not stated".
    """
    text = str(license if license is not None else "").strip().lower()
    if text in ("", "none", "nan", "na", "n/a", "null"):
        return UNSTATED
    plain = re.sub(r"(?<!sampling)\+|[\s_\u2010-\u2014-]+", " ", text)
    if _NEGATED.search(plain):
        return text
    conditions = "".join(end for pattern, end in _CONDITIONS if pattern.search(plain))
    if _SAMPLING.search(plain):
        return text if conditions else "sampling+"
    zero, by = bool(_ZERO.search(plain)), _requires_attribution(plain)
    if zero == by or (zero and conditions):
        return text
    return "cc0" if zero else "cc-by" + conditions


def _requires_attribution(plain: str) -> bool:
    """Whether a text is one of Creative Commons' licences whose name has "by"."""
    if _BY.search(plain) or _ATTRIBUTION_ALONE.search(plain):
        return True
    return bool(_CC.search(plain) and _ATTRIBUTION.search(plain))


def license_summary(licenses: Sequence[object]) -> str:
    """How many rows each family has, the most frequent first."""
    counts = Counter(map(license_family, licenses)).most_common()
    return ", ".join(f"{name} {count}" for name, count in counts)


def filter_by_license(
    licenses: Sequence[object] | None, allowed: Sequence[str], dataset: str
) -> list[int]:
    """The numbers of rows whose licence is wanted; what is left out is counted and said.

    Args:
        licences: one a row; None where the data states none.
        wanted: families, or licences as the data writes them; case does not matter.
        data: the data's name.

    Raises:
        DataError: no licences are stated, or no row has a wanted one.
    """
    if licenses is None:
        raise DataError(
            f"{dataset} has no column of licences to keep {', '.join(allowed)} by: "
            "name it with --license_column, or leave --licenses out"
        )
    names = allowed_names(allowed)
    kept = [i for i, text in enumerate(licenses) if is_allowed(text, names)]
    if not kept:
        raise DataError(
            f"no row of {dataset} has the licence {' or '.join(allowed)}; it has: {license_summary(licenses)}"
        )
    chosen = set(kept)
    out = [text for i, text in enumerate(licenses) if i not in chosen]
    if out:
        print(
            f"{dataset}: left out by licence: {len(out)} of {len(licenses)} ({license_summary(out)})"
        )
    return kept


def allowed_names(allowed: Sequence[str]) -> set[str]:
    """What `is_allowed` compares with: licences as they were asked for, and their families."""
    names = {name.strip().lower() for name in allowed}
    return names | {license_family(name) for name in allowed} - {UNSTATED}


def is_allowed(license: object, names: set[str]) -> bool:
    """Whether a licence is among names in lower case, by family or as it is written."""
    return license_family(license) in names or str(license).strip().lower() in names


def license_counts(*data: Any) -> dict[str, int]:
    """How many recordings state which licence, the most frequent first; those that do alone.

    Args:
        data: data sets, with a column licence where they state any, and streams; None is passed
            over.
    """
    stated: Counter[str] = Counter()
    for rows in data:
        if rows is None:
            continue
        licenses = getattr(rows, "licenses", None)  # a stream's
        if licenses is None and "licence" in getattr(rows, "column_names", ()):
            licenses = rows.with_format(None)["licence"]
        stated.update(map(license_family, licenses or ()))
    return dict(stated.most_common())
