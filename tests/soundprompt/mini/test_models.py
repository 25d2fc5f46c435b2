"""The mini models: images, captions, weights, and the training loop."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from soundprompt.mini.build.samples import image_pool, render_batch, rng_of, to_tensor
from soundprompt.mini.build.training_loop import TrainingPlan, fit
from soundprompt.mini.captions import (
    audio_caption,
    audio_captions,
    caption,
    class_caption,
    scene_caption,
)
from soundprompt.mini.image_classifier import UNCLEAR, load_image_classifier
from soundprompt.mini.models import (
    CLAP,
    CLIP,
    IMAGE_CLASSIFIER,
    STABLE_DIFFUSION,
    W2V_BERT,
    WEIGHTS,
)
from soundprompt.mini.pictures import SIZE, render
from soundprompt.mini.world import CLASS_COLORS, CLASSES, SCENES, View, random_view


def _rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_render_depends_on_seed_and_view():
    view = View("dog", "rain", "night", "brown")
    first, again = (np.asarray(render(view, _rng(3))) for _ in range(2))
    assert first.shape == (SIZE, SIZE, 3)
    assert np.array_equal(first, again)
    for other in (
        replace(view, near="rooster"),
        replace(view, far="helicopter"),
        replace(view, scene="day"),
        replace(view, color="white"),
    ):
        assert not np.array_equal(first, np.asarray(render(other, _rng(3))))
    assert not np.array_equal(first, np.asarray(render(view, _rng(4))))


def test_render_other_background_keeps_the_foreground():
    view = View("clock tick", "rain", "day", "red")
    one = np.asarray(render(view, _rng(5)), int)
    two = np.asarray(render(replace(view, far="chainsaw"), _rng(5)), int)
    changed = np.abs(one - two).sum(2) > 0
    assert changed.any()
    assert np.ptp(np.flatnonzero(changed.any(0))) < SIZE // 2


def test_random_view_covers_all_classes():
    rng = _rng()
    views = [random_view(rng) for _ in range(2000)]
    assert {v.near for v in views} == set(CLASSES)
    assert {v.scene for v in views} == set(SCENES)
    assert all(v.far != v.near for v in views)
    assert all(v.color in CLASS_COLORS.get(v.near, (None,)) for v in views)
    assert 0.4 < np.mean([v.far is None for v in views]) < 0.6
    assert random_view(rng, near="rain", far_prob=0).label == "rain"
    assert View("dog", "rain", "day", None).label == "dog + rain"


def test_captions_name_the_view_and_audio_captions_only_the_audible_part():
    rng = _rng()
    for _ in range(300):
        view = random_view(rng)
        full = caption(view, rng, scene=True, color=True)
        assert view.color is None or view.color in full.split() or f"{view.color}," in full
        part = audio_caption(view, rng)
        assert part in audio_captions(view.near, view.far)
        assert not any(c in part.split() for c in ("red", "blue", "night", "day", "dusk"))
    assert class_caption("dog") == "a dog barking"
    assert "night" in scene_caption("night", _rng(1)) or "moon" in scene_caption("night", _rng(1))
    wordings = audio_captions("dog", "rain")
    assert len(set(wordings)) == len(wordings) == 27


def test_tokenizer_every_caption_word_is_one_token():
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(CLIP)
    rng = _rng()
    for _ in range(200):
        text = caption(random_view(rng), rng)
        assert len(tokenizer.tokenize(text)) == len(text.replace(",", " ,").split()), text
    assert tokenizer.unk_token_id not in tokenizer("a zebra plays the ukulele").input_ids[1:-1]
    assert tokenizer("a dog", padding="max_length", return_tensors="pt").input_ids.shape == (1, 77)


def test_weights_are_small_float16_safetensors():
    from safetensors import safe_open

    files = [f for f in WEIGHTS.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) <= 30 * 1024 * 1024
    tensors = [f for f in files if f.suffix == ".safetensors"]
    assert len(tensors) == 8
    for file in tensors:
        with safe_open(file, "pt") as stored:
            kinds = {stored.get_tensor(k).dtype for k in stored.keys()}  # noqa: SIM118
        assert kinds <= {torch.float16, torch.int64}, file


@pytest.mark.parametrize("folder", [CLAP, W2V_BERT, CLIP, IMAGE_CLASSIFIER, STABLE_DIFFUSION])
def test_models_have_the_layout_of_the_hub(folder: str):
    names = {f.name for f in Path(folder).iterdir()}
    expected = {"model_index.json"} if folder == STABLE_DIFFUSION else {"config.json"}
    assert expected <= names


def test_image_classifier_accuracy_and_unclear_recall():
    from soundprompt.mini.build.spoil import corrupt_far, corrupt_near

    rng = rng_of("check", 11)
    views, images = render_batch(rng, 200)
    predictions = load_image_classifier().classify(images)
    pairs = zip(views, predictions, strict=True)
    correct = [p.matches_view(v) and p.color == v.color for v, p in pairs]
    assert np.mean(correct) >= 0.99
    near = load_image_classifier().classify(
        [corrupt_near(random_view(rng), rng) for _ in range(200)]
    )
    assert np.mean([v.near == UNCLEAR for v in near]) >= 0.95
    far = load_image_classifier().classify(
        [corrupt_far(random_view(rng, far_prob=1), rng) for _ in range(100)]
    )
    assert np.mean([v.far == UNCLEAR for v in far]) >= 0.75
    labels = [v.label for v in views]
    assert np.mean(load_image_classifier().is_correct(images, labels)) >= 0.99
    assert np.mean(load_image_classifier().is_correct(images, labels[1:] + labels[:1])) < 0.2


@pytest.mark.slow
def test_autoencoder_preserves_rendered_images():
    from soundprompt.mini.check import autoencoder_accuracy

    figures = autoencoder_accuracy(100)
    assert figures["autoencoder_accuracy"] >= 0.98
    assert figures["autoencoder_psnr_db"] > 25


def test_standardize_changes_latents_but_not_reconstructions():
    from soundprompt.mini.build.vae import new_vae, standardize

    torch.manual_seed(0)
    vae = new_vae().eval()
    images = to_tensor(render_batch(_rng(), 8)[1])
    with torch.no_grad():
        before = vae(images).sample
        standardize(vae, images)
        latents = vae.encode(images).latent_dist.mode()
        after = vae(images).sample
    assert torch.allclose(before, after, atol=1e-4)
    assert latents.mean((0, 2, 3)).abs().max() < 1e-3
    assert (latents.std((0, 2, 3)) - 1).abs().max() < 1e-2


@pytest.mark.slow
def test_generated_images_match_their_captions():
    from soundprompt.mini.check import text_accuracy

    figures = text_accuracy(60, Path("runs/test"))
    assert figures["text_object_accuracy"] >= 0.95
    assert figures["text_scene_accuracy"] >= 0.95
    assert figures["text_background_accuracy"] >= 0.85
    assert figures["text_object_accuracy_clip"] >= 0.9


def _small_loss(model: nn.Module, step: int) -> torch.Tensor:
    return model(torch.randn(4, 3)).square().mean()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_fit_resumed_equals_uninterrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ema: float
):
    monkeypatch.setattr("soundprompt.mini.build.training_loop.CHECKPOINT_EVERY", 3)

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Linear(3, 2)

    plan = TrainingPlan(steps=8, learning_rate=1e-2, ema_decay=ema, mixed_precision=False)
    whole = fit("stage", model(), _small_loss, plan, tmp_path / "a")

    def killed(net: nn.Module, step: int) -> torch.Tensor:
        if step == 5:
            raise KeyboardInterrupt
        return _small_loss(net, step)

    with pytest.raises(KeyboardInterrupt):
        fit("stage", model(), killed, plan, tmp_path / "b")
    again = fit("stage", model(), _small_loss, plan, tmp_path / "b")
    assert not torch.equal(whole.weight, model().weight)
    assert torch.equal(whole.weight, again.weight)


def test_image_pool_is_rendered_once(tmp_path: Path):
    views, pixels = image_pool(tmp_path, 5)
    again, same = image_pool(tmp_path, 5)
    assert views == again
    assert torch.equal(pixels, same)
    assert pixels.shape == (5, 3, SIZE, SIZE)
    assert len(list(tmp_path.iterdir())) == 1


def test_build_unknown_stage_exits(capsys: pytest.CaptureFixture[str]):
    from soundprompt.mini.build.__main__ import main

    with pytest.raises(SystemExit):
        main(["painter"])
    assert "painter" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["vae", "clap"], "--init_from is for clap and w2v_bert"),
        (["clap"], "there is no directory"),
    ],
)
def test_build_init_from_is_validated(
    stages: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    from soundprompt.mini.build.__main__ import main

    with pytest.raises(SystemExit):
        main([*stages, "--init_from", str(tmp_path / "none")])
    assert message in capsys.readouterr().err
