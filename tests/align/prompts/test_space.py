"""The prompt space of a pipeline, its statistics, and what captions ask for in it."""

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
def whole(tiny_base: str) -> StableDiffusionPipeline:
    pipeline = DiffusionPipeline.from_pretrained(tiny_base)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def draw(pipeline: StableDiffusionPipeline, **arguments: object) -> np.ndarray:
    return pipeline(
        **arguments,
        num_inference_steps=2,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images


def varied() -> torch.Tensor:
    """Sixteen embeds (5, 8) with a constant position, a small, an outlier and a faint dimension."""
    embeds = torch.randn(16, 5, 8, generator=torch.Generator().manual_seed(0)) + 4.0
    embeds[:, 0] = torch.arange(8.0)
    embeds[:, 1:, 1] *= 0.1
    embeds[:, 1:, 2] = 5.0 + 1e-6 * embeds[:, 1:, 2]
    embeds[:, 3, 3] *= 30.0
    return embeds


def test_restoring_what_was_standardised_gives_it_back() -> None:
    embeds = varied()
    statistics = EmbedStatistics.of(embeds)
    restored = statistics.restore(statistics.standardize(embeds))
    torch.testing.assert_close(restored, embeds, rtol=1e-5, atol=1e-5)
    # Where nothing varies, whatever is answered, the stored value is restored.
    anything = statistics.restore(torch.full_like(embeds, 9.0))
    assert torch.equal(anything[:, 0], embeds[:, 0])
    assert not torch.allclose(anything[:, 4], embeds[:, 4])


def test_an_ordinary_set_is_centred_and_of_unit_spread() -> None:
    embeds = 3.0 * torch.randn(64, 4, 6, generator=torch.Generator().manual_seed(0)) + 2.0
    standard = EmbedStatistics.of(embeds).standardize(embeds)
    torch.testing.assert_close(standard.mean(0), torch.zeros(4, 6), rtol=0, atol=1e-5)
    torch.testing.assert_close(standard.std(0, correction=0), torch.ones(4, 6))


def test_what_hardly_varies_is_constant() -> None:
    embeds = varied()
    statistics = EmbedStatistics.of(embeds[:, :3])  # without the outlier
    wanted = torch.zeros(3, 8, dtype=torch.bool)
    wanted[0], wanted[1:, 2] = True, True
    assert torch.equal(statistics.constant, wanted)
    assert (statistics.std[wanted] == 1).all()
    assert not statistics.standardize(embeds[:, :3])[:, wanted].any()


def test_spreads_are_floored_and_clipped() -> None:
    embeds = torch.randn(500, 100, 100, generator=torch.Generator().manual_seed(0))
    embeds[:, 0, 0] *= 0.01
    embeds[:, 1, 1] *= 1000.0
    plain = embeds.std(0, correction=0)
    own = plain.square().mean().sqrt()
    assert plain[0, 0] < STD_FLOOR * own
    assert plain[1, 1] > STD_CEILING * own
    spread = EmbedStatistics.of(embeds).std
    torch.testing.assert_close(spread[0, 0], STD_FLOOR * own)
    torch.testing.assert_close(spread[1, 1], STD_CEILING * own)
    torch.testing.assert_close(spread[2:], plain[2:].clamp(min=STD_FLOOR * own))


def test_one_embed_is_all_constant() -> None:
    embeds = varied()[:1]
    statistics = EmbedStatistics.of(embeds)
    assert statistics.constant.all()
    assert torch.equal(statistics.restore(torch.randn(2, 5, 8)), embeds.expand(2, -1, -1))
    assert not statistics.standardize(embeds).any()


def test_embeds_draw_the_very_picture_that_the_string_draws(
    space: PromptSpace, whole: StableDiffusionPipeline
) -> None:
    by_string = draw(whole, prompt=CAPTIONS[0])
    embeds = space.encode(CAPTIONS[:1]).embeds
    null = space.unconditional.embeds
    assert np.array_equal(draw(whole, prompt_embeds=embeds, negative_prompt_embeds=null), by_string)
    other = space.encode(CAPTIONS[1:2]).embeds
    assert not np.array_equal(
        draw(whole, prompt_embeds=other, negative_prompt_embeds=null), by_string
    )
    assert not np.array_equal(
        draw(whole, prompt_embeds=embeds, negative_prompt_embeds=other), by_string
    )


def test_the_unconditional_embeds_are_the_pipelines_own(
    space: PromptSpace, whole: StableDiffusionPipeline
) -> None:
    _, negative = whole.encode_prompt(CAPTIONS[0], "cpu", 1, True)
    assert torch.equal(space.unconditional.embeds, negative)
    assert space.unconditional.pooled is None


def test_batches_do_not_change_what_is_encoded(space: PromptSpace) -> None:
    together = space.encode(CAPTIONS)
    assert together.embeds.shape == (4, 77, 32)
    assert together.embeds.dtype == torch.float32
    assert together.pooled is None
    torch.testing.assert_close(space.encode(CAPTIONS, batch_size=3).embeds, together.embeds)
    with pytest.raises(ValueError, match="no captions"):
        space.encode([])
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size is at least 1, not {size}"):
            space.encode(CAPTIONS, batch_size=size)


def test_the_empty_prompt_is_a_caption(space: PromptSpace) -> None:
    assert torch.equal(space.encode("").embeds, space.encode([""]).embeds)
    assert torch.equal(space.encode("").embeds, space.unconditional.embeds)


def test_prompts_come_as_the_pipelines_arguments() -> None:
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


def test_a_caption_table_holds_every_caption_once(space: PromptSpace) -> None:
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


def test_a_labels_mean_counts_each_row() -> None:
    embeds = torch.tensor([[[1.0]], [[2.0]], [[10.0]]])
    shares = LabelMixture(torch.tensor([2, 0, 0, 1]), ["sea", "dog", "dog", "dog"])
    assert shares.names == ["dog", "sea"]
    torch.testing.assert_close(shares.all_means(embeds), torch.tensor([[[4 / 3]], [[10.0]]]))


def test_a_head_stores_its_space(space: PromptSpace) -> None:
    head = Head(
        8, SpaceShape("tiny", 77, 32), {"adapter_type": "resampler", "width": 8, "heads": 2}
    )
    table = CaptionEmbeds.encode(space, CAPTIONS)
    wanted = table.statistics()["embeds"]
    head.set_statistics({"embeds": wanted}, space.unconditional)
    for name in ("mean", "std", "constant"):
        assert torch.equal(getattr(head.statistics(), name), getattr(wanted, name))
    assert torch.equal(head.unconditional(3).embeds, space.unconditional.embeds.expand(3, -1, -1))
    embeds, pooled = head.eval()(torch.randn(2, 4, 8), torch.ones(2, 4, dtype=torch.bool))
    assert pooled is None
    assert not embeds[:, wanted.constant].any()
    assert embeds[:, ~wanted.constant].all()
    assert torch.equal(head.to_prompt_embeds(embeds, None).embeds, wanted.restore(embeds))


def test_a_name_stands_for_what_it_points_to_and_others_for_themselves() -> None:
    from soundprompt.mini.models import STABLE_DIFFUSION

    assert lookup(BASE_MODELS, "mini") == STABLE_DIFFUSION
    assert lookup(BASE_MODELS, "some/hub-id") == "some/hub-id"
    assert lookup({"space": "types:SimpleNamespace"}, "space") is SimpleNamespace


def test_a_part_of_a_table_is_no_copy(tiny_base: str) -> None:
    space = PromptSpace.from_pretrained(tiny_base)
    table = CaptionEmbeds.encode(space, ["a dog", "rain", "rain", "a fire"])
    part = table.select(["a fire", "rain", "a fire"])
    assert part.prompts is table.prompts
    assert part.captions == ["a fire", "rain"] and part.weights.tolist() == [2, 1]
    assert part.index(["rain"]).tolist() == [1] and part.select(["rain"]).index(["rain"]) == 1
    (block,) = part.blocks()
    assert torch.equal(block.embeds, table.prompts.embeds[[2, 1]])
    wanted = EmbedStatistics.of(table.prompts.embeds[1:])
    assert torch.equal(part.statistics()["embeds"].mean, wanted.mean)


def test_statistics_do_not_depend_on_blocks() -> None:
    embeds = varied() * torch.linspace(1, 100, 8)
    whole = EmbedStatistics.of(embeds)
    exact = embeds.double()
    for size in (1, 5, 16):
        found = EmbedStatistics.of_blocks(lambda size=size: embeds.split(size))
        for name, value in vars(found).items():
            assert torch.equal(value, getattr(whole, name)), name
    assert torch.equal(whole.mean, exact.mean(0).float())
    spread = exact.std(0, correction=0).float()
    free = ~whole.constant & (whole.std == spread)
    assert free.float().mean() >= 0.5


def test_a_caption_that_is_cut_is_told_of_once_and_shortly(
    tiny_base: str, caplog: pytest.LogCaptureFixture
) -> None:
    space = PromptSpace.from_pretrained(tiny_base)
    long = " ".join(["a low hum"] * 60)
    with pytest.warns(UserWarning, match="1 of 2 captions have more than 77 tokens") as caught:
        found = space.encode([long, "a tone"]).embeds
    assert len(caught) == 1 and len(str(caught[0].message)) < 250
    assert not caplog.records  # diffusers would print what is cut, and all of the padding
    assert found.shape[0] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        space.encode(["a low hum", "a tone"])
