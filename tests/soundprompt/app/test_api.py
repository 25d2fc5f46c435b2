"""The API of the app, called with `gradio_client`, on tiny models."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from diffuse.pipelines.composition import RELATIONS
from tests.conftest import RATE, tone
from tests.helpers.pages import Served, connect, generate, save_adapter, serve

pytestmark = pytest.mark.slow  # starts the app

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def served(models: Path) -> Iterator[Served]:
    with serve(models, max_inference_steps=900, max_audio_s=5, max_upload_mb=1) as page:
        yield page


@pytest.fixture(scope="module")
def client(served: Served):
    return connect(served)


def test_endpoints_and_parameters_are_documented(client):
    found = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(found) == {"/generate", "/preview", "/stop", "/models"}
    parameters = found["/generate"]["parameters"]
    names = [parameter["parameter_name"] for parameter in parameters]
    assert names == [
        "audio", "prompt", "negative_prompt", "audio_scale", "relation", "foreground",
        "background", "ambience", "guidance_scale", "num_inference_steps", "num_images", "seed",
        "base_model", "encoder", "adapter",
    ]  # fmt: skip
    guide = (ROOT / "docs/guides/app.md").read_text()
    assert all(f"`{name}`" in guide for name in (*found, *names))
    assert all(p["parameter_has_default"] for p in parameters if p["parameter_name"] != "audio")


def test_generate_is_determined_by_audio_and_seed(client, sounds: list[Path]):
    first, metadata, status = generate(client, sounds[0], num_images=2, seed=7)
    again, *_ = generate(client, sounds[0], num_images=2, seed=7)
    next_seed, *_ = generate(client, sounds[0], seed=8)
    other, *_ = generate(client, sounds[1], seed=7)
    assert len(first) == 2 and "2 images in" in status
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    # A batch of two may differ from a batch of one by rounding.
    assert np.abs(first[1].astype(int) - next_seed[0]).max() <= 1
    assert not np.array_equal(first[0], other[0])
    assert metadata["seed"] == 7 and metadata["num_inference_steps"] == 2
    assert metadata["adapter"] == "none" and metadata["audio"][0]["audio"] == "200.wav"


def test_prompt_changes_the_image_and_reports_its_relation(client, sounds: list[Path]):
    alone, *_ = generate(client, sounds[0])
    both, metadata, status = generate(client, sounds[0], prompt="a whistle")
    assert not np.array_equal(alone[0], both[0])
    assert f"Relation of prompt and audio: {metadata['relation']}. " in status
    _, metadata, status = generate(client, sounds[0], prompt="a whistle", relation="creative")
    assert metadata["relation"] == "creative" and RELATIONS["creative"].description in status


def test_adapter_and_level_scales_change_the_image(
    client, served: Served, models: Path, sounds: list[Path]
):
    choice = {"prompt": "a whistle", "relation": "none"}
    before, *_ = generate(client, sounds[0], **choice)
    loaded = len(served.service.pipelines)
    fresh, loud = (save_adapter(models, name, gate) for name, gate in (("fresh", 0), ("loud", 2)))
    assert client.predict(api_name="/models")["adapters"] == [fresh, loud]
    images = {}
    for name in (fresh, loud):
        (images[name],), metadata, _ = generate(client, sounds[0], adapter=name, **choice)
        assert metadata["adapter"] == name
    (mute,), *_ = generate(client, sounds[0], adapter=loud, foreground=0, background=0, **choice)
    (other,), *_ = generate(client, sounds[1], adapter=loud, **choice)
    found = [images[fresh], images[loud], mute, other]
    assert len({image.tobytes() for image in found}) == 4
    after, *_ = generate(client, sounds[0], **choice)
    assert np.array_equal(before, after)  # the adapter is detached
    assert len(served.service.pipelines) == loaded  # the base model is loaded once


def test_preview_returns_plot_and_duration(client, sounds: list[Path]):
    from gradio_client import handle_file

    plot, status = client.predict(handle_file(sounds[0]), api_name="/preview")
    path = plot["value"] if isinstance(plot, dict) else plot
    assert Image.open(path if isinstance(path, str) else path["path"]).size == (900, 287)
    assert "Audio loaded: 2.0 s." in status


def test_models_are_listed(client, models: Path):
    found = client.predict(api_name="/models")
    assert found["base_models"] == ["mini", str(models / "base")]
    assert found["encoders"] == ["mini", str(models / "encoder")]


def test_invalid_inputs_raise_app_errors_and_the_app_keeps_running(
    client, served: Served, sounds: list[Path], tmp_path: Path
):
    from gradio_client import handle_file
    from gradio_client.exceptions import AppError

    text = tmp_path / "text.wav"
    text.write_text("no sound at all\n" * 30)
    long = tmp_path / "long.wav"
    soundfile.write(long, tone(440, 6.0), RATE)
    cases = [
        (text, {}, "not a readable audio file"),
        (long, {}, "longer than 5 s"),
        (
            sounds[0],
            {"num_inference_steps": 0},
            "The number of steps is 0: give a number from 1 to 900",
        ),
        (sounds[0], {"audio_scale": 9}, "The audio scale is 9: give a number from 0 to 2"),
        (sounds[0], {"seed": -1}, "The seed is -1"),
        (sounds[0], {"relation": "friendly"}, "no relation 'friendly'"),
        (sounds[0], {"seed": 2**32}, "The seed is 4294967296"),
        (sounds[0], {"encoder": "nonsense"}, "There is no encoder 'nonsense'"),
        (sounds[0], {"encoder": "nobody/nothing"}, "nobody/nothing"),
        (sounds[0], {"foreground": 0.5}, "require an adapter"),
    ]
    for audio, kwargs, message in cases:
        with pytest.raises(AppError, match=message) as caught:
            generate(client, audio, **kwargs)
        assert "Traceback" not in str(caught.value) and "/gradio/" not in str(caught.value)
    with pytest.raises(AppError, match="There is no audio"):
        client.predict(None, api_name="/generate")
    huge = tmp_path / "huge.wav"
    soundfile.write(huge, tone(440, 30.0), RATE)
    with pytest.raises(Exception, match=r"413|size"):
        client.predict(handle_file(huge), api_name="/generate")
    assert len(generate(client, sounds[0])[0]) == 1


def test_concurrent_sessions_get_their_own_images(served: Served, sounds: list[Path]):
    alone = [generate(connect(served), sound)[0][0] for sound in sounds]
    together: dict[int, np.ndarray] = {}

    def visit(i: int) -> None:
        together[i] = generate(connect(served), sounds[i % 2])[0][0]

    threads = [threading.Thread(target=visit, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(together) == [0, 1, 2, 3]
    assert all(np.array_equal(together[i], alone[i % 2]) for i in together)
