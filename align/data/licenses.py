"""Normalize the licenses of clips, count them, and filter by them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from align.data.errors import DataError

UNSTATED = "not stated"
# The patterns match licenses in lower case with single spaces between words.
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
# "by" counts only after "Creative Commons" or on its own, not in "all rights reserved by NAME".
_BY = re.compile(
    r"\b(?:cc|creative commons)\W*(?:\d\.\d\W*)?by(?![a-z])|/licen[cs]es/by(?![a-z])"
    r"|^by(?: (?:nc|nd|sa))*(?: v?\d[.\d]*)?$"
)
_CC = re.compile(r"\b(?:cc|creative ?commons)\b")
_ATTRIBUTION = re.compile(r"(?<!\bno )\battribution\b")
# As on Freesound.
_ATTRIBUTION_ALONE = re.compile(
    r"^attribution(?:[ ,]+(?:non ?commercial|no ?deriv\w*|share ?alike|nc|nd|sa))*(?: licen[cs]e)?"
    r"(?: v?\d[.\d]*\b.*)?$"
)
# A condition anywhere in the text makes it another license: cc-by is not cc-by-nc.
_CONDITIONS = (
    (re.compile(r"\bnon? ?com|\b(?:nd|sa)*nc(?:nd|sa)*(?![a-z])|\bn\.c\b"), "-nc"),
    (re.compile(r"\bno ?deriv|\b(?:nc|sa)*nd(?:nc|sa)*(?![a-z])|\bn\.d\b"), "-nd"),
    (re.compile(r"\bshare ?alike|\b(?:nc|nd)*sa(?:nc|nd)*(?![a-z])|\bs\.a\b"), "-sa"),
)


def license_family(license: object) -> str:
    """Normalize a license to its short name: cc0, cc-by, cc-by-nc, sampling+, …

    Anything else is returned in lower case: other licenses, negations, two licenses at once, or a
    condition on a license that has none. An empty value is "not stated".

    Args:
        license: License as written in the dataset.
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
    """Return whether a text is a Creative Commons license that requires attribution."""
    if _BY.search(plain) or _ATTRIBUTION_ALONE.search(plain):
        return True
    return bool(_CC.search(plain) and _ATTRIBUTION.search(plain))


def license_summary(licenses: Sequence[object]) -> str:
    """Summarize the number of rows per license, most frequent first."""
    counts = Counter(map(license_family, licenses)).most_common()
    return ", ".join(f"{name} {count}" for name, count in counts)


def filter_by_license(
    licenses: Sequence[object] | None, allowed: Sequence[str], dataset: str
) -> list[int]:
    """Return the indices of rows with an allowed license, and report how many are removed.

    Args:
        licenses: License of each row; None if the dataset has no licenses.
        allowed: Short names, or licenses as the dataset writes them; case-insensitive.
        dataset: Name of the dataset in messages.

    Raises:
        DataError: If the dataset has no licenses, or no row has an allowed one.
    """
    if licenses is None:
        raise DataError(
            f"{dataset} has no license column to select {', '.join(allowed)}: "
            "name it with --license_column, or leave --licenses out"
        )
    names = allowed_names(allowed)
    kept = [i for i, text in enumerate(licenses) if is_allowed(text, names)]
    if not kept:
        raise DataError(
            f"no row of {dataset} has the license {' or '.join(allowed)}; "
            f"it has: {license_summary(licenses)}"
        )
    chosen = set(kept)
    out = [text for i, text in enumerate(licenses) if i not in chosen]
    if out:
        print(
            f"{dataset}: removed by license: {len(out)} of {len(licenses)} ({license_summary(out)})"
        )
    return kept


def allowed_names(allowed: Sequence[str]) -> set[str]:
    """Return the names that `is_allowed` compares with: given licenses and their short names."""
    names = {name.strip().lower() for name in allowed}
    return names | {license_family(name) for name in allowed} - {UNSTATED}


def is_allowed(license: object, names: set[str]) -> bool:
    """Return whether a license, or its short name, is among lower-case names."""
    return license_family(license) in names or str(license).strip().lower() in names


def license_counts(*data: Any) -> dict[str, int]:
    """Count the clips per license, most frequent first; clips without a license are not counted.

    Args:
        *data: Datasets with an optional column license, and streams; None is skipped.
    """
    stated: Counter[str] = Counter()
    for rows in data:
        if rows is None:
            continue
        licenses = getattr(rows, "licenses", None)  # a `Stream` has this attribute
        if licenses is None and "license" in getattr(rows, "column_names", ()):
            licenses = rows.with_format(None)["license"]
        stated.update(map(license_family, licenses or ()))
    return dict(stated.most_common())
