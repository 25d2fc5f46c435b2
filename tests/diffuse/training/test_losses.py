"""The losses of the UNet's training against worked cases, and stages that cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, PNDMScheduler

from diffuse.config.stages import STAGES, Stage, check_gates, parse_stage, parse_stages
from diffuse.models.levels import level_slice
from diffuse.training.losses import (
    alignment_loss,
    check_prediction,
    class_weights,
    denoising_loss,
    level_loss,
    min_snr_weights,
    offset_noise,
    training_scheduler,
)

TIMES = torch.tensor([0, 250, 999])


def tensors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=draw)
    return clean, noise


@pytest.mark.parametrize("kind", [DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_training_scheduler_keeps_the_noise_schedule_of_any_sampler(
    kind: Any, prediction: str
) -> None:
    sampler = kind(beta_schedule="scaled_linear", beta_start=0.00085, prediction_type=prediction)
    scheduler = training_scheduler(sampler)
    assert torch.equal(scheduler.alphas_cumprod, sampler.alphas_cumprod)
    assert scheduler.config.prediction_type == prediction
    clean, noise = tensors()
    share = scheduler.alphas_cumprod[TIMES].view(-1, 1, 1, 1)
    noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
    torch.testing.assert_close(scheduler.add_noise(clean, noise, TIMES), noisy)
    velocity = share.sqrt() * noise - (1 - share).sqrt() * clean
    torch.testing.assert_close(scheduler.get_velocity(clean, noise, TIMES), velocity)


def test_bases_that_predict_something_else_are_refused() -> None:
    assert check_prediction(DDIMScheduler()) == "epsilon"
    assert check_prediction(DDIMScheduler(prediction_type="v_prediction")) == "v_prediction"
    assert check_prediction(EulerDiscreteScheduler()) == "epsilon"
    with pytest.raises(ValueError, match="'sample' cannot be trained here"):
        check_prediction(DDIMScheduler(prediction_type="sample"))


def scheduler_of(prediction: str, **options: Any) -> DDPMScheduler:
    return DDPMScheduler(prediction_type=prediction, **options)


def test_min_snr_weights_of_worked_cases() -> None:
    times = torch.tensor([0, 1, 2])
    for prediction, expected in (
        ("epsilon", [5 / 9, 1.0, 1.0]),
        ("v_prediction", [5 / 10, 1 / 2, (1 / 9) / (10 / 9)]),
    ):
        scheduler = scheduler_of(prediction)
        scheduler.alphas_cumprod = torch.tensor([0.9, 0.5, 0.1])  # SNRs of 9, 1 and 1/9
        found = min_snr_weights(scheduler, times, 5.0)
        torch.testing.assert_close(found, torch.tensor(expected))
    with pytest.raises(ValueError, match="positive"):
        min_snr_weights(scheduler_of("epsilon"), times, 0.0)


def test_min_snr_weights_say_the_same_of_the_clean_latents_whatever_is_predicted() -> None:
    """The weighted error, in terms of the clean latents, is the same for both predictions."""
    times = torch.arange(1000)
    alphas = DDPMScheduler().alphas_cumprod.double()
    snr = alphas / (1 - alphas)
    noise = min_snr_weights(scheduler_of("epsilon"), times, 5.0).double()
    velocity = min_snr_weights(scheduler_of("v_prediction"), times, 5.0).double()
    torch.testing.assert_close(noise * snr, velocity * (snr + 1), rtol=1e-3, atol=1e-6)


def test_min_snr_weights_where_nothing_is_left_of_the_picture() -> None:
    last = torch.tensor([999])
    for prediction, limit in (("epsilon", 1.0), ("v_prediction", 0.0)):
        scheduler = scheduler_of(prediction, rescale_betas_zero_snr=True)
        found = min_snr_weights(scheduler, last, 5.0)
        assert torch.isfinite(found).all()
        assert found.item() == pytest.approx(limit, abs=1e-6)


def test_the_noise_offset_moves_channels_as_a_whole() -> None:
    noise = tensors()[1]
    level = torch.tensor([1.0, -2.0, 0.0, 0.5]).view(1, 4, 1, 1).expand(3, -1, -1, -1)
    moved = offset_noise(noise, level, 0.1) - noise
    torch.testing.assert_close(moved, (0.1 * level).expand_as(noise), atol=1e-6, rtol=0)
    assert torch.equal(offset_noise(noise, level, 0.0), noise)


def test_the_denoising_loss_counts_rows_by_their_weight() -> None:
    answer, wanted = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    wanted[1] *= 3
    assert denoising_loss(answer, wanted).item() == pytest.approx((1 + 9) / 2)
    weights = torch.tensor([1.0, 0.5])
    assert denoising_loss(answer, wanted, weights).item() == pytest.approx((1 + 4.5) / 2)


def test_the_level_loss_is_of_known_rows_in_units_of_the_spread() -> None:
    tokens, wanted = torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)
    wanted[0], wanted[1] = 2.0, 100.0
    spread = torch.tensor([1.0, 2.0])
    known = torch.tensor([True, False])
    assert level_loss(tokens, wanted, known, spread).item() == pytest.approx((4 + 1) / 2)
    assert level_loss(tokens, wanted, torch.tensor([False, False]), spread).item() == 0


def test_the_alignment_loss_is_smallest_where_tokens_are_their_targets() -> None:
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(4, 10, 16, generator=draw)
    right = alignment_loss(wanted, wanted, 0.15)
    swapped = alignment_loss(wanted[[1, 0, 2, 3]], wanted, 0.15)
    longer = alignment_loss(2 * wanted, wanted, 0.15)
    assert right < longer < swapped


def test_rows_that_ask_for_the_same_at_a_level_are_no_negatives_there() -> None:
    draw = torch.Generator().manual_seed(0)
    wanted = torch.randn(4, 10, 16, generator=draw)
    wanted[:, level_slice("background")] = wanted[0, level_slice("background")]
    tokens = wanted.clone().requires_grad_()
    alignment_loss(tokens, wanted, 0.15).backward()
    assert tokens.grad is not None
    alike = tokens.grad[:, level_slice("background")].abs().max()
    assert alike < 1e-5 < tokens.grad[:, level_slice("foreground")].abs().max()


def test_class_weights_make_classes_count_alike() -> None:
    labels = ["dog"] * 6 + ["rain"] * 2
    weights = class_weights(labels)
    assert weights["dog"] * 6 == pytest.approx(weights["rain"] * 2)
    assert sum(weights[label] for label in labels) / 8 == pytest.approx(1)


def test_stages_by_name_and_by_mapping() -> None:
    assert parse_stage("audio_attention") is STAGES["audio_attention"]
    given = {"stage": "audio_attention", "name": "late", "steps": 7, "learning_rate": 1e-4}
    stage = parse_stage(json.dumps(given))
    assert (stage.name, stage.max_steps, stage.learning_rate) == ("late", 7, 1e-4)
    assert stage.trainable == STAGES["audio_attention"].trainable
    own = parse_stage('{"trainable": ["projector", "lora"], "loss": "text_replacement"}')
    assert own.name == "projector+lora" and own.trainable == ("projector", "lora")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listening", "there is no stage 'listening'"),
        ("{not json", "is not JSON"),
        ('{"stage": "audio_attention", "rate": 1}', "a stage has no 'rate'"),
        ('{"trainable": []}', "trains nothing"),
        ('{"trainable": ["ears"]}', "trains 'ears'"),
        ('{"trainable": ["gates"], "loss": "alignment"}', "alignment loss does not reach gates"),
        ('{"trainable": ["attention"], "loss": "text_replacement"}', "does not reach attention"),
        ('{"trainable": ["gates"], "loss": "gan"}', "no loss 'gan'"),
        ('{"stage": "gates", "steps": -1}', "cannot be negative"),
        ('{"loss": "denoising"}', "says too little"),
    ],
)
def test_stages_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_stages([text])


def test_what_stands_behind_closed_gates_is_not_trained_alone() -> None:
    behind = Stage("background_only", ("projector", "attention"))
    with pytest.raises(ValueError, match="behind closed gates"):
        check_gates([STAGES["projector"], behind], from_trained=False)
    check_gates([behind], from_trained=True)
    check_gates([STAGES["projector"], STAGES["audio_attention"], behind], from_trained=False)
