"""Distillation through a UNet's keys and values against the sum over its layers."""

from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from align.losses.distillation import KeyValueDistillation
from align.training.validation import check_distillation
from tests.conftest import WIDTH
from tests.helpers import pipelines


@pytest.fixture(scope="module")
def unet(tiny_base: str) -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(tiny_base, subfolder="unet")


def embeds(count: int, seed: int, width: int = WIDTH) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 7, width, generator=generator)


def layer_by_layer(
    unet: UNet2DConditionModel, captions: torch.Tensor, difference: torch.Tensor
) -> torch.Tensor:
    """Mean over layers of the squared difference, divided by the captions' output std."""
    found = []
    for name, module in unet.named_modules():
        if "attn2.to_k" in name or "attn2.to_v" in name:
            spread = module(captions - captions.mean(0)).std()
            found.append((module(difference) / spread).square().mean())
    assert len(found) >= 4
    return torch.stack(found).mean()


def test_distillation_is_the_mean_over_layers(unet: UNet2DConditionModel) -> None:
    captions, predicted, target = embeds(9, 0), embeds(4, 1), embeds(4, 2)
    distillation = KeyValueDistillation(unet, captions)
    with torch.no_grad():
        wanted = layer_by_layer(unet, captions, predicted - target)
    torch.testing.assert_close(distillation(predicted, target), wanted, rtol=1e-4, atol=0)
    assert distillation(target, target) == 0


def test_distillation_ignores_the_scale_of_layers(unet: UNet2DConditionModel) -> None:
    captions, predicted, target = embeds(9, 0), embeds(4, 1), embeds(4, 2)
    before = KeyValueDistillation(unet, captions)(predicted, target)
    layer = next(m for n, m in unet.named_modules() if n.endswith("attn2.to_k"))
    kept = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.mul_(50)
        scaled = KeyValueDistillation(unet, captions)(predicted, target)
        random = torch.randn(kept.shape, generator=torch.Generator().manual_seed(0))
        layer.weight.copy_(random)
        other = KeyValueDistillation(unet, captions)(predicted, target)
        layer.weight.copy_(kept)
    torch.testing.assert_close(scaled, before, rtol=1e-4, atol=0)
    assert abs(other - before) > 1e-3 * before


def test_gradient_reaches_the_prediction_only(unet: UNet2DConditionModel) -> None:
    distillation = KeyValueDistillation(unet, embeds(9, 0))
    assert list(distillation.parameters()) == []
    predicted = embeds(4, 1).requires_grad_()
    distillation(predicted, embeds(4, 2)).backward()
    assert predicted.grad is not None
    assert (predicted.grad.abs().amax(-1) > 0).all()
    trained = [name for name, weight in unet.named_parameters() if weight.grad is not None]
    assert trained == []


def test_autocast_does_not_change_the_distillation(unet: UNet2DConditionModel) -> None:
    distillation = KeyValueDistillation(unet, embeds(9, 0))
    predicted, target = embeds(4, 1), embeds(4, 2)
    with torch.autocast("cpu", torch.bfloat16):
        found = distillation(predicted, target)
    assert torch.equal(found, distillation(predicted, target))


def test_other_width_raises(unet: UNet2DConditionModel) -> None:
    with pytest.raises(ValueError, match="no cross-attention of width 48"):
        KeyValueDistillation(unet, embeds(9, 0, width=48))


def test_base_without_unet_raises(tiny_base: str, tmp_path: Path) -> None:
    check_distillation([tiny_base])
    other = pipelines.save_sd3(tmp_path)
    with pytest.raises(ValueError, match="has a transformer instead: leave it out"):
        check_distillation([tiny_base, other])
