"""The app in a browser: mouse, keyboard, microphone and the screen of a phone."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from tests.conftest import RATE, tone
from tests.helpers.browsing import PHONE, expand, image_files, set_field, status, upload
from tests.helpers.films import film
from tests.helpers.pages import Served, serve

# A browser on a busy machine may miss an event, so failures are retried.
pytestmark = [pytest.mark.slow, pytest.mark.flaky(reruns=2)]


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[Served]:
    with serve(models, max_inference_steps=900, max_upload_mb=1) as page:
        page.service.start()
        yield page


def test_upload_is_plotted_generated_and_kept_in_history(visit: Callable, wav: Path):
    page = visit()
    upload(page, wav)
    assert "2.0 s" in status(page, "Audio loaded")
    page.locator("#audio_plot img").wait_for()
    page.locator("#generate").click()
    status(page, r"2 images in")
    images = [np.asarray(Image.open(io.BytesIO(file))) for file in image_files(page)]
    assert len(images) == 2 and not np.array_equal(*images)
    expand(page, "metadata_panel")
    assert "num_inference_steps" in page.locator("#metadata").inner_text()
    page.locator("#metadata button").first.wait_for()  # to copy
    expand(page, "history_panel")
    page.locator("#history_gallery img").first.wait_for()
    assert page.locator("#history_gallery img").count() == 2


def test_generate_from_microphone(visit: Callable):
    page = visit()
    page.get_by_role("button", name="Record audio").click()
    page.locator("#audio button", has_text="Record").first.click()
    page.wait_for_timeout(1500)
    page.locator("#audio button:visible", has_text="Stop").first.click()
    duration = re.search(r"([\d.]+) s", status(page, "Audio loaded"))
    assert duration and 0.5 < float(duration.group(1)) < 30
    page.locator("#generate").click()
    status(page, "2 images in")
    assert len(image_files(page)) == 2


def test_generate_by_keyboard(visit: Callable):
    page = visit()
    page.get_by_role("button", name="Rooster").focus()
    page.keyboard.press("Enter")
    status(page, "Audio loaded")
    page.locator("#prompt textarea").focus()
    page.keyboard.type("at night")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "generate"
    page.keyboard.press("Enter")
    status(page, r"2 images in .* Relation of prompt and audio: \w+\.")


def test_progress_is_shown_and_stop_interrupts(visit: Callable, wav: Path):
    page = visit()
    upload(page, wav)
    status(page, "Audio loaded")
    expand(page, "settings")
    set_field(page, "Steps", "900")
    set_field(page, "Images", "4")
    page.locator("#generate").click()
    status(page, r"step \d+ of 900")
    assert page.locator("#status progress").get_attribute("max") == "900"
    page.locator("#stop").click()
    assert "900" not in status(page, "Stopped")
    assert page.locator("#images img").count() == 0


@pytest.mark.parametrize(
    ("content", "message"), [(b"no sound\n" * 50, "not a readable audio file"), (b"", "0 bytes")]
)
def test_invalid_file_shows_error_and_app_keeps_running(
    visit: Callable, tmp_path: Path, wav: Path, content: bytes, message: str
):
    page = visit()
    bad = tmp_path / "bad.wav"
    bad.write_bytes(content)
    upload(page, bad)
    page.locator("#status [role=alert]", has_text=message).wait_for()
    page.locator("#generate").click()
    page.locator("#status [role=alert]", has_text=message).wait_for()
    page.get_by_role("button", name="Clear").first.click()
    upload(page, wav)
    status(page, "Audio loaded")
    page.locator("#generate").click()
    status(page, "2 images in")


def test_video_and_negative_seed_are_rejected(visit: Callable, tmp_path: Path):
    page = visit()
    upload(page, film(tmp_path / "film.mp4"))  # the field accepts audio only
    page.get_by_text("Invalid file type: film.mp4").wait_for()
    upload(page, film(tmp_path / "phone.m4a", image=False))
    assert "2.0 s" in status(page, "Audio loaded")
    expand(page, "settings")
    set_field(page, "Seed", "-5")
    page.locator("#generate").click()
    page.locator("#status [role=alert]", has_text="The seed is -5").wait_for()


def test_large_file_is_rejected(visit: Callable, tmp_path: Path):
    page = visit()
    huge = tmp_path / "huge.wav"
    soundfile.write(huge, tone(440, 30.0), RATE)
    upload(page, huge)
    page.get_by_text(re.compile("exceeds|too large|maximum", re.IGNORECASE)).first.wait_for()


def test_sessions_see_only_their_own_images(visit: Callable, wav: Path, tmp_path: Path):
    other = tmp_path / "other.wav"
    soundfile.write(other, tone(4000, 3.0), RATE)
    pages = [visit(), visit()]
    for page, path in zip(pages, (wav, other), strict=True):
        upload(page, path)
    for page, duration in zip(pages, ("2.0 s", "3.0 s"), strict=True):
        assert duration in status(page, "Audio loaded")
        page.locator("#generate").click()
    for page in pages:
        status(page, "2 images in")
    first, second = map(image_files, pages)
    assert not set(first) & set(second)
    newcomer = visit()
    assert newcomer.locator("#images img").count() == 0
    newcomer.locator("#generate").click()
    status(newcomer, "There is no audio")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_the_width_of_a_phone(visit: Callable, wav: Path, scheme: str):
    page = visit(viewport=PHONE, color_scheme=scheme)
    upload(page, wav)
    status(page, "Audio loaded")
    expand(page, "settings", "models")
    page.locator("#generate").click()
    status(page, "2 images in")
    image_files(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("#generate", "#stop", "#prompt", "#encoder", "#images img"):
        box = page.locator(name).first.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], name
    text, ground = page.evaluate(
        "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
    )
    brightness = [sum(map(int, re.findall(r"\d+", c)[:3])) for c in (text, ground)]
    assert (brightness[0] > brightness[1]) == (scheme == "dark")


def test_phone_scrolls_to_the_images(visit: Callable, wav: Path):
    page = visit(viewport=PHONE)
    upload(page, wav)
    status(page, "Audio loaded")
    expand(page, "settings")  # moves the images down
    page.locator("#generate").click()
    status(page, "2 images in")
    page.wait_for_function(
        """height => [...document.querySelectorAll('#images img')].some(image => {
            const box = image.getBoundingClientRect();
            return box.height > 0 && box.top >= 0 && box.top < height - 40;
        })""",
        arg=PHONE["height"],
    )


def test_every_field_has_a_label(visit: Callable):
    page = visit()
    expand(page, "settings", "models")
    page.get_by_label("Adapter").first.wait_for()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, select, button')]
            .filter(e => e.offsetParent !== null && e.type !== 'file')
            .filter(e => !(e.ariaLabel || e.innerText.trim() || e.title
                || (e.labels && e.labels.length && e.labels[0].innerText.trim())))
            .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
