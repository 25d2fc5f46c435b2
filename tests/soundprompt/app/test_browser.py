"""The app in a real browser: what a visitor does with mouse, keyboard, microphone and phone."""

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
from tests.helpers.browsing import PHONE, drawn, set_field, status, upload
from tests.helpers.films import film
from tests.helpers.pages import Served, serve

# A real browser on a busy machine may miss a moment; what is broken fails three times.
pytestmark = [pytest.mark.slow, pytest.mark.flaky(reruns=2)]


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[Served]:
    with serve(models, max_steps=900, max_upload_mb=1) as page:
        page.service.start()
        yield page


def test_an_upload_is_shown_drawn_and_kept_in_the_history(visit: Callable, wav: Path):
    page = visit()
    upload(page, wav)
    assert "2.0 s" in status(page, "Heard")
    page.locator("#audio_plot img").wait_for()
    page.locator("#generate").click()
    status(page, r"2 pictures in")
    pictures = [np.asarray(Image.open(io.BytesIO(file))) for file in drawn(page)]
    assert len(pictures) == 2 and not np.array_equal(*pictures)
    page.get_by_role("button", name="Settings of the pictures").click()
    assert "num_inference_steps" in page.locator("#metadata").inner_text()
    page.locator("#metadata button").first.wait_for()  # to copy
    page.get_by_role("button", name="Earlier pictures").click()
    page.locator("#history_gallery img").first.wait_for()
    assert page.locator("#history_gallery img").count() == 2


def test_a_recording_from_the_microphone_is_drawn(visit: Callable):
    page = visit()
    page.get_by_role("button", name="Record audio").click()
    page.locator("#audio button", has_text="Record").first.click()
    page.wait_for_timeout(1500)
    page.locator("#audio button:visible", has_text="Stop").first.click()
    heard = re.search(r"([\d.]+) s", status(page, "Heard"))
    assert heard and 0.5 < float(heard.group(1)) < 30
    page.locator("#generate").click()
    status(page, "2 pictures in")
    assert len(drawn(page)) == 2


def test_an_example_and_a_text_are_drawn_by_keyboard_alone(visit: Callable):
    page = visit()
    page.get_by_role("button", name="Rooster").focus()
    page.keyboard.press("Enter")
    status(page, "Heard")
    page.get_by_label("Text (optional)").focus()
    page.keyboard.type("at night")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "generate"
    page.keyboard.press("Enter")
    status(page, r"2 pictures in .* Text and sound are \w+:")


def test_progress_is_shown_and_stop_stops(visit: Callable, wav: Path):
    page = visit()
    upload(page, wav)
    status(page, "Heard")
    page.get_by_role("button", name="More settings").click()
    set_field(page, "Steps", "900")
    set_field(page, "Pictures", "4")
    page.locator("#generate").click()
    status(page, r"step \d+ of 900")
    assert page.locator("#status progress").get_attribute("max") == "900"
    page.locator("#stop").click()
    assert "900" not in status(page, "Stopped")
    assert page.locator("#images img").count() == 0


@pytest.mark.parametrize(
    ("content", "said"), [(b"no sound\n" * 50, "not a readable audio file"), (b"", "0 bytes")]
)
def test_a_bad_file_is_named_in_the_page_which_lives_on(
    visit: Callable, tmp_path: Path, wav: Path, content: bytes, said: str
):
    page = visit()
    bad = tmp_path / "bad.wav"
    bad.write_bytes(content)
    upload(page, bad)
    page.locator("#status [role=alert]", has_text=said).wait_for()
    page.locator("#generate").click()
    page.locator("#status [role=alert]", has_text=said).wait_for()
    page.get_by_role("button", name="Clear").first.click()
    upload(page, wav)
    status(page, "Heard")
    page.locator("#generate").click()
    status(page, "2 pictures in")


def test_films_and_a_negative_seed_are_refused_by_name(visit: Callable, tmp_path: Path):
    page = visit()
    upload(page, film(tmp_path / "film.mp4"))  # the field itself takes sounds only
    page.get_by_text("Invalid file type: film.mp4").wait_for()
    upload(page, film(tmp_path / "phone.m4a", picture=False))
    assert "2.0 s" in status(page, "Heard")
    page.get_by_role("button", name="More settings").click()
    set_field(page, "Seed", "-5")
    page.locator("#generate").click()
    page.locator("#status [role=alert]", has_text="The seed is -5").wait_for()


def test_a_file_that_is_too_large_is_refused(visit: Callable, tmp_path: Path):
    page = visit()
    huge = tmp_path / "huge.wav"
    soundfile.write(huge, tone(440, 30.0), RATE)
    upload(page, huge)
    page.get_by_text(re.compile("exceeds|too large|maximum", re.IGNORECASE)).first.wait_for()


def test_two_visitors_see_only_their_own(visit: Callable, wav: Path, tmp_path: Path):
    other = tmp_path / "other.wav"
    soundfile.write(other, tone(4000, 3.0), RATE)
    pages = [visit(), visit()]
    for page, path in zip(pages, (wav, other), strict=True):
        upload(page, path)
    for page, said in zip(pages, ("2.0 s", "3.0 s"), strict=True):
        assert said in status(page, "Heard")
        page.locator("#generate").click()
    for page in pages:
        status(page, "2 pictures in")
    first, second = map(drawn, pages)
    assert not set(first) & set(second)
    newcomer = visit()
    assert newcomer.locator("#images img").count() == 0
    newcomer.locator("#generate").click()
    status(newcomer, "There is no sound yet")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_everything_within_its_width(visit: Callable, wav: Path, scheme: str):
    page = visit(viewport=PHONE, color_scheme=scheme)
    upload(page, wav)
    status(page, "Heard")
    for name in ("More settings", "Models"):
        page.get_by_role("button", name=name).click()
    page.locator("#generate").click()
    status(page, "2 pictures in")
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    for name in ("#generate", "#stop", "#prompt", "#encoder", "#images img"):
        box = page.locator(name).first.bounding_box()
        assert box and box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"], name
    text, ground = page.evaluate(
        "['color', 'backgroundColor'].map(k => getComputedStyle(document.body)[k])"
    )
    brightness = [sum(map(int, re.findall(r"\d+", c)[:3])) for c in (text, ground)]
    assert (brightness[0] > brightness[1]) == (scheme == "dark")


def test_a_phone_brings_the_pictures_into_sight(visit: Callable, wav: Path):
    page = visit(viewport=PHONE)
    upload(page, wav)
    status(page, "Heard")
    page.get_by_role("button", name="More settings").click()  # the pictures lie further down
    page.locator("#generate").click()
    status(page, "2 pictures in")
    page.wait_for_function(
        """height => [...document.querySelectorAll('#pictures img')].some(image => {
            const box = image.getBoundingClientRect();
            return box.height > 0 && box.top >= 0 && box.top < height - 40;
        })""",
        arg=PHONE["height"],
    )


def test_every_field_has_a_label(visit: Callable):
    page = visit()
    for name in ("More settings", "Models"):
        page.get_by_role("button", name=name).click()
    page.get_by_label("Adapter").first.wait_for()
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, select, button')]
            .filter(e => e.offsetParent !== null && e.type !== 'file')
            .filter(e => !(e.ariaLabel || e.innerText.trim() || e.title
                || (e.labels && e.labels.length && e.labels[0].innerText.trim())))
            .map(e => e.outerHTML.slice(0, 200))"""
    )
    assert nameless == []
