"""Interrupted generations: stopped, cancelled or too slow; the app keeps running."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.pages import Served, connect, generate, serve

pytestmark = pytest.mark.slow  # starts the app


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[Served]:
    with serve(models, max_inference_steps=900) as page:
        yield page


STEP_S = 0.02  # minimum, so that 900 steps take at least 18 s on any machine


@pytest.fixture
def generations(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Finished steps of every generation, each step slowed down to `STEP_S`."""
    from diffuse.pipelines.sound_pipeline import SoundPipeline

    original, recorded = SoundPipeline.__call__, []

    def slow_call(self, *audio, callback, **options):
        steps: list[int] = []
        recorded.append(steps)

        def slow_callback(done: int, total: int) -> bool:
            steps.append(done)
            time.sleep(STEP_S)
            return callback(done, total)

        return original(self, *audio, callback=slow_callback, **options)

    monkeypatch.setattr(SoundPipeline, "__call__", slow_call)
    return recorded


def _start(client, audio: Path):
    """Start a generation that takes long and wait for its first step."""
    from gradio_client import handle_file

    job = client.submit(
        handle_file(audio), num_inference_steps=900, num_images=4, api_name="/generate"
    )
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if any(re.search(r"step \d+ of 900", out[-1]) for out in job.outputs()):
            return job
        time.sleep(0.05)
    raise AssertionError(f"no step was reported: {job.outputs()}")


def test_stop_interrupts_only_the_own_session(
    served: Served, sounds: list[Path], generations: list[list[int]]
):
    one, other = connect(served), connect(served)
    job = _start(one, sounds[0])
    assert "No generation is running" in other.predict(api_name="/stop")
    assert not job.done()
    assert "Stopping" in one.predict(api_name="/stop")
    assert "Stopped" in job.result(timeout=30)[-1]
    (steps,) = generations
    assert 0 < steps[-1] < 900


def test_cancelled_job_frees_the_queue(
    served: Served, sounds: list[Path], generations: list[list[int]]
):
    job = _start(connect(served), sounds[0])
    job.cancel()
    assert len(generate(connect(served), sounds[1])[0]) == 1  # one generation at a time
    cancelled, after = generations
    assert 0 < cancelled[-1] < 900  # it did not run to its end
    assert after == [1, 2]


def test_generation_over_the_time_limit_is_stopped(
    models: Path, sounds: list[Path], generations: list[list[int]]
):
    from gradio_client.exceptions import AppError

    with (
        serve(models, max_inference_steps=900, max_generation_s=1.0) as page,
        pytest.raises(AppError, match="longer than 1 s and was stopped"),
    ):
        generate(connect(page), sounds[0], num_inference_steps=900, num_images=4)
    assert 0 < generations[0][-1] < 900
