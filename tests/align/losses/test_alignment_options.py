"""Options of the loss: their effects and validation, and the state of learned values."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align.config.arguments import REQUIRED_WEIGHTS, LossArguments
from align.losses.alignment import AlignmentLoss, build_criterion
from align.models.encoder import AudioPromptEncoder
from align.models.heads import Head
from align.preprocessing.text_embeds import CaptionEmbeds
from align.prompts.embeds import PromptEmbeds, SpaceShape
from align.prompts.space import PromptSpace
from align.training.callbacks import MIN_TEMPERATURE, LearnedLossCallback
from tests.helpers.launches import assert_same_weights, command, session, weights

EVERY = {"info_nce_weight": 0.7, "sigmoid_weight": 0.2, "margin_weight": 0.4, "mse_weight": 0.3}
# Every option at a value other than its default.
CHANGED = {
    "info_nce_weight": 0.9, "sigmoid_weight": 0.5, "margin_weight": 0.8, "mse_weight": 0.6,
    "temperature": 0.3, "info_nce_direction": "audio_to_text", "sigmoid_temperature": 0.02,
    "sigmoid_bias": -3.0, "margin": -0.5, "paraphrase_threshold": 0.1, "padding_weight": 0.2,
    "target": "caption",
}  # fmt: skip
CAPTIONS = {
    "dog": ["a dog barks in the rain", "a dog"], "rain": ["rain"], "sea": ["the sea"],
    "spaniel": ["a dog"],
}  # fmt: skip


@pytest.fixture(scope="module")
def table(tiny_base: str) -> tuple[PromptSpace, CaptionEmbeds]:
    space = PromptSpace.from_pretrained(tiny_base)
    return space, CaptionEmbeds.encode(
        space, [text for group in CAPTIONS.values() for text in group]
    )


def criterion(table: tuple[PromptSpace, CaptionEmbeds], **options: Any) -> AlignmentLoss:
    space, captions = table
    length, width = captions.prompts.embeds.shape[1:]
    shape, sizes = SpaceShape("base", length, width), {"width": 16, "depth": 1, "heads": 2}
    head = Head(8, shape, {"adapter_type": "resampler", **sizes})
    head.set_statistics(captions.statistics(), space.unconditional)
    lengths = space.token_lengths(captions.captions)
    return build_criterion(LossArguments(**options), captions, head, CAPTIONS, lengths=lengths)


def total(loss: AlignmentLoss) -> float:
    generator = torch.Generator().manual_seed(0)
    embeds = torch.randn(4, *loss.embeds.shape[1:], generator=generator)
    target = torch.tensor([0, 1, 2, 3])
    terms = loss(embeds, None, target, torch.tensor([0, 1, 2, 3]))
    return torch.stack(list(terms.values())).sum().item()


@pytest.mark.parametrize("option", ["info_nce_weight", "sigmoid_weight", "margin_weight"])
def test_rows_with_the_same_caption_are_not_negatives(
    option: str, table: tuple[PromptSpace, CaptionEmbeds]
) -> None:
    none = dict.fromkeys(EVERY, 0.0)
    loss = criterion(table, target="caption", **none | {option: 1.0})
    embeds = torch.randn(3, *loss.embeds.shape[1:], generator=torch.Generator().manual_seed(0))
    twice = torch.tensor([1, 1, 2])
    found = [
        sum(loss(embeds, None, target, torch.tensor(groups)).values())
        for target in (twice, torch.tensor([1, 0, 2]))
        for groups in ([0, 0, 1], [0, 1, 2])
    ]
    assert found[0] == found[1]  # the same caption, whatever the labels
    assert found[2] != found[3]  # different captions depend on the labels


def test_changed_covers_all_options() -> None:
    elsewhere = {"distillation_weight", "learn_temperature"}  # tested separately
    assert set(CHANGED) | elsewhere == set(vars(LossArguments()))


@pytest.mark.parametrize("option", CHANGED)
def test_option_changes_the_loss(table: tuple[PromptSpace, CaptionEmbeds], option: str) -> None:
    before = total(criterion(table, **EVERY))
    assert total(criterion(table, **EVERY)) == before
    after = total(criterion(table, **EVERY | {option: CHANGED[option]}))
    assert abs(after - before) > 1e-3 * before


def test_loss_is_the_weighted_sum_of_its_terms(
    table: tuple[PromptSpace, CaptionEmbeds],
) -> None:
    none = dict.fromkeys(EVERY, 0.0)
    alone = [total(criterion(table, **none | {name: weight})) for name, weight in EVERY.items()]
    assert min(alone) > 0
    assert total(criterion(table, **EVERY)) == pytest.approx(sum(alone), rel=1e-5)


def test_position_weights_follow_caption_lengths(
    table: tuple[PromptSpace, CaptionEmbeds],
) -> None:
    space, captions = table
    lengths = space.token_lengths(captions.captions)
    tokenizer = space._pipeline.tokenizer
    length = captions.prompts.embeds.shape[1]
    whole = tokenizer(captions.captions, padding="max_length", max_length=length).attention_mask
    assert lengths.tolist() == [sum(row) for row in whole]
    assert lengths.max() < length and len(set(lengths.tolist())) > 1
    own = criterion(table, padding_weight=0.25, target="caption").position_weights
    assert own is not None
    for row, filled in zip(own, lengths, strict=True):
        assert (row[:filled] == 1).all() and (row[filled:] == 0.25).all()
    mean = criterion(table, padding_weight=0.25).position_weights
    assert mean is not None
    torch.testing.assert_close(mean[0], own[:2].mean(0))  # the dog's two captions
    assert criterion(table).position_weights is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": 0.5}, "--margin has no effect: it needs --margin_weight above 0"),
        ({"sigmoid_bias": 0.0}, "--sigmoid_bias has no effect"),
        ({"info_nce_weight": 0.0, "temperature": 0.2}, "--temperature has no effect"),
        ({"info_nce_weight": 0.0, "learn_temperature": True}, "--learn_temperature has no effect"),
        (
            {"info_nce_weight": 0.0, "paraphrase_threshold": 0.5},
            "--paraphrase_threshold has no effect",
        ),
        ({"mse_weight": -1.0}, "--mse_weight is 0 or more, not -1.0"),
        ({"mse_weight": 0.0, "info_nce_weight": 0.0}, "every loss has weight 0"),
        ({"padding_weight": 0.0}, "--padding_weight must be above 0, not 0.0"),
        ({"temperature": 0.0}, "--temperature must be above 0"),
        ({"paraphrase_threshold": 1.5}, "a cosine from 0 to 1, not 1.5"),
        ({"margin_weight": 1.0, "margin": 1.0}, "-1 to below 1, not 1.0"),
        ({"info_nce_direction": "up"}, "one of both, audio_to_text, text_to_audio"),
        ({"target": "mean"}, "--target is label_mean or caption, not 'mean'"),
    ],
)
def test_invalid_options_raise(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        LossArguments(**options)
    assert message in str(caught.value)


def test_option_requires_a_loss_weight() -> None:
    for option, weights_ in REQUIRED_WEIGHTS.items():
        value = True if option == "learn_temperature" else CHANGED[option]
        none = dict.fromkeys(EVERY, 0.0) | {"distillation_weight": 1.0}
        with pytest.raises(ValueError, match=f"--{option} has no effect"):
            LossArguments(**none, **{option: value})
        for weight in weights_:
            LossArguments(**none | {weight: 1.0}, **{option: value})


@pytest.mark.parametrize(
    ("options", "learned"),
    [
        ({}, {"temperature"}),
        ({"info_nce_weight": 0.0, "sigmoid_weight": 1.0}, {"sigmoid_temperature", "sigmoid_bias"}),
    ],
)
def test_learned_values_start_at_the_options(
    table: tuple[PromptSpace, CaptionEmbeds], options: dict[str, float], learned: set[str]
) -> None:
    fixed, free = (criterion(table, learn_temperature=on, **options) for on in (False, True))
    assert fixed.learned_values() == {}
    assert list(fixed.parameters()) == []
    assert set(free.learned_values()) == learned
    assert total(free) == pytest.approx(total(fixed), rel=1e-5)
    for name, value in free.learned_values().items():
        assert value.item() == pytest.approx(getattr(free.arguments, name))
    with torch.no_grad():
        for parameter in free.parameters():
            parameter.sub_(0.5)
    assert abs(total(free) - total(fixed)) > 1e-3


def test_learned_temperature_has_a_minimum() -> None:
    given = LossArguments(learn_temperature=True, sigmoid_weight=1.0)
    loss = AlignmentLoss(PromptEmbeds(torch.zeros(2, 3, 4)), given)
    with torch.no_grad():
        for parameter in loss.parameters():
            parameter.fill_(-100.0)
    LearnedLossCallback(loss).on_optimizer_step(None, None, None)
    found = {name: value.item() for name, value in loss.learned_values().items()}
    assert found["temperature"] == found["sigmoid_temperature"] == pytest.approx(MIN_TEMPERATURE)
    assert found["sigmoid_bias"] == -100.0


LEARNED = {"log_temperature", "log_sigmoid_temperature", "sigmoid_bias"}


@pytest.mark.slow
def test_learned_values_resume_and_are_not_in_the_encoder(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    more = (
        *("--learn_temperature", "true", "--sigmoid_weight", "0.1", "--save_strategy", "epoch"),
        *("--num_train_epochs", "3", "--adapter_dropout", "0.2", "--save_total_limit", "3"),
    )
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    plain = command(tiny_base, tiny_clap, sound_folder, tmp_path / "plain")
    session(plain).train()
    session(command(tiny_base, tiny_clap, sound_folder, whole, *more)).train()
    assert set(weights(whole)) == set(weights(tmp_path / "plain"))
    assert not list((tmp_path / "plain").rglob("criterion*"))

    kept = [load_file(whole / f"checkpoint-{n}" / "criterion.safetensors") for n in (3, 6, 9)]
    assert all(set(tensors) == LEARNED for tensors in kept)
    for name in LEARNED:
        values = {tensors[name].item() for tensors in kept}
        assert len(values) == 3 and all(map(math.isfinite, values))
    state = json.loads((whole / "checkpoint-9" / "trainer_state.json").read_text())
    logged = [line["temperature"] for line in state["log_history"] if "temperature" in line]
    assert len(logged) == 9 and logged[-1] == pytest.approx(
        kept[-1]["log_temperature"].exp().item()
    )

    broken.mkdir()
    shutil.copytree(whole / "checkpoint-6", broken / "checkpoint-6")
    session(command(tiny_base, tiny_clap, sound_folder, broken, *more)).train()
    assert_same_weights(whole, broken)
    found = load_file(broken / "checkpoint-9" / "criterion.safetensors")
    assert all(torch.equal(found[name], kept[-1][name]) for name in LEARNED)


@pytest.mark.slow
def test_trained_weights_stay_float32_in_bfloat16(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    more = ("--bf16", "true", "--train_backbone", "1", "--gradient_cache", "2")
    opened = session(command(tiny_base, tiny_clap, sound_folder, tmp_path, *more))
    before = {name: p.clone() for name, p in opened.encoder.named_parameters() if p.requires_grad}
    opened.train()
    saved = weights(tmp_path)
    assert before and all(saved[name].dtype == torch.float32 for name in before)
    assert all(not torch.equal(saved[name], value) for name, value in before.items())
    assert AudioPromptEncoder.from_pretrained(str(tmp_path)).dtype == torch.float32
