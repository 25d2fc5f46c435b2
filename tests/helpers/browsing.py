"""A real browser for tests of the page: Chromium with a made-up microphone, by Playwright.

It takes the Chromium that is there, or installs one: Debian's where apt-get may be used, else
Playwright's own. Where neither can be had the tests are skipped, and say why.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE_MS = 60_000
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE = {"width": 390, "height": 844}


def _installed() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def find_chromium(install: bool = True) -> str | None:
    """Where a Chromium lies, installed if need be; None where none can be had."""
    if _installed() or not install:
        return _installed()
    print("no Chromium here: installing one", file=sys.stderr)
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        for line in (["update", "-qq"], ["install", "-y", "-qq", "chromium"]):
            subprocess.run(["apt-get", *line], capture_output=True, timeout=600, check=False)
        if _installed():
            return _installed()
    subprocess.run(
        [sys.executable, "-m", "playwright", "install", "chromium"],
        capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser that is running, or the test is skipped."""
    path = find_chromium()
    if path is None:
        pytest.skip("no Chromium here, and neither apt-get nor playwright could install one")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield running
        running.close()


@contextmanager
def visitors(browser: Any, url: str) -> Iterator[Callable[..., Any]]:
    """What opens the page as a visitor of their own; nothing may be asked of other hosts."""
    contexts, elsewhere = [], []

    def open_page(**how: Any) -> Any:
        context = browser.new_context(permissions=["microphone"], **how)
        context.set_default_timeout(PATIENCE_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: elsewhere.append(request.url))
        page.goto(url)
        page.locator("#draw").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    asked = [there for there in elsewhere if not there.startswith((url, "blob:", "data:"))]
    assert elsewhere and not asked


def upload(page: Any, path: Path) -> None:
    page.locator("#sound input[type=file]").set_input_files(path)


def status(page: Any, pattern: str) -> str:
    """Waits until the status says something."""
    page.locator("#status", has_text=re.compile(pattern)).wait_for()
    return str(page.locator("#status").inner_text())


def set_field(page: Any, label: str, value: str) -> None:
    page.get_by_label(re.compile(f"number input for {label}|^{label}$")).first.fill(value)
    page.keyboard.press("Tab")


def drawn(page: Any) -> list[bytes]:
    """The pictures on the page, as files."""
    page.locator("#pictures img").first.wait_for()
    urls = [image.get_attribute("src") for image in page.locator("#pictures img").all()]
    return [page.request.get(url).body() for url in urls]
