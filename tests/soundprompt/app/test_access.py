"""The page by axe-core's rules for those who see, hear or move otherwise.

axe-core (MPL-2.0) is not carried here: its pinned release is fetched from npm's registry, told by
its digest. Where the registry cannot be reached the tests are skipped, and say why.
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

from tests.helpers.browsing import PHONE, drawn, status, upload
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
    """axe-core's script."""
    try:
        with urllib.request.urlopen(AXE, timeout=30) as answer:
            archive = answer.read()
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


# What is Gradio's own: the rule, and the elements that break it. docs/guides/app.md tells of each.
GRADIO = {
    "aria-prohibited-attr": ('aria-label="Empty value"',),
    "label-content-name-mismatch": (
        'class="upload-container', 'class="playback', 'class="thumbnail-item',
    ),
    "image-redundant-alt": ('alt="seed ', 'alt="Settings"'),
}  # fmt: skip

Broken = set[tuple[str, str]]  # rule, and the element's beginning


def look(page: Any, axe: str) -> Broken:
    """What breaks a rule on the page as it stands."""
    if not page.evaluate("typeof axe === 'object'"):
        page.evaluate(axe)
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    assert len(found["passes"]) > 15  # it has looked
    return {(v["id"], node["html"][:300]) for v in found["violations"] for node in v["nodes"]}


def ours(broken: Broken) -> Broken:
    """What is not known to be Gradio's own."""
    return {
        (rule, html) for rule, html in broken
        if not any(part in html for part in GRADIO.get(rule, ()))
    }  # fmt: skip


HOW = {"light": {}, "dark": {"color_scheme": "dark"}, "phone": {"viewport": PHONE}}


@pytest.mark.parametrize("how", HOW)
def test_the_page_breaks_no_rule_before_and_after_a_drawing(
    visit: Callable, wav: Path, axe: str, how: str
):
    page = visit(**HOW[how])
    page.get_by_role("button", name="Sea waves").wait_for()
    before = look(page, axe)
    assert ours(before) == set()
    upload(page, wav)
    status(page, "Heard")
    page.locator("#generate").click()
    status(page, "2 pictures in")
    drawn(page)
    for name in ("More settings", "Models", "Settings of the pictures", "Earlier pictures"):
        page.get_by_role("button", name=name).click()
    page.locator("#history_gallery img").first.wait_for()
    after = look(page, axe)
    assert ours(after) == set()
    assert {rule for rule, _ in before | after} == set(GRADIO)  # what Gradio mends leaves the list


def test_an_error_breaks_no_rule(visit: Callable, axe: str):
    page = visit()
    page.locator("#generate").click()
    status(page, "There is no sound yet")
    assert ours(look(page, axe)) == set()


def test_what_breaks_a_rule_is_seen(visit: Callable, axe: str):
    page = visit()
    page.evaluate("document.querySelector('#title').innerHTML += '<img src=\"data:,\"><input>'")
    assert {rule for rule, _ in ours(look(page, axe))} == {"image-alt", "label"}


def test_the_page_on_the_app_names_what_is_gradios():
    told = (ROOT / "docs/guides/app.md").read_text()
    assert all(f"`{rule}`" in told for rule in GRADIO)
