"""Drawings that are broken off: stopped, cancelled, left, or too slow; the app goes on."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.pages import Served, connect, generate, serve

pytestmark = pytest.mark.slow  # an app that is started


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[Served]:
    with serve(models, max_steps=900) as page:
        yield page


STEP_S = 0.02  # at least: so that 900 of them last 18 s on any machine


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The steps of every drawing from now on, as they are done, none of them too quick."""
    from diffuse.pipelines.sound_pipeline import SoundPipeline

    plain, seen = SoundPipeline.__call__, []

    def drawn(self, *sounds, callback, **options):
        steps: list[int] = []
        seen.append(steps)

        def tell(done: int, of: int) -> bool:
            steps.append(done)
            time.sleep(STEP_S)
            return callback(done, of)

        return plain(self, *sounds, callback=tell, **options)

    monkeypatch.setattr(SoundPipeline, "__call__", drawn)
    return seen


def _begin(client, sound: Path):
    """A drawing that would take long, begun."""
    from gradio_client import handle_file

    job = client.submit(
        handle_file(sound), num_inference_steps=900, num_images=4, api_name="/generate"
    )
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if any(re.search(r"step \d+ of 900", out[-1]) for out in job.outputs()):
            return job
        time.sleep(0.05)
    raise AssertionError(f"nothing was drawn: {job.outputs()}")


def test_stop_stops_the_visitors_own_drawing_only(
    served: Served, sounds: list[Path], drawings: list[list[int]]
):
    one, other = connect(served), connect(served)
    job = _begin(one, sounds[0])
    assert "Nothing is being drawn" in other.predict(api_name="/stop")
    assert not job.done()
    assert "Stopping" in one.predict(api_name="/stop")
    assert "Stopped" in job.result(timeout=30)[-1]
    (steps,) = drawings
    assert 0 < steps[-1] < 900


def test_a_client_that_cancels_frees_the_queue(
    served: Served, sounds: list[Path], drawings: list[list[int]]
):
    job = _begin(connect(served), sounds[0])
    job.cancel()
    assert len(generate(connect(served), sounds[1])[0]) == 1  # one drawing at a time
    cancelled, after = drawings
    assert 0 < cancelled[-1] < 900  # it was not drawn to its end before the next began
    assert after == [1, 2]


def test_a_drawing_that_takes_too_long_is_stopped(
    models: Path, sounds: list[Path], drawings: list[list[int]]
):
    from gradio_client.exceptions import AppError

    with (
        serve(models, max_steps=900, max_generation_s=1.0) as page,
        pytest.raises(AppError, match="longer than 1 s and was stopped"),
    ):
        generate(connect(page), sounds[0], steps=900, pictures=4)
    assert 0 < drawings[0][-1] < 900
