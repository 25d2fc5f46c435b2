"""Losses of the UNet training on worked cases, and invalid stages."""

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


def latents_and_noise(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
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
    clean, noise = latents_and_noise()
    share = scheduler.alphas_cumprod[TIMES].view(-1, 1, 1, 1)
    noisy = share.sqrt() * clean + (1 - share).sqrt() * noise
    torch.testing.assert_close(scheduler.add_noise(clean, noise, TIMES), noisy)
    velocity = share.sqrt() * noise - (1 - share).sqrt() * clean
    torch.testing.assert_close(scheduler.get_velocity(clean, noise, TIMES), velocity)


def test_check_prediction_other_type_raises() -> None:
    assert check_prediction(DDIMScheduler()) == "epsilon"
    assert check_prediction(DDIMScheduler(prediction_type="v_prediction")) == "v_prediction"
    assert check_prediction(EulerDiscreteScheduler()) == "epsilon"
    with pytest.raises(ValueError, match="'sample' cannot be trained"):
        check_prediction(DDIMScheduler(prediction_type="sample"))


def make_scheduler(prediction: str, **options: Any) -> DDPMScheduler:
    return DDPMScheduler(prediction_type=prediction, **options)


def test_min_snr_weights() -> None:
    times = torch.tensor([0, 1, 2])
    for prediction, expected in (
        ("epsilon", [5 / 9, 1.0, 1.0]),
        ("v_prediction", [5 / 10, 1 / 2, (1 / 9) / (10 / 9)]),
    ):
        scheduler = make_scheduler(prediction)
        scheduler.alphas_cumprod = torch.tensor([0.9, 0.5, 0.1])  # SNRs of 9, 1 and 1/9
        found = min_snr_weights(scheduler, times, 5.0)
        torch.testing.assert_close(found, torch.tensor(expected))
    with pytest.raises(ValueError, match="positive"):
        min_snr_weights(make_scheduler("epsilon"), times, 0.0)


def test_min_snr_weights_agree_between_prediction_types() -> None:
    """In terms of the clean latents, the weighted error is the same for both prediction types."""
    times = torch.arange(1000)
    alphas = DDPMScheduler().alphas_cumprod.double()
    snr = alphas / (1 - alphas)
    noise = min_snr_weights(make_scheduler("epsilon"), times, 5.0).double()
    velocity = min_snr_weights(make_scheduler("v_prediction"), times, 5.0).double()
    torch.testing.assert_close(noise * snr, velocity * (snr + 1), rtol=1e-3, atol=1e-6)


def test_min_snr_weights_at_zero_snr() -> None:
    last = torch.tensor([999])
    for prediction, limit in (("epsilon", 1.0), ("v_prediction", 0.0)):
        scheduler = make_scheduler(prediction, rescale_betas_zero_snr=True)
        found = min_snr_weights(scheduler, last, 5.0)
        assert torch.isfinite(found).all()
        assert found.item() == pytest.approx(limit, abs=1e-6)


def test_offset_noise_shifts_whole_channels() -> None:
    noise = latents_and_noise()[1]
    level = torch.tensor([1.0, -2.0, 0.0, 0.5]).view(1, 4, 1, 1).expand(3, -1, -1, -1)
    moved = offset_noise(noise, level, 0.1) - noise
    torch.testing.assert_close(moved, (0.1 * level).expand_as(noise), atol=1e-6, rtol=0)
    assert torch.equal(offset_noise(noise, level, 0.0), noise)


def test_denoising_loss_weights_rows() -> None:
    prediction, target = torch.zeros(2, 1, 2, 2), torch.ones(2, 1, 2, 2)
    target[1] *= 3
    assert denoising_loss(prediction, target).item() == pytest.approx((1 + 9) / 2)
    weights = torch.tensor([1.0, 0.5])
    assert denoising_loss(prediction, target, weights).item() == pytest.approx((1 + 4.5) / 2)


def test_level_loss_of_rows_with_targets_in_units_of_std() -> None:
    tokens, targets = torch.zeros(2, 3, 2), torch.zeros(2, 3, 2)
    targets[0], targets[1] = 2.0, 100.0
    std = torch.tensor([1.0, 2.0])
    has_target = torch.tensor([True, False])
    assert level_loss(tokens, targets, has_target, std).item() == pytest.approx((4 + 1) / 2)
    assert level_loss(tokens, targets, torch.tensor([False, False]), std).item() == 0


def test_alignment_loss_is_smallest_at_targets() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(4, 10, 16, generator=generator)
    right = alignment_loss(targets, targets, 0.15)
    swapped = alignment_loss(targets[[1, 0, 2, 3]], targets, 0.15)
    longer = alignment_loss(2 * targets, targets, 0.15)
    assert right < longer < swapped


def test_alignment_loss_equal_targets_are_no_negatives() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.randn(4, 10, 16, generator=generator)
    targets[:, level_slice("background")] = targets[0, level_slice("background")]
    tokens = targets.clone().requires_grad_()
    alignment_loss(tokens, targets, 0.15).backward()
    assert tokens.grad is not None
    alike = tokens.grad[:, level_slice("background")].abs().max()
    assert alike < 1e-5 < tokens.grad[:, level_slice("foreground")].abs().max()


def test_class_weights_balance_classes() -> None:
    labels = ["dog"] * 6 + ["rain"] * 2
    weights = class_weights(labels)
    assert weights["dog"] * 6 == pytest.approx(weights["rain"] * 2)
    assert sum(weights[label] for label in labels) / 8 == pytest.approx(1)


def test_parse_stage_name_and_mapping() -> None:
    assert parse_stage("audio_attention") is STAGES["audio_attention"]
    given = {"stage": "audio_attention", "name": "late", "max_steps": 7, "learning_rate": 1e-4}
    stage = parse_stage(json.dumps(given))
    assert (stage.name, stage.max_steps, stage.learning_rate) == ("late", 7, 1e-4)
    assert stage.trainable == STAGES["audio_attention"].trainable
    own = parse_stage('{"trainable": ["projector", "lora"], "loss": "text_replacement"}')
    assert own.name == "projector+lora" and own.trainable == ("projector", "lora")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training", "there is no stage 'training'"),
        ("{not json", "is not JSON"),
        ('{"stage": "audio_attention", "rate": 1}', "a stage has no 'rate'"),
        ('{"trainable": []}', "trains nothing"),
        ('{"trainable": ["audio"]}', "trains 'audio'"),
        ('{"trainable": ["gates"], "loss": "alignment"}', "alignment loss does not reach gates"),
        ('{"trainable": ["attention"], "loss": "text_replacement"}', "does not reach attention"),
        ('{"trainable": ["gates"], "loss": "gan"}', "no loss 'gan'"),
        ('{"stage": "gates", "max_steps": -1}', "cannot be negative"),
        ('{"loss": "denoising"}', "lacks a key"),
    ],
)
def test_parse_stages_invalid_raises(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_stages([text])


def test_check_gates_closed_raises() -> None:
    closed = Stage("closed", ("projector", "attention"))
    with pytest.raises(ValueError, match="with closed gates"):
        check_gates([STAGES["projector"], closed], from_trained=False)
    check_gates([closed], from_trained=True)
    check_gates([STAGES["projector"], STAGES["audio_attention"], closed], from_trained=False)
