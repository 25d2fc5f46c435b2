"""Normalization of licenses, and texts that only resemble a license."""

from __future__ import annotations

import pytest
from datasets import Dataset

from align.data.licenses import (
    allowed_names,
    filter_by_license,
    is_allowed,
    license_counts,
    license_family,
)
from align.data.streaming import Stream


@pytest.mark.parametrize(
    ("written", "short"),
    [
        ("CC0", "cc0"), ("http://creativecommons.org/publicdomain/zero/1.0/", "cc0"),
        ("Creative Commons 0", "cc0"), ("Public Domain", "cc0"), ("Creative Commons Zero", "cc0"),
        ("CC0-1.0", "cc0"), ("CC_Zero", "cc0"),
        ("CC-BY", "cc-by"), ("CC BY 4.0", "cc-by"), ("Attribution", "cc-by"), ("by", "cc-by"),
        ("Attribution 3.0 Unported", "cc-by"), ("CC-BY4.0", "cc-by"),
        ("Creative Commons Attribution 4.0 International", "cc-by"),
        ("http://creativecommons.org/licenses/by/3.0/", "cc-by"),
        ("http://creativecommons.org/licenses/by-nc/3.0/", "cc-by-nc"),
        ("Attribution Noncommercial", "cc-by-nc"), ("Attribution NonCommercial", "cc-by-nc"),
        ("CC-BY-NC", "cc-by-nc"), ("by-nc 4.0", "cc-by-nc"), ("cc_by_nc", "cc-by-nc"),
        ("CC BY+NC", "cc-by-nc"), ("CC BY - NC", "cc-by-nc"), ("CC BY 4.0 NC", "cc-by-nc"),
        ("CC BY-NonCommercial 4.0", "cc-by-nc"), ("CC BY 4.0 NonCommercial", "cc-by-nc"),
        ("CC-BY Attribution-NonCommercial 3.0", "cc-by-nc"), ("CC BY (NonComm.)", "cc-by-nc"),
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa"), ("Attribution-ShareAlike", "cc-by-sa"),
        ("CC BY 4.0, no derivatives", "cc-by-nd"), ("CC BY NCND", "cc-by-nc-nd"),
        ("cc-by-ncsa", "cc-by-nc-sa"), ("CC BY N.C.", "cc-by-nc"),
        ("http://creativecommons.org/licenses/sampling+/1.0/", "sampling+"),
        ("Sampling+", "sampling+"), ("CC Sampling", "sampling+"),
        ("Apache-2.0", "apache-2.0"), ("", "not stated"), (None, "not stated"),
        ("NA", "not stated"), ("None", "not stated"),
    ],
)  # fmt: skip
def test_license_family(written: str | None, short: str) -> None:
    assert license_family(written) == short


@pytest.mark.parametrize(
    "written",
    [
        "All rights reserved by the BBC", "copyright by X, no use", "not CC0", "non-CC0",
        "CC BY, not for commercial use", "CC0 or CC BY-NC", "no attribution required",
        "CC0 non-commercial", "CC0-NC", "public domain, noncommercial only", "NC-Sampling+",
        "CC BY 4.0 - commercial use prohibited", "CC BY, personal use only",
        "CC BY 4.0, no modifications", "Attribution to the BBC, all rights reserved",
        "no sampling", "acc0unt", "stand by",
    ],
)  # fmt: skip
def test_license_family_of_other_text(written: str) -> None:
    assert license_family(written) == written.lower()
    assert not is_allowed(written, allowed_names(["cc0", "cc-by", "sampling+"]))


def test_license_named_none_does_not_match_unstated() -> None:
    stated = ["cc0", "", "None"]
    # The requested "none" matches the text in the data, not an empty license.
    assert filter_by_license(stated, ["cc0", "none"], "sounds") == [0, 2]
    names = allowed_names(["cc0", "none"])
    assert [is_allowed(one, names) for one in stated] == [True, False, True]


def test_license_counts_of_rows_and_streams() -> None:
    rows = Dataset.from_dict({"license": ["CC0", "CC BY 4.0", "CC0"]})
    stream = Stream(["rain"], ["rain"], lambda seed, epoch: iter(()), ["CC0"])
    assert license_counts(rows, None, stream) == {"cc0": 3, "cc-by": 1}
    assert license_counts(rows.remove_columns("license")) == {}
