"""Prompt space of SDXL: two text encoders, pooled embeds, zero unconditional embeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from align.models.encoder import AudioPromptEncoder
from align.preprocessing.text_embeds import CaptionEmbeds
from align.prompts.embeds import SpaceShape
from align.prompts.space import PromptSpace
from soundprompt.mini.build.clip import new_tokenizer
from tests.conftest import RATE, tone

CAPTIONS = ["a dog in the rain", "a bell", "a crow"]
WIDTH, POOLED = 16 + 24, 12


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Tiny SDXL pipeline."""
    torch.manual_seed(0)
    text = {
        "vocab_size": 699, "intermediate_size": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "bos_token_id": 697, "eos_token_id": 698, "pad_token_id": 698,
    }  # fmt: skip
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), attention_head_dim=2,
        addition_embed_type="text_time", addition_time_embed_dim=4,
        projection_class_embeddings_input_dim=6 * 4 + POOLED, cross_attention_dim=WIDTH,
        norm_num_groups=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=8,
    )  # fmt: skip
    tokenizer = new_tokenizer()
    folder = tmp_path_factory.mktemp("sdxl-base-1.0")
    StableDiffusionXLPipeline(
        vae=vae, unet=unet, scheduler=DDIMScheduler(), tokenizer=tokenizer, tokenizer_2=tokenizer,
        text_encoder=CLIPTextModel(CLIPTextConfig(hidden_size=16, **text)),
        text_encoder_2=CLIPTextModelWithProjection(
            CLIPTextConfig(hidden_size=24, projection_dim=POOLED, **text)
        ),
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.fixture(scope="module")
def space(base: str) -> PromptSpace:
    return PromptSpace.from_pretrained(base)


def generate(pipeline: StableDiffusionXLPipeline, **arguments: object) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        **arguments,
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images


def test_encode_uses_both_text_encoders(space: PromptSpace) -> None:
    prompts = space.encode(CAPTIONS)
    assert prompts.embeds.shape == (3, 77, WIDTH)
    assert prompts.pooled is not None
    assert prompts.pooled.shape == (3, POOLED)
    assert not torch.equal(prompts.pooled[0], prompts.pooled[1])


def test_unconditional_embeds_are_zero(space: PromptSpace) -> None:
    unconditional = space.unconditional
    assert unconditional.embeds.shape == (1, 77, WIDTH)
    assert not unconditional.embeds.any()
    assert unconditional.pooled is not None
    assert unconditional.pooled.shape == (1, POOLED)
    assert not unconditional.pooled.any()
    assert space.encode([""]).embeds.any()


def test_embeds_generate_same_image_as_text(base: str, space: PromptSpace) -> None:
    whole = StableDiffusionXLPipeline.from_pretrained(base)
    prompts = space.encode(CAPTIONS[:1])
    from_text = generate(whole, prompt=CAPTIONS[0])
    assert np.array_equal(
        generate(whole, **prompts.pipeline_kwargs(space.unconditional)), from_text
    )
    other = space.encode(CAPTIONS[1:2])
    assert not np.array_equal(
        generate(whole, **other.pipeline_kwargs(space.unconditional)), from_text
    )


def test_encoder_drives_pipeline_without_text_encoders(
    base: str, space: PromptSpace, tiny_clap: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    encoder = AudioPromptEncoder.from_backbone(
        tiny_clap,
        {"adapter_type": "resampler", "width": 16, "depth": 1, "heads": 2},
        {base: SpaceShape(base, 77, WIDTH, POOLED)},  # its name contains a dot
    )
    statistics = CaptionEmbeds.encode(space, CAPTIONS).statistics()
    assert list(statistics) == ["embeds", "pooled"]
    encoder.head().set_statistics(statistics, space.unconditional)
    encoder.save_pretrained(tmp_path)
    loaded = AudioPromptEncoder.from_pretrained(tmp_path)
    prompt = loaded.encode_prompt([tone(300), tone(3000)], sampling_rate=RATE)
    assert {name: tuple(value.shape) for name, value in prompt.items()} == {
        "prompt_embeds": (2, 77, WIDTH),
        "negative_prompt_embeds": (2, 77, WIDTH),
        "pooled_prompt_embeds": (2, POOLED),
        "negative_pooled_prompt_embeds": (2, POOLED),
    }
    assert not prompt["negative_prompt_embeds"].any()
    assert not prompt["negative_pooled_prompt_embeds"].any()
    assert not torch.equal(*prompt["pooled_prompt_embeds"])

    without = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    textless = StableDiffusionXLPipeline.from_pretrained(base, **without)
    low, high = generate(textless, **prompt)
    assert not np.array_equal(low, high)
    swapped = prompt | {"pooled_prompt_embeds": prompt["pooled_prompt_embeds"].flip(0)}
    assert not np.array_equal(generate(textless, **swapped)[0], low)
