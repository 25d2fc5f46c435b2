"""Chromium with a simulated microphone, controlled by Playwright, for the tests of the app.

Tests are skipped if Chromium is not installed; `make browser` installs it.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_MS = 60_000
FLAGS = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE = {"width": 390, "height": 844}


def find_chromium(playwright: Any) -> str | None:
    """Return the path of the system's or Playwright's Chromium; None if there is none."""
    paths = (*map(shutil.which, NAMES), playwright.chromium.executable_path)
    return next((path for path in paths if path and Path(path).exists()), None)


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser; skip the test if Chromium is not installed."""
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
    """Yield a function that opens the page in a new session; forbid requests to other hosts."""
    contexts, requested = [], []

    def open_page(**kwargs: Any) -> Any:
        context = browser.new_context(permissions=["microphone"], **kwargs)
        context.set_default_timeout(TIMEOUT_MS)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: requested.append(request.url))
        page.goto(url)
        page.locator("#generate").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    external = [link for link in requested if not link.startswith((url, "blob:", "data:"))]
    assert requested and not external


def upload(page: Any, path: Path) -> None:
    """Upload an audio file."""
    page.locator("#audio input[type=file]").set_input_files(path)


def status(page: Any, pattern: str) -> str:
    """Wait until the status line matches a pattern; returns its text."""
    page.locator("#status", has_text=re.compile(pattern)).wait_for()
    return str(page.locator("#status").inner_text())


def expand(page: Any, *names: str) -> None:
    """Expand accordions by the ids of their elements."""
    for name in names:
        page.locator(f"#{name} > button").click()


def set_field(page: Any, label: str, value: str) -> None:
    """Enter a number into a field."""
    page.get_by_label(re.compile(f"number input for {label}|^{label}$")).first.fill(value)
    page.keyboard.press("Tab")


def image_files(page: Any) -> list[bytes]:
    """Return the files of the generated images on the page."""
    page.locator("#images img").first.wait_for()
    urls = [image.get_attribute("src") for image in page.locator("#images img").all()]
    return [page.request.get(url).body() for url in urls]
