"""Accessibility of the page by the rules of axe-core.

axe-core (MPL-2.0) is not part of this repository: a pinned release is downloaded from the npm
registry and verified by its digest. The tests are skipped if the registry is unreachable.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browsing import PHONE, expand, image_files, status, upload
from tests.helpers.pages import Served, serve

pytestmark = [pytest.mark.slow, pytest.mark.flaky(reruns=2)]

ROOT = Path(__file__).parents[3]
REGISTRY = os.environ.get("NPM_CONFIG_REGISTRY", "https://registry.npmjs.org").rstrip("/")
AXE = f"{REGISTRY}/axe-core/-/axe-core-4.14.1.tgz"
SHA512 = (
    "1477dafa598d8d065f273d6af302aa203c02e83131707b7fa648cd41bd3d6b73"
    "4f8c22a0dab86ee6a6f64b8afbe804b214d36db85a2826965edfb3a0b9d546b5"
)


@pytest.fixture(scope="module")
def axe() -> str:
    """Source of axe-core."""
    try:
        with urllib.request.urlopen(AXE, timeout=30) as response:
            archive = response.read()
    except OSError as error:
        pytest.skip(f"axe-core cannot be fetched from {AXE}: {error}")
    assert hashlib.sha512(archive).hexdigest() == SHA512
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        script = files.extractfile("package/axe.min.js")
        assert script is not None
        return script.read().decode()


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[Served]:
    with serve(models) as page:
        page.service.start()
        yield page


# Violations in Gradio's own markup: rule and elements. docs/guides/app.md lists them.
GRADIO = {
    "aria-prohibited-attr": ('aria-label="Empty value"',),
    "label-content-name-mismatch": (
        'class="upload-container', 'class="playback', 'class="thumbnail-item',
    ),
    "image-redundant-alt": ('alt="seed ', 'alt="Settings"'),
}  # fmt: skip

Violations = set[tuple[str, str]]  # rule and the first characters of the element


def violations(page: Any, axe: str) -> Violations:
    """Run axe-core on the current state of the page."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(axe)
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    assert len(found["passes"]) > 15  # the rules were run
    return {(v["id"], node["html"][:300]) for v in found["violations"] for node in v["nodes"]}


def ours(found: Violations) -> Violations:
    """Leave out the known violations of Gradio."""
    return {
        (rule, html) for rule, html in found
        if not any(part in html for part in GRADIO.get(rule, ()))
    }  # fmt: skip


MODES = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": {"viewport": PHONE}}


@pytest.mark.parametrize("mode", MODES)
def test_page_has_no_violations_before_and_after_generation(
    visit: Callable, wav: Path, axe: str, mode: str
):
    page = visit(**MODES[mode])
    page.get_by_role("button", name="Sea waves").wait_for()
    before = violations(page, axe)
    assert ours(before) == set()
    upload(page, wav)
    status(page, "Audio loaded")
    page.locator("#generate").click()
    status(page, "2 images in")
    image_files(page)
    expand(page, "settings", "models", "metadata_panel", "history_panel")
    page.locator("#history_gallery img").first.wait_for()
    after = violations(page, axe)
    assert ours(after) == set()
    assert {rule for rule, _ in before | after} == set(
        GRADIO
    )  # fixed violations must leave the list


def test_error_message_has_no_violations(visit: Callable, axe: str):
    page = visit()
    page.locator("#generate").click()
    status(page, "There is no audio")
    assert ours(violations(page, axe)) == set()


def test_violations_are_detected(visit: Callable, axe: str):
    page = visit()
    page.evaluate("document.querySelector('#title').innerHTML += '<img src=\"data:,\"><input>'")
    assert {rule for rule, _ in ours(violations(page, axe))} == {"image-alt", "label"}


def test_app_guide_lists_known_violations():
    guide = (ROOT / "docs/guides/app.md").read_text()
    assert all(f"`{rule}`" in guide for rule in GRADIO)
