"""Prompt space, embed statistics and caption targets."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline

from align.models.heads import Head
from align.preprocessing.text_embeds import CaptionEmbeds, LabelMixture
from align.prompts.embeds import STD_CEILING, STD_FLOOR, EmbedStatistics, PromptEmbeds, SpaceShape
from align.prompts.space import PromptSpace
from align.registry import BASE_MODELS, lookup

CAPTIONS = ["a dog in the rain", "a bell", "waves on a beach at night", "a crow"]


@pytest.fixture(scope="module")
def space(tiny_base: str) -> PromptSpace:
    return PromptSpace.from_pretrained(tiny_base)


@pytest.fixture(scope="module")
def pipeline(tiny_base: str) -> StableDiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(tiny_base)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline: StableDiffusionPipeline, **arguments: object) -> np.ndarray:
    return pipeline(
        **arguments,
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images


def varied_embeds() -> torch.Tensor:
    """Return 16 embeds (5, 8) with constant, low-variance, outlier and nearly constant entries."""
    embeds = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(0)) + 4.0
    embeds[:, 0] = torch.arange(8.0)
    embeds[:, 1:, 1] *= 0.1
    embeds[:, 1:, 2] = 5.0 + 1e-6 * embeds[:, 1:, 2]
    embeds[:, 3, 3] *= 30.0
    return embeds


def test_restore_inverts_standardize() -> None:
    embeds = varied_embeds()
    statistics = EmbedStatistics.of(embeds)
    restored = statistics.restore(statistics.standardize(embeds))
    torch.testing.assert_close(restored, embeds, rtol=1e-5, atol=1e-5)
    # Constant entries get the stored value, whatever the input.
    anything = statistics.restore(torch.full_like(embeds, 9.0))
    assert torch.equal(anything[:, 0], embeds[:, 0])
    assert not torch.allclose(anything[:, 4], embeds[:, 4])


def test_standardize_centers_and_scales() -> None:
    embeds = 3.0 * torch.randn(64, 4, 6, generator=torch.Generator().manual_seed(0)) + 2.0
    standard = EmbedStatistics.of(embeds).standardize(embeds)
    torch.testing.assert_close(standard.mean(0), torch.zeros(4, 6), rtol=0, atol=1e-5)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(4, 6))


def test_nearly_constant_entries_are_constant() -> None:
    embeds = varied_embeds()
    statistics = EmbedStatistics.of(embeds[:, :3])  # without the outlier
    expected = torch.zeros(3, 8, dtype=torch.bool)
    expected[0], expected[1:, 2] = True, True
    assert torch.equal(statistics.constant, expected)
    assert (statistics.std[expected] == 1).all()
    assert not statistics.standardize(embeds[:, :3])[:, expected].any()


def test_std_is_clipped() -> None:
    embeds = torch.randn(500, 100, 100, generator=torch.Generator().manual_seed(0))
    embeds[:, 0, 0] *= 0.01
    embeds[:, 1, 1] *= 1000.0
    plain = embeds.std(0, correction=0)
    overall = plain.square().mean().sqrt()
    assert plain[0, 0] < STD_FLOOR * overall
    assert plain[1, 1] > STD_CEILING * overall
    spread = EmbedStatistics.of(embeds).std
    torch.testing.assert_close(spread[0, 0], STD_FLOOR * overall)
    torch.testing.assert_close(spread[1, 1], STD_CEILING * overall)
    torch.testing.assert_close(spread[2:], plain[2:].clamp(min=STD_FLOOR * overall))


def test_statistics_of_one_embed_are_constant() -> None:
    embeds = varied_embeds()[:1]
    statistics = EmbedStatistics.of(embeds)
    assert statistics.constant.all()
    assert torch.equal(statistics.restore(torch.randn(2, 5, 8)), embeds.expand(2, -1, -1))
    assert not statistics.standardize(embeds).any()


def test_embeds_generate_same_image_as_text(
    space: PromptSpace, pipeline: StableDiffusionPipeline
) -> None:
    from_text = generate(pipeline, prompt=CAPTIONS[0])
    embeds = space.encode(CAPTIONS[:1]).embeds
    unconditional = space.unconditional.embeds
    assert np.array_equal(
        generate(pipeline, prompt_embeds=embeds, negative_prompt_embeds=unconditional), from_text
    )
    other = space.encode(CAPTIONS[1:2]).embeds
    assert not np.array_equal(
        generate(pipeline, prompt_embeds=other, negative_prompt_embeds=unconditional), from_text
    )
    assert not np.array_equal(
        generate(pipeline, prompt_embeds=embeds, negative_prompt_embeds=other), from_text
    )


def test_unconditional_embeds_match_pipeline(
    space: PromptSpace, pipeline: StableDiffusionPipeline
) -> None:
    _, negative = pipeline.encode_prompt(CAPTIONS[0], "cpu", 1, True)
    assert torch.equal(space.unconditional.embeds, negative)
    assert space.unconditional.pooled is None


def test_encode_does_not_depend_on_batch_size(space: PromptSpace) -> None:
    together = space.encode(CAPTIONS)
    assert together.embeds.shape == (4, 77, 32)
    assert together.embeds.dtype == torch.float32
    assert together.pooled is None
    torch.testing.assert_close(space.encode(CAPTIONS, batch_size=3).embeds, together.embeds)
    with pytest.raises(ValueError, match="no captions"):
        space.encode([])
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size must be at least 1, not {size}"):
            space.encode(CAPTIONS, batch_size=size)


def test_encode_empty_caption(space: PromptSpace) -> None:
    assert torch.equal(space.encode("").embeds, space.encode([""]).embeds)
    assert torch.equal(space.encode("").embeds, space.unconditional.embeds)


def test_pipeline_kwargs() -> None:
    one, two = torch.ones(1, 2, 3), torch.zeros(1, 2, 3)
    plain = PromptEmbeds(one).pipeline_kwargs(PromptEmbeds(two))
    assert plain == {"prompt_embeds": one, "negative_prompt_embeds": two}
    pooled = PromptEmbeds(one, one[0]).pipeline_kwargs(PromptEmbeds(two, two[0]))
    assert list(pooled) == [
        "prompt_embeds",
        "negative_prompt_embeds",
        "pooled_prompt_embeds",
        "negative_pooled_prompt_embeds",
    ]
    assert pooled["pooled_prompt_embeds"].all()
    assert not pooled["negative_pooled_prompt_embeds"].any()


def test_caption_embeds_are_unique(space: PromptSpace) -> None:
    rows = [CAPTIONS[i] for i in (2, 0, 2, 2, 1)]
    table = CaptionEmbeds.encode(space, rows)
    assert table.captions == [CAPTIONS[2], CAPTIONS[0], CAPTIONS[1]]
    assert table.weights.tolist() == [3, 1, 1]
    assert table.index(rows).tolist() == [0, 1, 0, 0, 2]
    torch.testing.assert_close(table.prompts.embeds[table.index(rows)], space.encode(rows).embeds)
    assert list(table.statistics()) == ["embeds"]
    constant = table.statistics()["embeds"].constant
    assert constant[0].all()  # every prompt begins with the same token
    assert not constant[1:].all()


def test_label_means_weight_rows() -> None:
    embeds = torch.tensor([[[1.0]], [[2.0]], [[10.0]]])
    mixture = LabelMixture(torch.tensor([2, 0, 0, 1]), ["sea", "dog", "dog", "dog"])
    assert mixture.names == ["dog", "sea"]
    torch.testing.assert_close(mixture.all_means(embeds), torch.tensor([[[4 / 3]], [[10.0]]]))


def test_head_stores_statistics(space: PromptSpace) -> None:
    head = Head(
        8, SpaceShape("tiny", 77, 32), {"adapter_type": "resampler", "width": 8, "heads": 2}
    )
    table = CaptionEmbeds.encode(space, CAPTIONS)
    expected = table.statistics()["embeds"]
    head.set_statistics({"embeds": expected}, space.unconditional)
    for name in ("mean", "std", "constant"):
        assert torch.equal(getattr(head.statistics(), name), getattr(expected, name))
    assert torch.equal(head.unconditional(3).embeds, space.unconditional.embeds.expand(3, -1, -1))
    embeds, pooled = head.eval()(torch.randn(2, 4, 8), torch.ones(2, 4, dtype=torch.bool))
    assert pooled is None
    assert not embeds[:, expected.constant].any()
    assert embeds[:, ~expected.constant].all()
    assert torch.equal(head.to_prompt_embeds(embeds, None).embeds, expected.restore(embeds))


def test_lookup() -> None:
    from soundprompt.mini.models import STABLE_DIFFUSION

    assert lookup(BASE_MODELS, "mini") == STABLE_DIFFUSION
    assert lookup(BASE_MODELS, "some/hub-id") == "some/hub-id"
    assert lookup({"space": "types:SimpleNamespace"}, "space") is SimpleNamespace


def test_caption_embeds_select_shares_storage(tiny_base: str) -> None:
    space = PromptSpace.from_pretrained(tiny_base)
    table = CaptionEmbeds.encode(space, ["a dog", "rain", "rain", "a fire"])
    part = table.select(["a fire", "rain", "a fire"])
    assert part.prompts is table.prompts
    assert part.captions == ["a fire", "rain"] and part.weights.tolist() == [2, 1]
    assert part.index(["rain"]).tolist() == [1] and part.select(["rain"]).index(["rain"]) == 1
    (block,) = part.blocks()
    assert torch.equal(block.embeds, table.prompts.embeds[[2, 1]])
    expected = EmbedStatistics.of(table.prompts.embeds[1:])
    assert torch.equal(part.statistics()["embeds"].mean, expected.mean)


def test_statistics_do_not_depend_on_block_size() -> None:
    embeds = varied_embeds() * torch.linspace(1, 100, 8)
    statistics = EmbedStatistics.of(embeds)
    exact = embeds.double()
    for size in (1, 5, 16):
        found = EmbedStatistics.of_blocks(lambda size=size: embeds.split(size))
        for name, value in vars(found).items():
            assert torch.equal(value, getattr(statistics, name)), name
    assert torch.equal(statistics.mean, exact.mean(0).float())
    spread = exact.std(0, correction=0).float()
    free = ~statistics.constant & (statistics.std == spread)
    assert free.float().mean() >= 0.5


def test_encode_long_caption_warns_once(tiny_base: str, caplog: pytest.LogCaptureFixture) -> None:
    space = PromptSpace.from_pretrained(tiny_base)
    long = " ".join(["a low hum"] * 60)
    with pytest.warns(UserWarning, match="1 of 2 captions have more than 77 tokens") as caught:
        found = space.encode([long, "a tone"]).embeds
    assert len(caught) == 1 and len(str(caught[0].message)) < 250
    assert not caplog.records  # diffusers would log the truncated text with all of its padding
    assert found.shape[0] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        space.encode(["a low hum", "a tone"])
