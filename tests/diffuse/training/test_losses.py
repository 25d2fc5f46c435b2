"""The losses of the UNet's training against worked cases, and stages that cannot be."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler

from diffuse.config.stages import STAGES, Stage, check_gates, read_stage, read_stages
from diffuse.models.levels import places
from diffuse.training.losses import (
    add_noise,
    alignment_loss,
    check_prediction,
    class_weights,
    denoising_loss,
    denoising_target,
    level_loss,
    min_snr_weights,
    offset_noise,
)

TIMES = torch.tensor([0, 250, 999])


def tensors(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=draw)
    return clean, noise


@pytest.mark.parametrize("kind", [DDPMScheduler, DDIMScheduler])
def test_noise_and_velocity_are_the_scheduler_s_own(kind: Any) -> None:
    scheduler = kind(prediction_type="v_prediction")
    clean, noise = tensors()
    noisy = add_noise(scheduler.alphas_cumprod, clean, noise, TIMES)
    torch.testing.assert_close(noisy, scheduler.add_noise(clean, noise, TIMES))
    wanted = denoising_target("v_prediction", scheduler.alphas_cumprod, clean, noise, TIMES)
    torch.testing.assert_close(wanted, scheduler.get_velocity(clean, noise, TIMES))
    assert denoising_target("epsilon", scheduler.alphas_cumprod, clean, noise, TIMES) is noise


def test_bases_that_predict_something_else_are_refused() -> None:
    assert check_prediction(DDIMScheduler()) == "epsilon"
    assert check_prediction(DDIMScheduler(prediction_type="v_prediction")) == "v_prediction"
    assert check_prediction(EulerDiscreteScheduler()) == "epsilon"
    with pytest.raises(ValueError, match="'sample' cannot be trained here"):
        check_prediction(DDIMScheduler(prediction_type="sample"))


def test_min_snr_weights_of_worked_cases() -> None:
    # SNRs of 9, 1 and 1/9.
    alphas, times = torch.tensor([0.9, 0.5, 0.1]), torch.tensor([0, 1, 2])
    found = min_snr_weights("epsilon", alphas, times, 5.0)
    torch.testing.assert_close(found, torch.tensor([5 / 9, 1.0, 1.0]))
    found = min_snr_weights("v_prediction", alphas, times, 5.0)
    torch.testing.assert_close(found, torch.tensor([5 / 10, 1 / 2, (1 / 9) / (10 / 9)]))
    with pytest.raises(ValueError, match="positive"):
        min_snr_weights("epsilon", alphas, times, 0.0)


def test_min_snr_weights_say_the_same_of_the_clean_latents_whatever_is_predicted() -> None:
    """The weighted error, in terms of the clean latents, is the same for both predictions."""
    scheduler = DDPMScheduler()
    alphas, times = scheduler.alphas_cumprod, torch.arange(1000)
    snr = (alphas / (1 - alphas)).double()
    noise = min_snr_weights("epsilon", alphas, times, 5.0).double()
    velocity = min_snr_weights("v_prediction", alphas, times, 5.0).double()
    torch.testing.assert_close(noise * snr, velocity * (snr + 1), rtol=1e-4, atol=1e-6)


def test_min_snr_weights_where_nothing_is_left_of_the_picture() -> None:
    scheduler = DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    last = torch.tensor([999])
    for prediction, limit in (("epsilon", 1.0), ("v_prediction", 0.0)):
        found = min_snr_weights(prediction, scheduler.alphas_cumprod, last, 5.0)
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
    wanted[:, places("background")] = wanted[0, places("background")]
    tokens = wanted.clone().requires_grad_()
    alignment_loss(tokens, wanted, 0.15).backward()
    assert tokens.grad is not None
    alike = tokens.grad[:, places("background")].abs().max()
    assert alike < 1e-5 < tokens.grad[:, places("foreground")].abs().max()


def test_class_weights_make_classes_count_alike() -> None:
    labels = ["dog"] * 6 + ["rain"] * 2
    weights = class_weights(labels)
    assert weights["dog"] * 6 == pytest.approx(weights["rain"] * 2)
    assert sum(weights[label] for label in labels) / 8 == pytest.approx(1)


def test_stages_by_name_and_by_mapping() -> None:
    assert read_stage("hearing") is STAGES["hearing"]
    given = {"stage": "hearing", "name": "late", "steps": 7, "learning_rate": 1e-4}
    stage = read_stage(json.dumps(given))
    assert (stage.name, stage.steps, stage.learning_rate) == ("late", 7, 1e-4)
    assert stage.trains == STAGES["hearing"].trains
    own = read_stage('{"trains": ["projector", "lora"], "loss": "substitution"}')
    assert own.name == "projector+lora" and own.trains == ("projector", "lora")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listening", "there is no stage 'listening'"),
        ("{not json", "is not JSON"),
        ('{"stage": "hearing", "rate": 1}', "a stage has no 'rate'"),
        ('{"trains": []}', "trains nothing"),
        ('{"trains": ["ears"]}', "trains 'ears'"),
        ('{"trains": ["gates"], "loss": "alignment"}', "alignment loss does not reach gates"),
        ('{"trains": ["attention"], "loss": "substitution"}', "does not reach attention"),
        ('{"trains": ["gates"], "loss": "gan"}', "no loss 'gan'"),
        ('{"stage": "gates", "steps": -1}', "cannot be negative"),
        ('{"loss": "denoising"}', "says too little"),
    ],
)
def test_stages_that_cannot_be(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_stages([text])


def test_what_stands_behind_closed_gates_is_not_trained_alone() -> None:
    behind = Stage("behind", ("projector", "attention"))
    with pytest.raises(ValueError, match="behind closed gates"):
        check_gates([STAGES["projector"], behind], started=False)
    check_gates([behind], started=True)
    check_gates([STAGES["projector"], STAGES["hearing"], behind], started=False)
