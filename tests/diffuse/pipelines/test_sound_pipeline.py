"""Pictures of sounds through the one door, and from the command line."""

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
from diffuse.models import saving as folder
from diffuse.models.adapter import SoundAdapter
from diffuse.models.attach import attach
from diffuse.models.configuration import AdapterConfig
from diffuse.pipelines.sound_pipeline import SoundPipeline
from tests.conftest import RATE, tone

STEPS = {"num_inference_steps": 2}


def loud_adapter(unet: Any, encoder: AudioPromptEncoder) -> SoundAdapter:
    torch.manual_seed(1)
    adapter = SoundAdapter.from_unet(
        unet, encoder, AdapterConfig(base_model="tiny", width=16, heads=2)
    )
    for gate in adapter.parameter_groups["gates"]:
        torch.nn.init.constant_(gate, 2.0)
    return adapter


@pytest.fixture(scope="module")
def silent(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> SoundPipeline:
    """Without an adapter."""
    return SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="cpu")


@pytest.fixture(scope="module")
def hearing(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> SoundPipeline:
    """With an adapter that is heard."""
    pipe = SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="cpu")
    adapter = loud_adapter(pipe.pipeline.unet, tiny_encoder)
    return SoundPipeline(pipe.pipeline, tiny_encoder, adapter, tiny_base)


LOW, HIGH = (RATE, tone(200)), (RATE, tone(4000))


def pixels(drawn: Any) -> np.ndarray:
    return np.stack([np.asarray(image) for image in drawn.images])


def differ(one: Any, other: Any) -> bool:
    return bool((pixels(one) != pixels(other)).any())


@pytest.mark.parametrize("which", ["silent", "audio_attention"])
def test_the_same_call_draws_the_same_and_another_sound_another(
    which: str, request: pytest.FixtureRequest
) -> None:
    pipe = request.getfixturevalue(which)
    first = pipe(LOW, **STEPS)
    pipe(HIGH, "a dog barking", **STEPS)  # nothing of it stays
    assert not differ(first, pipe(LOW, **STEPS))
    assert differ(first, pipe(HIGH, **STEPS))
    assert differ(first, pipe(LOW, seed=1, **STEPS))


def test_without_text_the_prompt_is_what_the_encoder_says(
    silent: SoundPipeline, tiny_encoder: AudioPromptEncoder
) -> None:
    stock = silent.pipeline(
        **tiny_encoder.encode_prompt(LOW),
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        **STEPS,
    )
    np.testing.assert_array_equal(pixels(silent(LOW, **STEPS)), pixels(stock))


@pytest.mark.parametrize("which", ["silent", "audio_attention"])
def test_at_audio_scale_zero_there_is_only_the_text(
    which: str, request: pytest.FixtureRequest
) -> None:
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
def test_every_option_changes_the_picture(hearing: SoundPipeline, changed: Any) -> None:
    plain = {"prompt": "a dog barking", "relation": "none", **STEPS}
    first, second = hearing(LOW, **plain), hearing(LOW, **{**plain, **changed})
    if "height" in changed:
        assert second.images[0].size == (16, 32)
    else:
        assert differ(first, second)


def test_several_sounds_count_by_their_weights(hearing: SoundPipeline) -> None:
    plain = {"prompt": "a dog barking", "relation": "none", **STEPS}
    both = hearing([LOW, HIGH], audio_weights=[3, 1], **plain)
    assert differ(both, hearing([LOW, HIGH], audio_weights=[1, 3], **plain))
    alone = hearing(LOW, **plain)
    np.testing.assert_allclose(
        pixels(hearing([LOW, HIGH], audio_weights=[1, 0], **plain)).astype(int),
        pixels(alone).astype(int),
        atol=1,
    )


def test_what_contradicts_the_text_is_put_behind_it(hearing: SoundPipeline) -> None:
    said: dict[str, Any] = {"prompt": "a dog barking", **STEPS}
    beside = hearing(LOW, relation="matching", **said)
    behind = hearing(LOW, relation="contradictory", **said)
    assert differ(beside, behind) and behind.metadata["audio_scale"] == 1.0
    mute = {"level_scales": {"background": 0.0, "ambience": 0.0}}
    deaf = hearing(LOW, relation="contradictory", **mute, **said)
    other = hearing(HIGH, relation="contradictory", **mute, **said)
    assert not differ(deaf, other), "nothing of the sound is left in front"
    assert differ(behind, hearing(HIGH, relation="contradictory", **said))


def test_only_the_background_can_come_from_another_sound(hearing: SoundPipeline) -> None:
    plain = {"prompt": "a dog barking", "relation": "none", **STEPS}
    same = hearing({"foreground": LOW, "background": LOW}, **plain)
    assert not differ(hearing({"foreground": LOW}, **plain), hearing(LOW, **plain))
    swapped = hearing({"foreground": LOW, "background": HIGH}, **plain)
    assert differ(same, swapped)
    mute = {"level_scales": {"background": 0.0}, **plain}
    assert not differ(
        hearing({"foreground": LOW, "background": HIGH}, **mute),
        hearing({"foreground": LOW, "background": LOW}, **mute),
    )


def test_pictures_count_on_from_the_seed(hearing: SoundPipeline) -> None:
    three = hearing(LOW, "rain", num_images=3, seed=5, **STEPS)
    assert len(three.images) == 3
    second = hearing(LOW, "rain", seed=6, **STEPS)
    gap = np.abs(pixels(three)[1].astype(int) - pixels(second)[0].astype(int))
    assert gap.max() <= 1


def test_a_callback_sees_every_step_and_stops(hearing: SoundPipeline) -> None:
    seen: list[tuple[int, int]] = []
    hearing(LOW, num_inference_steps=3, callback=lambda *told: seen.append(told))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    seen.clear()

    def stop(done: int, steps: int) -> bool:
        seen.append((done, steps))
        return done == 2

    drawn = hearing(LOW, num_inference_steps=5, callback=stop)
    assert (2, 5) in seen
    assert drawn.metadata["stopped"] is True
    assert hearing(LOW, **STEPS).metadata["stopped"] is False


def test_settings_tell_everything_as_json(hearing: SoundPipeline) -> None:
    drawn = hearing([LOW, HIGH], "a dog barking", audio_weights=[1, 3], **STEPS)
    told = json.loads(json.dumps(drawn.metadata))
    assert [sound["weight"] for sound in told["sounds"]] == [0.25, 0.75]
    assert told["prompt"] == "a dog barking" and told["scheduler"] == "DDIMScheduler"
    assert drawn.relation is not None and told["relation"] == drawn.relation.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"audio_guidance_scale": 2.0}, "audio_guidance needs an adapter"),
        ({"level_scales": {"foreground": 1.0}}, "level_scales needs an adapter"),
        ({"prompt": ""}, "without text and without an adapter"),
        ({"num_images": 0}, "num_images is at least 1, not 0"),
        ({"relation": "friendly", "prompt": "rain"}, "no relation 'friendly'"),
        ({"weights": [1.0, 2.0]}, "1 recordings and 2 weights"),
        ({"audio_interval": (0.0, 0.5)}, "audio_steps needs an adapter"),
        ({"audio_scale": float("nan")}, "audio_scale is a number from 0 on, not nan"),
        ({"guidance_scale": -1.0}, "guidance_scale is a number from 0 on, not -1"),
        ({"seed": -1}, "seed is a whole number"),
        ({"height": 63}, "height is a multiple of 8 pixels, not 63"),
        ({"width": 0}, "width is a multiple of 8 pixels, not 0"),
    ],
)
def test_what_does_not_fit_is_refused(silent: SoundPipeline, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        silent(LOW, **{**STEPS, **options})


def test_a_side_given_alone_is_kept_to(silent: SoundPipeline) -> None:
    own = silent(LOW, **STEPS).images[0].size
    assert own[0] != 32
    assert silent(LOW, width=32, **STEPS).images[0].size == (32, own[1])
    assert silent(LOW, height=32, **STEPS).images[0].size == (own[0], 32)


def test_adapters_are_exchanged_on_one_base(
    tiny_base: str, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    pipe = SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="cpu")
    plain = {"prompt": "a dog barking", "relation": "none", "audio_scale": 1.0, **STEPS}
    without = pipe(LOW, **plain)
    saved = tmp_path / "adapter"
    folder.save_adapter(loud_adapter(pipe.pipeline.unet, tiny_encoder), saved)
    pipe.set_adapter(str(saved))
    heard = pipe(LOW, **plain)
    assert differ(without, heard) and heard.metadata["sound"] == str(saved)
    pipe.set_adapter(str(saved))
    assert not differ(heard, pipe(LOW, **plain))
    with pytest.raises(ValueError, match="no sound adapter in"):
        pipe.set_adapter(str(tmp_path / "none"))
    again = pipe(LOW, **plain)
    assert not differ(without, again) and "sound" not in again.metadata


def test_bad_sounds_are_refused(silent: SoundPipeline, tmp_path: Path) -> None:
    fake = tmp_path / "text.wav"
    fake.write_text("not a sound")
    for sound in (tmp_path / "missing.wav", fake, [], None):
        with pytest.raises(AudioError):
            silent(sound, **STEPS)
    with pytest.raises(ValueError, match="sounds by level need an adapter"):
        silent({"background": LOW}, **STEPS)


def test_unknown_models_are_named(tiny_base: str, tiny_encoder: AudioPromptEncoder) -> None:
    with pytest.raises(ValueError, match="no base 'nowhere/at-all'"):
        SoundPipeline.from_pretrained("nowhere/at-all", tiny_encoder)
    with pytest.raises(ValueError, match="no trained encoder"):
        SoundPipeline.from_pretrained(tiny_base, "nowhere/at-all")
    with pytest.raises(ValueError, match="no sound adapter in"):
        SoundPipeline.from_pretrained(tiny_base, tiny_encoder, "nowhere/at-all")
    with pytest.raises(ValueError, match="no device 'gpu'"):
        SoundPipeline.from_pretrained(tiny_base, tiny_encoder, device="gpu")
    with pytest.raises(ValueError, match="no scheduler 'slow'"):
        SoundPipeline.from_pretrained(tiny_base, tiny_encoder, scheduler="slow")


def test_the_command_writes_the_same_bytes_again(
    tiny_base: str,
    tiny_encoder: AudioPromptEncoder,
    hearing: SoundPipeline,
    sound_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tiny_encoder.save_pretrained(tmp_path / "encoder")
    assert hearing.attached is not None
    hearing.attached.save(tmp_path / "adapter")
    command = [
        str(sound_folder / "0.wav"), str(sound_folder / "2.wav"), "--base_model", tiny_base,
        "--encoder", str(tmp_path / "encoder"), "--adapter", str(tmp_path / "adapter"),
        "--prompt", "a dog barking", "--num_inference_steps", "2", "--num_images", "2", "--scheduler", "dpm",
        "--audio_levels", "foreground", "background", "--device", "cpu",
    ]  # fmt: skip
    for name in ("one", "two"):
        main([*command, "--out", str(tmp_path / name)])
    paths = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert paths == ["seed-0.png", "seed-1.png"]
    for name in paths:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    told = json.loads(Image.open(tmp_path / "one" / "seed-1.png").text["soundprompt"])
    assert told["seed"] == 1 and told["prompt"] == "a dog barking"
    assert told["sounds"][1] == {"audio": "2.wav", "level": "background"}
    assert told["scheduler"] == "DPMSolverMultistepScheduler"
    assert "seed-1.png" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(tmp_path: Path, sound_folder: Path) -> None:
    sound = str(sound_folder / "0.wav")
    with pytest.raises(SystemExit, match=r"diffuse\.generate: there is no trained encoder"):
        main([sound, "--encoder", str(tmp_path), "--out", str(tmp_path)])
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="is a file: give a folder"):
        main([sound, "--encoder", str(tmp_path), "--out", str(tmp_path / "file")])


def test_an_attached_base_is_not_attached_twice(
    hearing: SoundPipeline, tiny_encoder: AudioPromptEncoder
) -> None:
    assert hearing.attached is not None
    adapter = loud_adapter(hearing.pipeline.unet, tiny_encoder)
    with pytest.raises(ValueError, match="attached as 'sound' already"):
        attach(hearing.pipeline, adapter)
