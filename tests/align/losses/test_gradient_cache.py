"""GradCache: the same gradients as a plain step, for all training options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import TrainerCallback

from align.config.arguments import LossArguments
from align.losses.alignment import AlignmentLoss
from align.losses.distillation import KeyValueDistillation
from align.losses.gradient_cache import GradientCache
from align.models.backbones.lora import freeze
from align.models.encoder import AudioPromptEncoder
from align.prompts.embeds import PromptEmbeds, SpaceShape
from tests.conftest import WIDTH
from tests.helpers.launches import command, session

ROWS, LENGTH, POOLED = 7, 5, 6
Gradients = dict[str, torch.Tensor]


def new_encoder(backbone: str, dropout: float, trained: str, **changes: float) -> nn.Module:
    torch.manual_seed(0)
    adapter = {"adapter_type": "resampler", "width": 16, "depth": 1, "heads": 2, "dropout": dropout}
    space = SpaceShape("space", LENGTH, WIDTH, POOLED)
    encoder = AudioPromptEncoder.from_backbone(backbone, adapter, {"space": space}, **changes)
    freeze(encoder.backbone, trained)
    return encoder.train()


def new_criterion(base: str) -> AlignmentLoss:
    """A loss with every term and all learned values."""
    generator = torch.Generator().manual_seed(1)
    targets = torch.randn(4, LENGTH, WIDTH, generator=generator)
    pooled = torch.randn(4, POOLED, generator=generator)
    given = LossArguments(
        sigmoid_weight=0.1, margin_weight=0.5, distillation_weight=0.3, learn_temperature=True,
        padding_weight=0.5, paraphrase_threshold=0.9,
    )  # fmt: skip
    unet = UNet2DConditionModel.from_pretrained(base, subfolder="unet")
    counts = torch.ones(4, LENGTH)
    counts[:, 3:] = 0.5
    distillation = KeyValueDistillation(unet, targets)
    return AlignmentLoss(
        PromptEmbeds(targets, pooled), given, distillation, torch.ones(LENGTH, WIDTH), counts
    )


def batch(width: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Features of clips with one or two windows, and their target indices."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(ROWS, 2, 12, width, generator=generator)
    mask = torch.ones(ROWS, 2, 12).bool()
    mask[1::2, 1] = False
    mask[2, 0, 9:] = False
    return {"features": features, "features_mask": mask}, torch.arange(ROWS) % 4


def step(
    encoder: nn.Module, criterion: AlignmentLoss, way: str, rows: int = 3, seed: int = 5
) -> Gradients:
    """Gradients of one step: whole batch, chunks with all activations in memory, or cached."""
    inputs, target = batch(160)
    inputs["features"] = inputs["features"].to(encoder.dtype)
    encoder.zero_grad()
    criterion.zero_grad()
    torch.manual_seed(seed)
    np.random.seed(seed)
    cache = GradientCache(rows)
    if way == "cached":
        out = cache.encode(encoder, inputs)
        found = out.embeds, out.pooled
    else:
        size = ROWS if way == "whole" else rows
        split = zip(*(value.split(size) for value in inputs.values()), strict=True)
        outputs = [encoder(**dict(zip(inputs, part, strict=True))) for part in split]
        found = tuple(torch.cat([out[name] for out in outputs]) for name in ("embeds", "pooled"))
    terms = criterion(*found, target, target)
    assert len(terms) == 6
    torch.stack(list(terms.values())).sum().backward()
    if way == "cached":
        assert all(p.grad is None for p in encoder.parameters())
        cache.replay(encoder)
    both = [*encoder.named_parameters(), *criterion.named_parameters()]
    return {name: p.grad.clone() for name, p in both if p.grad is not None}


def assert_same(one: Gradients, other: Gradients, trained: int, tolerance: float = 1e-5) -> None:
    assert set(one) == set(other) and len(one) == trained > 20
    largest = max(gradient.norm() for gradient in one.values())
    assert largest > 0.01
    assert sum(bool(gradient.norm() > 1e-4 * largest) for gradient in one.values()) > trained / 2
    for name, gradient in one.items():
        # A key's bias has no effect; its gradient is rounding error.

        size = max(gradient.norm(), 1e-4 * largest)
        assert (gradient - other[name]).norm() <= tolerance * size, name


def trainable(encoder: nn.Module) -> int:
    return sum(p.requires_grad for p in encoder.parameters()) + 3  # and what the loss learns


@pytest.mark.parametrize("trained", ["none", "1", "all"])
@pytest.mark.parametrize("rows", [3, 7, 1])
def test_gradients_match_a_plain_step(
    tiny_w2v_bert: str, tiny_base: str, trained: str, rows: int
) -> None:
    still = {"layerdrop": 0.0, "conformer_conv_dropout": 0.0, "apply_spec_augment": False}
    encoder, criterion = new_encoder(tiny_w2v_bert, 0.0, trained, **still), new_criterion(tiny_base)
    encoder.double()
    criterion.double().distillation.float()
    whole = step(encoder, criterion, "whole")
    inside = any(name.startswith("backbone") for name in whole)
    assert inside == (trained != "none")
    assert_same(whole, step(encoder, criterion, "cached", rows), trainable(encoder), 1e-6)


def test_dropout_is_replayed(tiny_w2v_bert: str, tiny_base: str) -> None:
    encoder = new_encoder(
        tiny_w2v_bert, 0.3, "all", hidden_dropout=0.2, mask_time_prob=0.5, mask_time_length=3
    )
    criterion = new_criterion(tiny_base)
    parts = step(encoder, criterion, "parts")
    assert_same(parts, step(encoder, criterion, "cached"), trainable(encoder))
    after = torch.rand(()), np.random.rand()
    step(encoder, criterion, "parts")
    assert (torch.rand(()), np.random.rand()) == after  # the same random numbers were consumed
    other = step(encoder, criterion, "parts", seed=6)
    name = "heads.space.adapter.proj_out.weight"
    assert (parts[name] - other[name]).norm() > 0.01 * parts[name].norm()


def test_bfloat16_is_replayed(tiny_w2v_bert: str, tiny_base: str) -> None:
    encoder, criterion = new_encoder(tiny_w2v_bert, 0.1, "all"), new_criterion(tiny_base)
    wide = step(encoder, criterion, "parts")
    plain = encoder.forward

    def in_bfloat16(**inputs: Any) -> Any:  # as Accelerate wraps a model's forward
        with torch.autocast("cpu", torch.bfloat16):
            out = plain(**inputs)
        return type(out)(embeds=out.embeds.float(), pooled=out.pooled.float())

    encoder.forward = in_bfloat16
    parts = step(encoder, criterion, "parts")
    assert_same(parts, step(encoder, criterion, "cached"), trainable(encoder))
    assert any(not torch.equal(gradient, wide[name]) for name, gradient in parts.items())
    assert all(p.dtype == torch.float32 for p in encoder.parameters())


class Normed(nn.Module):
    """A model with batch norm whose output is that of an encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, tokens: torch.Tensor) -> Any:
        from align.models.heads import AudioPromptOutput

        return AudioPromptOutput(embeds=self.norm(tokens)[:, None])


def test_batch_norm_statistics_are_updated_once() -> None:
    tokens = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)) + 3
    once, cached = Normed(), Normed()
    for part in tokens.split(2):
        once(part)
    cache = GradientCache(2)
    found = cache.encode(cached, {"tokens": tokens})
    assert not cached.norm.running_mean.any()
    found.embeds.square().sum().backward()
    cache.replay(cached)
    assert torch.equal(once.norm.running_mean, cached.norm.running_mean)
    assert torch.equal(once.norm.running_var, cached.norm.running_var)
    assert cached.norm.weight.grad.abs().min() > 0


def test_replay_synchronizes_the_last_chunk_only() -> None:
    log: list[str] = []

    @contextlib.contextmanager
    def no_sync() -> Iterator[None]:
        log.append("enter")
        yield
        log.append("exit")

    model = Normed()
    model.norm.weight.register_post_accumulate_grad_hook(lambda p: log.append("gradient"))
    cache = GradientCache(2)
    cache.encode(model, {"tokens": torch.randn(6, 4)}).embeds.sum().backward()
    cache.replay(model, no_sync)
    assert log == ["enter", "gradient", "exit"] * 2 + ["gradient"]


class Caught(TrainerCallback):
    """Records the optimizer's gradients at the first step."""

    def __init__(self) -> None:
        self.gradients: Gradients = {}

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any
    ) -> None:
        if not self.gradients:
            found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
            self.gradients = found


def first_gradients(line: list[str]) -> Gradients:
    trainer = session(line)._trainer()
    caught = Caught()
    trainer.add_callback(caught)
    trainer.train()
    return caught.gradients


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [
        ("--train_backbone", "1", "--distillation_weight", "0.5"),
        ("--gradient_accumulation_steps", "2", "--learn_temperature", "true"),
    ],
    ids=["trained", "accumulation"],
)
def test_run_with_gradient_cache_takes_the_same_step(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    more = (
        *("--adapter_dropout", "0", "--max_steps", "1", "--max_grad_norm", "0"),
        *("--per_device_train_batch_size", "5", *flags),
    )
    line = command(tiny_base, tiny_clap, sound_folder, tmp_path, *more)
    plain = first_gradients(line)
    cached = first_gradients([*line, "--gradient_cache", "2"])
    assert_same(plain, cached, len(plain))


def test_negative_gradient_cache_exits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        session(["--gradient_cache", "-1"])
    assert "--gradient_cache is a number of rows, not -1" in capsys.readouterr().err
