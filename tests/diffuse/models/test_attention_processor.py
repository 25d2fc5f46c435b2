"""Audio attention: no effect with closed gates, conditions every pipeline with open ones."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoPipelineForImage2Image,
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
)
from diffusers.models.attention_processor import AttnProcessor2_0
from PIL import Image

from align.models.encoder import AudioPromptEncoder
from diffuse.models.adapter import SoundAdapter
from diffuse.models.attach import AttachedAdapters, attach
from diffuse.models.attention_processor import CROSS_ATTENTION_KWARG, AudioStates
from diffuse.models.conditioning import AudioConditioning
from diffuse.models.configuration import AdapterConfig

LENGTH, WIDTH = 77, 32


@pytest.fixture(scope="module")
def base(tiny_base: str) -> StableDiffusionPipeline:
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture
def pipeline(base: StableDiffusionPipeline) -> StableDiffusionPipeline:
    """A copy of the base pipeline that tests may change."""
    own = {name: copy.deepcopy(part) for name, part in base.components.items()}
    return StableDiffusionPipeline(**own)


def new_adapter(unet: Any, encoder: AudioPromptEncoder, **choices: Any) -> SoundAdapter:
    torch.manual_seed(1)
    return SoundAdapter.from_unet(
        unet, encoder, AdapterConfig(base_model="tiny", width=16, heads=2, **choices)
    )


def open_gates(adapter: SoundAdapter, value: float = 2.0) -> SoundAdapter:
    for gate in adapter.parameter_groups["gates"]:
        torch.nn.init.constant_(gate, value)
    return adapter


def some_audio(rows: int = 1, seed: int = 0) -> AudioConditioning:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(rows, 6, dtype=torch.bool)
    return AudioConditioning(
        torch.randn(rows, 6, WIDTH, generator=generator),
        mask,
        3 * torch.randn(rows, LENGTH, WIDTH, generator=generator),
    )


@pytest.fixture
def attached(
    pipeline: StableDiffusionPipeline, tiny_encoder: AudioPromptEncoder
) -> AttachedAdapters:
    """An adapter with open gates attached to the pipeline, with audio set."""
    attached = attach(pipeline, open_gates(new_adapter(pipeline.unet, tiny_encoder)))
    attached.play(some_audio())
    return attached


def generate(pipeline: Any, prompt: Any = "a dog barking", **options: Any) -> np.ndarray:
    rest = {"num_inference_steps": 2, "guidance_scale": 5.0, "output_type": "np"} | options
    images: np.ndarray = pipeline(prompt, generator=torch.Generator().manual_seed(0), **rest).images
    return images


def same(one: np.ndarray, other: np.ndarray) -> bool:
    assert one.shape == other.shape and one.size
    return bool((one == other).all())


@pytest.mark.parametrize("attention_type", ["shared", "sonic"])
@pytest.mark.parametrize("rank", [0, 2])
def test_untrained_adapter_keeps_base_bitwise(
    pipeline: Any, tiny_encoder: AudioPromptEncoder, attention_type: str, rank: int
) -> None:
    before = generate(pipeline)
    attached = attach(
        pipeline,
        new_adapter(pipeline.unet, tiny_encoder, attention_type=attention_type, lora_rank=rank),
    )
    attached.play(some_audio())
    assert same(generate(pipeline), before)
    open_gates(attached.adapters["adapter"])
    attached.play(some_audio())
    assert not same(generate(pipeline), before), "an open gate has an effect"
    attached.set_audio_scale(0.0)
    assert same(generate(pipeline), before)


def test_image_depends_on_audio_only(pipeline: Any, attached: AttachedAdapters) -> None:
    first = generate(pipeline)
    attached.play(some_audio(seed=1))
    assert not same(generate(pipeline), first)
    attached.play(some_audio(seed=0))
    assert same(generate(pipeline), first)
    attached.clear_audio()
    assert not same(generate(pipeline), first)


def test_detach_restores_base(pipeline: Any, tiny_encoder: AudioPromptEncoder) -> None:
    before, weights = generate(pipeline), copy.deepcopy(pipeline.unet.state_dict())
    kinds = {n: type(p) for n, p in pipeline.unet.attn_processors.items()}
    adapter = open_gates(new_adapter(pipeline.unet, tiny_encoder, lora_rank=2))
    attached = attach(pipeline, adapter)
    attached.play(some_audio())
    generate(pipeline)
    attached.detach()
    assert same(generate(pipeline), before)
    after = pipeline.unet.state_dict()
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)
    assert {n: type(p) for n, p in pipeline.unet.attn_processors.items()} == kinds
    assert not pipeline.unet._forward_pre_hooks and not pipeline.unet._forward_hooks


def test_prompt_still_conditions_image(pipeline: Any, attached: AttachedAdapters) -> None:
    assert not same(generate(pipeline, "a dog barking"), generate(pipeline, "rain falling"))


def test_unconditional_half_has_no_audio(pipeline: Any, attached: AttachedAdapters) -> None:
    seen: list[AudioStates] = []
    attention = pipeline.unet.mid_block.attentions[0].transformer_blocks[0].attn2
    original = attention.processor

    class RecordingProcessor:
        def __call__(self, attn: Any, *args: Any, ip_hidden_states: Any = None, **kw: Any) -> Any:
            seen.append(ip_hidden_states)
            return original(attn, *args, ip_hidden_states=ip_hidden_states, **kw)

    name = "mid_block.attentions.0.transformer_blocks.0.attn2"
    attached._processors[name] = recorder = RecordingProcessor()
    attention.set_processor(recorder)
    generate(pipeline)
    (audio,) = seen[0][name]
    assert audio.values.shape[0] == 2
    assert not audio.values[0].any() and audio.values[1].any()
    assert seen[0] is seen[1], "keys and values are computed once per image, not per step"


def test_guidance_scale_one_uses_audio(pipeline: Any, attached: AttachedAdapters) -> None:
    with_audio = generate(pipeline, guidance_scale=1.0)
    attached.clear_audio()
    assert not same(generate(pipeline, guidance_scale=1.0), with_audio)


def test_two_clips_with_two_images_each(pipeline: Any, attached: AttachedAdapters) -> None:
    both = some_audio(2)
    prompts, options = ["a dog barking", "rain falling"], {"num_images_per_prompt": 2}
    noise = [torch.Generator().manual_seed(i) for i in range(4)]
    attached.play(both)
    rest = {"num_inference_steps": 2, "guidance_scale": 5.0, "output_type": "np"}
    together = pipeline(prompts, generator=noise, **options, **rest).images
    for row in range(2):
        one = (part[row : row + 1] for part in (both.tokens, both.mask, both.embeds))
        attached.play(type(both)(*one))
        noise = [torch.Generator().manual_seed(2 * row + i) for i in range(2)]
        alone = pipeline(prompts[row], generator=noise, **options, **rest).images
        np.testing.assert_allclose(together[2 * row : 2 * row + 2], alone, atol=2e-5)
    attached.play(some_audio(3))
    with pytest.raises(ValueError, match="3 clips were given for 2 images"):
        generate(pipeline, prompts)


def _img2img(pipeline: Any) -> Callable[[], np.ndarray]:
    other = AutoPipelineForImage2Image.from_pipe(pipeline)
    image = Image.new("RGB", (16, 16), "red")
    return lambda: generate(other, image=image, strength=0.9)


def _inpaint(pipeline: Any) -> Callable[[], np.ndarray]:
    other = StableDiffusionInpaintPipeline(**pipeline.components)
    image, mask = Image.new("RGB", (16, 16), "red"), Image.new("L", (16, 16), 255)
    return lambda: generate(other, image=image, mask_image=mask, height=16, width=16)


def _control_net(pipeline: Any) -> Callable[[], np.ndarray]:
    net = ControlNetModel.from_unet(pipeline.unet, conditioning_embedding_out_channels=(8, 16))
    other = StableDiffusionControlNetPipeline(**pipeline.components, controlnet=net)
    return lambda: generate(other, image=Image.new("RGB", (16, 16), "blue"))


@pytest.mark.parametrize("kind", [_img2img, _inpaint, _control_net])
@pytest.mark.parametrize("audio_guidance_scale", [None, 3.0])
def test_diffusers_pipelines_condition_on_audio(
    base: Any, tiny_encoder: AudioPromptEncoder, kind: Any, audio_guidance_scale: float | None
) -> None:
    pipeline = StableDiffusionPipeline(**{**base.components, "unet": copy.deepcopy(base.unet)})
    run = kind(pipeline)
    before = run()
    other = run.__closure__[0].cell_contents if kind is _control_net else None
    other = other or next(
        c.cell_contents for c in run.__closure__ if hasattr(c.cell_contents, "unet")
    )
    attached = attach(other, open_gates(new_adapter(pipeline.unet, tiny_encoder)))
    attached.set_audio_guidance_scale(audio_guidance_scale)
    attached.play(some_audio())
    assert not same(run(), before)
    attached.set_audio_scale(0.0)
    assert same(run(), before)
    attached.detach()
    assert same(run(), before)


def test_audio_guidance_matches_formula(pipeline: Any, attached: AttachedAdapters) -> None:
    latents, timestep = torch.randn(2, 4, 8, 8), torch.tensor(500)
    text = torch.randn(2, LENGTH, WIDTH)
    unet, audio = pipeline.unet, attached.project(some_audio())
    pipeline._guidance_scale, audio_guidance_scale = 5.0, 2.0

    def predict(rows: slice) -> torch.Tensor:
        with torch.no_grad():
            noise_pred: torch.Tensor = unet(latents[rows], timestep, text[rows]).sample
        return noise_pred

    attached.clear_audio()
    unconditional, text_only = predict(slice(0, 1)), predict(slice(1, 2))
    attached.play(audio, guided=False)
    both = predict(slice(1, 2))
    expected = (
        unconditional + 5 * (text_only - unconditional) + audio_guidance_scale * (both - text_only)
    )
    attached.play(audio, guided=True)
    attached.set_audio_guidance_scale(audio_guidance_scale)
    u, c = predict(slice(0, 2)).chunk(2)
    torch.testing.assert_close(u + 5 * (c - u), expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("attention_type", ["shared", "sonic"])
def test_gradient_checkpointing_keeps_gradients(
    pipeline: Any, tiny_encoder: AudioPromptEncoder, attention_type: str
) -> None:
    unet = pipeline.unet
    adapter = open_gates(
        new_adapter(unet, tiny_encoder, attention_type=attention_type, lora_rank=2)
    )
    attached = attach(unet, adapter)
    weights = attached.train_only(*adapter.parameter_groups, "lora")
    found = []
    for checkpointing in (False, True):
        unet.train()
        (unet.enable_gradient_checkpointing if checkpointing else lambda: None)()
        loss, _ = _step(unet, adapter)
        loss.backward()
        found.append([loss.detach()] + [w.grad.clone() for w in weights if w.grad is not None])
        for weight in weights:
            weight.grad = None
    assert len(found[0]) == len(found[1]) > len(weights) / 2
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def _step(unet: Any, adapter: SoundAdapter) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(2, 4, 8, 8, generator=generator)
    text = torch.randn(2, LENGTH, WIDTH, generator=generator)
    clips = some_audio(2)
    audio = adapter(clips.tokens, clips.mask, clips.embeds, dtype=unet.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = unet(
            latents,
            torch.tensor([10, 500]),
            text,
            cross_attention_kwargs={CROSS_ATTENTION_KWARG: audio},
        ).sample
    return (out - torch.randn(out.shape, generator=generator)).square().mean(), out


@pytest.mark.parametrize("attention_type", ["shared", "sonic"])
def test_all_trainable_parameters_get_gradients(
    pipeline: Any, tiny_encoder: AudioPromptEncoder, attention_type: str
) -> None:
    unet = pipeline.unet
    adapter = new_adapter(unet, tiny_encoder, attention_type=attention_type, lora_rank=2)
    attached = attach(unet, adapter)
    weights = attached.train_only(*adapter.parameter_groups, "lora")
    frozen = {n: p.clone() for n, p in unet.named_parameters() if not p.requires_grad}
    trained = set(map(id, weights))
    everything = [*adapter.parameters(), *(p for n, p in unet.named_parameters() if "lora" in n)]
    assert trained == set(map(id, everything))
    optimizer = torch.optim.SGD(weights, 10.0)
    for _ in range(3):
        optimizer.zero_grad()
        _step(unet, adapter)[0].backward()
        optimizer.step()
    named = {**dict(adapter.named_parameters()), **dict(unet.named_parameters())}
    without_gradient = [n for n, p in named.items() if p.requires_grad and not p.grad.any()]
    assert frozen and not without_gradient
    after = dict(unet.named_parameters())
    assert all(torch.equal(after[n], value) for n, value in frozen.items())


def test_closed_gates_block_gradients(pipeline: Any, tiny_encoder: AudioPromptEncoder) -> None:
    adapter = new_adapter(pipeline.unet, tiny_encoder)
    attach(pipeline.unet, adapter).train_only("attention", "gates", "projector")
    _step(pipeline.unet, adapter)[0].backward()
    assert all(gate.grad.any() for gate in adapter.parameter_groups["gates"])
    assert not any(weight.grad.any() for weight in adapter.parameter_groups["attention"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_trained_weights_stay_in_float32(
    pipeline: Any, tiny_encoder: AudioPromptEncoder, dtype: torch.dtype
) -> None:
    pipeline.to(dtype)
    adapter = open_gates(new_adapter(pipeline.unet, tiny_encoder, lora_rank=2))
    attached = attach(pipeline, adapter)
    weights = attached.train_only(*adapter.parameter_groups, "lora")
    assert weights and all(weight.dtype == torch.float32 for weight in weights)
    attached.play(some_audio())
    latents = torch.randn(1, 4, 8, 8).to(dtype)
    text = torch.randn(1, LENGTH, WIDTH).to(dtype)

    def predict() -> torch.Tensor:
        noise_pred: torch.Tensor = pipeline.unet(latents, 500, text).sample
        return noise_pred

    with_audio = predict()
    assert with_audio.dtype == dtype and with_audio.isfinite().all()
    attached.clear_audio()
    assert not torch.equal(predict(), with_audio)


def test_keep_audio_false_has_no_audio(pipeline: Any, tiny_encoder: AudioPromptEncoder) -> None:
    adapter = open_gates(new_adapter(pipeline.unet, tiny_encoder))
    attach(pipeline, adapter)
    latents, text, clips = torch.randn(2, 4, 8, 8), torch.randn(2, LENGTH, WIDTH), some_audio(2)

    def predict(keep: torch.Tensor | None) -> torch.Tensor:
        audio = adapter(clips.tokens, clips.mask, clips.embeds, keep)
        extra = (
            {"cross_attention_kwargs": {CROSS_ATTENTION_KWARG: audio}} if keep is not None else {}
        )
        noise_pred: torch.Tensor = pipeline.unet(latents, 500, text, **extra).sample
        return noise_pred

    with torch.no_grad():
        base, found = predict(None), predict(torch.tensor([False, True]))
    assert torch.equal(found[0], base[0]) and not torch.equal(found[1], base[1])


def test_gated_sum_precedes_output_projection(
    pipeline: Any, tiny_encoder: AudioPromptEncoder
) -> None:
    name = "mid_block.attentions.0.transformer_blocks.0.attn2"
    adapter = open_gates(new_adapter(pipeline.unet, tiny_encoder), 0.4)
    attach(pipeline, adapter)
    attn = pipeline.unet.get_submodule(name)
    torch.nn.init.constant_(attn.to_out[0].bias, 5.0)
    hidden, text, tokens = torch.randn(1, 9, 32), torch.randn(1, 7, WIDTH), torch.randn(1, 10, 32)
    with torch.no_grad():
        layer, query = adapter.layer(name), attn.to_q(hidden)

        def attention(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
            shape = (1, -1, attn.heads, 32 // attn.heads)
            q, k, v = (t.view(shape).transpose(1, 2) for t in (query, keys, values))
            weights = torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1)
            return (weights @ v).transpose(1, 2).reshape(1, -1, 32)

        text_part = attention(attn.to_k(text), attn.to_v(text))
        audio_part = attention(layer.to_k(tokens), layer.to_v(tokens))
        expected = attn.to_out[0](text_part + torch.tanh(torch.tensor(0.4)) * audio_part)
        found = attn(hidden, text, ip_hidden_states=adapter.compute_key_values(tokens))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_replaced_processors_raise(pipeline: Any, attached: AttachedAdapters) -> None:
    pipeline.unet.set_attn_processor(AttnProcessor2_0())
    with pytest.raises(RuntimeError, match="replaced after the audio adapter was attached"):
        generate(pipeline)


def test_unet_without_pipeline_requires_guided(
    pipeline: Any, tiny_encoder: AudioPromptEncoder
) -> None:
    attached = attach(pipeline.unet, open_gates(new_adapter(pipeline.unet, tiny_encoder)))
    attached.play(some_audio())
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, LENGTH, WIDTH)
    with pytest.raises(ValueError, match="no pipeline reports whether"):
        pipeline.unet(latents, 500, text)
    attached.play(some_audio(), guided=True)
    assert pipeline.unet(latents, 500, text).sample.shape == latents.shape


def test_video_conditions_every_frame(
    base: Any, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    from diffusers import AnimateDiffPipeline, MotionAdapter

    from tests.helpers.pipelines import save_motion_adapter

    motion = MotionAdapter.from_pretrained(save_motion_adapter(tmp_path))
    parts = {**base.components, "unet": copy.deepcopy(base.unet)}
    for name in ("safety_checker", "requires_safety_checker"):
        parts.pop(name, None)
    video = AnimateDiffPipeline(**parts, motion_adapter=motion)
    adapter = open_gates(new_adapter(base.unet, tiny_encoder))

    def frames() -> np.ndarray:
        found: np.ndarray = video(
            "rain", num_frames=3, num_inference_steps=2, guidance_scale=5.0, output_type="np",
            generator=torch.Generator().manual_seed(0), height=16, width=16,
        ).frames[0]  # fmt: skip
        return found

    before = frames()
    attached = attach(video, adapter)
    attached.play(some_audio())
    with_audio = frames()
    assert len(with_audio) == 3
    assert all((one != other).any() for one, other in zip(with_audio, before, strict=True))
    attached.detach()
    assert same(frames(), before)
