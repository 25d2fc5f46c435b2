"""SoundPipeline and diffuse.generate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from align.audio.files import AudioError
from align.models.encoder import AudioPromptEncoder
from diffuse.generate import main
from diffuse.models import saving
from diffuse.models.adapter import SoundAdapter
from diffuse.models.attach import attach
from diffuse.models.configuration import AdapterConfig
from diffuse.pipelines.sound_pipeline import SoundPipeline
from tests.conftest import RATE, tone

STEPS = {"num_inference_steps": 2}


def open_adapter(unet: Any, encoder: AudioPromptEncoder) -> SoundAdapter:
    torch.manual_seed(1)
    adapter = SoundAdapter.from_unet(
        unet, encoder, AdapterConfig(base_model="tiny", width=16, heads=2)
    )
    for gate in adapter.parameter_groups["gates"]:
        torch.nn.init.constant_(gate, 2.0)
    return adapter


@pytest.fixture(scope="module")
def base_pipe(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> SoundPipeline:
    """A pipeline without an adapter."""
    return SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="cpu")


@pytest.fixture(scope="module")
def adapter_pipe(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> SoundPipeline:
    """A pipeline with an adapter whose gates are open."""
    pipe = SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="cpu")
    adapter = open_adapter(pipe.pipeline.unet, tiny_encoder)
    return SoundPipeline(pipe.pipeline, tiny_encoder, adapter, tiny_base)


LOW, HIGH = (RATE, tone(200)), (RATE, tone(4000))


def pixels(output: Any) -> np.ndarray:
    return np.stack([np.asarray(image) for image in output.images])


def differ(one: Any, other: Any) -> bool:
    return bool((pixels(one) != pixels(other)).any())


@pytest.mark.parametrize("which", ["base_pipe", "adapter_pipe"])
def test_call_is_deterministic_and_depends_on_the_audio(
    which: str, request: pytest.FixtureRequest
) -> None:
    pipe = request.getfixturevalue(which)
    first = pipe(LOW, **STEPS)
    pipe(HIGH, "a dog barking", **STEPS)
    assert not differ(first, pipe(LOW, **STEPS))
    assert differ(first, pipe(HIGH, **STEPS))
    assert differ(first, pipe(LOW, seed=1, **STEPS))


def test_call_without_prompt_uses_the_encoder_embeds(
    base_pipe: SoundPipeline, tiny_encoder: AudioPromptEncoder
) -> None:
    stock = base_pipe.pipeline(
        **tiny_encoder.encode_prompt(LOW),
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        **STEPS,
    )
    np.testing.assert_array_equal(pixels(base_pipe(LOW, **STEPS)), pixels(stock))


@pytest.mark.parametrize("which", ["base_pipe", "adapter_pipe"])
def test_audio_scale_zero_equals_text_only(which: str, request: pytest.FixtureRequest) -> None:
    pipe = request.getfixturevalue(which)
    text = {"prompt": "a dog barking", **STEPS}
    stock = pipe.pipeline(
        "a dog barking", guidance_scale=5.0, generator=torch.Generator().manual_seed(0), **STEPS
    )
    if pipe.attached is not None:
        pipe.attached.clear_audio()
        stock = pipe.pipeline(
            "a dog barking", guidance_scale=5.0, generator=torch.Generator().manual_seed(0), **STEPS
        )
    assert not differ(stock, pipe(LOW, audio_scale=0.0, **text))
    assert differ(stock, pipe(LOW, **text))


@pytest.mark.parametrize(
    "changed",
    [
        {"prompt": "rain falling"},
        {"prompt": ""},
        {"negative_prompt": "a picture at night"},
        {"audio_scale": 0.5},
        {"guidance_scale": 2.0},
        {"audio_guidance_scale": 3.0},
        {"num_inference_steps": 3},
        {"level_scales": {"foreground": 0.0}},
        {"audio_interval": (0.0, 0.5)},
        {"height": 32, "width": 16},
    ],
    ids=str,
)
def test_every_option_changes_the_image(adapter_pipe: SoundPipeline, changed: Any) -> None:
    plain = {"prompt": "a dog barking", "relation": "none", **STEPS}
    first, second = adapter_pipe(LOW, **plain), adapter_pipe(LOW, **{**plain, **changed})
    if "height" in changed:
        assert second.images[0].size == (16, 32)
    else:
        assert differ(first, second)


def test_audio_weights_blend_several_clips(adapter_pipe: SoundPipeline) -> None:
    plain = {"prompt": "a dog barking", "relation": "none", **STEPS}
    both = adapter_pipe([LOW, HIGH], audio_weights=[3, 1], **plain)
    assert differ(both, adapter_pipe([LOW, HIGH], audio_weights=[1, 3], **plain))
    alone = adapter_pipe(LOW, **plain)
    np.testing.assert_allclose(
        pixels(adapter_pipe([LOW, HIGH], audio_weights=[1, 0], **plain)).astype(int),
        pixels(alone).astype(int),
        atol=1,
    )


def test_contradictory_audio_moves_to_the_background(adapter_pipe: SoundPipeline) -> None:
    options: dict[str, Any] = {"prompt": "a dog barking", **STEPS}
    default = adapter_pipe(LOW, relation="matching", **options)
    moved = adapter_pipe(LOW, relation="contradictory", **options)
    assert differ(default, moved) and moved.metadata["audio_scale"] == 1.0
    mute = {"level_scales": {"background": 0.0, "ambience": 0.0}}
    first = adapter_pipe(LOW, relation="contradictory", **mute, **options)
    other = adapter_pipe(HIGH, relation="contradictory", **mute, **options)
    assert not differ(first, other), "the foreground tokens must not depend on the audio"
    assert differ(moved, adapter_pipe(HIGH, relation="contradictory", **options))


def test_audio_by_level_sets_single_levels(adapter_pipe: SoundPipeline) -> None:
    plain = {"prompt": "a dog barking", "relation": "none", **STEPS}
    same = adapter_pipe({"foreground": LOW, "background": LOW}, **plain)
    assert not differ(adapter_pipe({"foreground": LOW}, **plain), adapter_pipe(LOW, **plain))
    swapped = adapter_pipe({"foreground": LOW, "background": HIGH}, **plain)
    assert differ(same, swapped)
    mute = {"level_scales": {"background": 0.0}, **plain}
    assert not differ(
        adapter_pipe({"foreground": LOW, "background": HIGH}, **mute),
        adapter_pipe({"foreground": LOW, "background": LOW}, **mute),
    )


def test_image_i_uses_seed_plus_i(adapter_pipe: SoundPipeline) -> None:
    three = adapter_pipe(LOW, "rain", num_images=3, seed=5, **STEPS)
    assert len(three.images) == 3
    second = adapter_pipe(LOW, "rain", seed=6, **STEPS)
    gap = np.abs(pixels(three)[1].astype(int) - pixels(second)[0].astype(int))
    assert gap.max() <= 1


def test_callback_reports_every_step_and_stops(adapter_pipe: SoundPipeline) -> None:
    seen: list[tuple[int, int]] = []
    adapter_pipe(LOW, num_inference_steps=3, callback=lambda *progress: seen.append(progress))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    seen.clear()

    def stop(done: int, steps: int) -> bool:
        seen.append((done, steps))
        return done == 2

    output = adapter_pipe(LOW, num_inference_steps=5, callback=stop)
    assert (2, 5) in seen
    assert output.metadata["stopped"] is True
    assert adapter_pipe(LOW, **STEPS).metadata["stopped"] is False


def test_metadata_is_json(adapter_pipe: SoundPipeline) -> None:
    output = adapter_pipe([LOW, HIGH], "a dog barking", audio_weights=[1, 3], **STEPS)
    metadata = json.loads(json.dumps(output.metadata))
    assert [clip["weight"] for clip in metadata["audio"]] == [0.25, 0.75]
    assert metadata["prompt"] == "a dog barking" and metadata["scheduler"] == "DDIMScheduler"
    assert output.relation is not None and metadata["relation"] == output.relation.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio_guidance_scale": 2.0}, "audio_guidance_scale needs an adapter"),
        ({"level_scales": {"foreground": 1.0}}, "level_scales needs an adapter"),
        ({"prompt": ""}, "an empty prompt needs an adapter"),
        ({"num_images": 0}, "num_images must be at least 1, not 0"),
        ({"relation": "friendly", "prompt": "rain"}, "no relation 'friendly'"),
        ({"audio_weights": [1.0, 2.0]}, "1 clips and 2 weights"),
        ({"audio_interval": (0.0, 0.5)}, "audio_interval needs an adapter"),
        ({"audio_scale": float("nan")}, "audio_scale must be a finite number >= 0, not nan"),
        ({"guidance_scale": -1.0}, "guidance_scale must be a finite number >= 0, not -1"),
        ({"seed": -1}, "seed must be an integer"),
        ({"height": 63}, "height must be a multiple of 8 pixels, not 63"),
        ({"width": 0}, "width must be a multiple of 8 pixels, not 0"),
    ],
)
def test_invalid_options_raise(base_pipe: SoundPipeline, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        base_pipe(LOW, **{**STEPS, **options})


def test_single_side_keeps_the_other_default(base_pipe: SoundPipeline) -> None:
    size = base_pipe(LOW, **STEPS).images[0].size
    assert size[0] != 32
    assert base_pipe(LOW, width=32, **STEPS).images[0].size == (32, size[1])
    assert base_pipe(LOW, height=32, **STEPS).images[0].size == (size[0], 32)


def test_set_adapter_replaces_adapters(
    tiny_base: str, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    pipe = SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="cpu")
    plain = {"prompt": "a dog barking", "relation": "none", "audio_scale": 1.0, **STEPS}
    without = pipe(LOW, **plain)
    saved = tmp_path / "adapter"
    saving.save_adapter(open_adapter(pipe.pipeline.unet, tiny_encoder), saved)
    pipe.set_adapter(str(saved))
    conditioned = pipe(LOW, **plain)
    assert differ(without, conditioned) and conditioned.metadata["adapter"] == str(saved)
    pipe.set_adapter(str(saved))
    assert not differ(conditioned, pipe(LOW, **plain))
    with pytest.raises(ValueError, match=r"there is no .* adapter in"):
        pipe.set_adapter(str(tmp_path / "none"))
    again = pipe(LOW, **plain)
    assert not differ(without, again) and "adapter" not in again.metadata


def test_invalid_audio_raises(base_pipe: SoundPipeline, tmp_path: Path) -> None:
    fake = tmp_path / "text.wav"
    fake.write_text("not audio")
    for audio in (tmp_path / "missing.wav", fake, [], None):
        with pytest.raises(AudioError):
            base_pipe(audio, **STEPS)
    with pytest.raises(ValueError, match="audio by level needs an adapter"):
        base_pipe({"background": LOW}, **STEPS)


def test_unknown_models_raise(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> None:
    with pytest.raises(ValueError, match="no base model 'nowhere/at-all'"):
        SoundPipeline.from_pretrained("nowhere/at-all", tiny_encoder)
    with pytest.raises(ValueError, match="no trained encoder"):
        SoundPipeline.from_pretrained(tiny_base, "nowhere/at-all")
    with pytest.raises(ValueError, match=r"there is no .* adapter in"):
        SoundPipeline.from_pretrained(tiny_base, tiny_encoder, "nowhere/at-all")
    with pytest.raises(ValueError, match="no device 'gpu'"):
        SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="gpu")
    with pytest.raises(ValueError, match="no scheduler 'slow'"):
        SoundPipeline.from_pretrained(tiny_base, tiny_encoder, scheduler="slow")


def test_generate_command_is_deterministic(
    tiny_base: str,
    tiny_encoder: AudioPromptEncoder,
    adapter_pipe: SoundPipeline,
    sound_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "encoder")
    assert adapter_pipe.attached is not None
    adapter_pipe.attached.save(tmp_path / "adapter")
    command = [
        str(sound_folder / "0.wav"), str(sound_folder / "2.wav"), "--base_model", tiny_base,
        "--encoder", str(tmp_path / "encoder"), "--adapter", str(tmp_path / "adapter"),
        "--prompt", "a dog barking", "--num_inference_steps", "2", "--num_images", "2",
        "--scheduler", "dpm", "--audio_levels", "foreground", "background", "--device", "cpu",
    ]  # fmt: skip
    for name in ("one", "two"):
        main([*command, "--output_dir", str(tmp_path / name)])
    paths = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert paths == ["seed-0.png", "seed-1.png"]
    for name in paths:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    metadata = json.loads(Image.open(tmp_path / "one" / "seed-1.png").text["soundprompt"])
    assert metadata["seed"] == 1 and metadata["prompt"] == "a dog barking"
    assert metadata["audio"][1] == {"audio": "2.wav", "level": "background"}
    assert metadata["scheduler"] == "DPMSolverMultistepScheduler"
    assert "seed-1.png" in capsys.readouterr().out


def test_generate_command_reports_errors(tmp_path: Path, sound_folder: Path) -> None:
    audio = str(sound_folder / "0.wav")
    with pytest.raises(SystemExit, match=r"diffuse\.generate: there is no trained encoder"):
        main([audio, "--encoder", str(tmp_path), "--output_dir", str(tmp_path)])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="is a file: give a folder"):
        main([audio, "--encoder", str(tmp_path), "--output_dir", str(tmp_path / "file")])


def test_attach_twice_raises(adapter_pipe: SoundPipeline, tiny_encoder: AudioPromptEncoder) -> None:
    assert adapter_pipe.attached is not None
    adapter = open_adapter(adapter_pipe.pipeline.unet, tiny_encoder)
    with pytest.raises(ValueError, match="already attached as 'adapter'"):
        attach(adapter_pipe.pipeline, adapter)
