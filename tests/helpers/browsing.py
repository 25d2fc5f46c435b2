"""A real browser for the tests of the app: Chromium with a simulated microphone, by Playwright.

`make browser` installs Chromium. Nothing is installed here: without Chromium the tests are skipped.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PATIENCE_MS = 60_000
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE = {"width": 390, "height": 844}


def find_chromium(playwright: Any) -> str | None:
    """Path of the system's Chromium or of Playwright's own; None if neither is installed."""
    paths = (*map(shutil.which, NAMES), playwright.chromium.executable_path)
    return next((path for path in paths if path and Path(path).exists()), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser; skips the test if Chromium is not installed."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = find_chromium(playwright)
        if path is None:
            pytest.skip("Chromium is not installed: run `make browser`")
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
        page.locator("#generate").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    asked = [there for there in elsewhere if not there.startswith((url, "blob:", "data:"))]
    assert elsewhere and not asked


def upload(page: Any, path: Path) -> None:
    page.locator("#audio input[type=file]").set_input_files(path)


def status(page: Any, pattern: str) -> str:
    """Waits until the status says something."""
    page.locator("#status", has_text=re.compile(pattern)).wait_for()
    return str(page.locator("#status").inner_text())


def set_field(page: Any, label: str, value: str) -> None:
    page.get_by_label(re.compile(f"number input for {label}|^{label}$")).first.fill(value)
    page.keyboard.press("Tab")


def drawn(page: Any) -> list[bytes]:
    """The pictures on the page, as files."""
    page.locator("#images img").first.wait_for()
    urls = [image.get_attribute("src") for image in page.locator("#images img").all()]
    return [page.request.get(url).body() for url in urls]
