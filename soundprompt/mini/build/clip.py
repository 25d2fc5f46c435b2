"""Training of the tokenizer and of the `mini` CLIP."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

from soundprompt.mini.build.image_classifier import IGNORE_INDEX
from soundprompt.mini.build.samples import image_pool, rng_of
from soundprompt.mini.build.saving import save_half
from soundprompt.mini.build.training_loop import Loss, TrainingPlan, device, fit
from soundprompt.mini.captions import SCENE_PHRASES, caption, corpus
from soundprompt.mini.image_classifier import CLASSES_BY_TASK, NOTHING
from soundprompt.mini.world import View

PLAN = TrainingPlan(steps=1600, learning_rate=1.5e-3, weight_decay=0.05, ema_decay=0.99)
BATCH = 96
NUM_IMAGES = 24_000
POSITIONS = 77  # as Stable Diffusion's text encoder


def new_tokenizer() -> CLIPTokenizer:
    """Train a byte-pair tokenizer that encodes every word of the captions as one token."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    trained.normalizer = normalizers.Lowercase()
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern=" ", behavior="removed"),
            pre_tokenizers.Punctuation(),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Every letter inside and at the end of a word, so that any word can be encoded.
    alphabet = letters + [f"{letter}</w>" for letter in letters]
    trainer = trainers.BpeTrainer(
        vocab_size=4000, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    trained.train_from_iterator(list(corpus()) * 4, trainer)
    merges = [tuple(pair) for pair in json.loads(trained.to_str())["model"]["merges"]]
    words = alphabet + ["".join(pair) for pair in merges]
    words = [*dict.fromkeys(words), "<|startoftext|>", "<|endoftext|>"]
    vocab = {word: i for i, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=POSITIONS)


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """Create an untrained CLIP."""
    tower = {"num_attention_heads": 4, "hidden_act": "quick_gelu"}
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "max_position_embeddings": POSITIONS,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "image_size": 64,
        "patch_size": 8,
    }
    return CLIPModel(
        CLIPConfig(text_config=text | tower, vision_config=vision | tower, projection_dim=128)
    )


class _Learner(nn.Module):
    """CLIP with auxiliary classification heads shared by both towers, for training only.

    The contrastive loss over a hundred pairs does not require to distinguish foreground and
    background; the classification loss does.
    """

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        width = clip.config.projection_dim
        self.class_heads = nn.ModuleDict(
            {q: nn.Linear(width, len(a)) for q, a in CLASSES_BY_TASK.items()}
        )


def _targets(view: View, text: str) -> dict[str, int]:
    """Class indices that the caption names; the others are ignored."""
    labels = {"near": view.near, "far": view.far or NOTHING}
    targets = {q: CLASSES_BY_TASK[q].index(a) for q, a in labels.items()}
    color = view.color if view.color and view.color in text.split() else None
    targets["colour"] = CLASSES_BY_TASK["colour"].index(color) if color else IGNORE_INDEX
    scene = any(wording in text for wording in SCENE_PHRASES[view.scene])
    targets["scene"] = CLASSES_BY_TASK["scene"].index(view.scene) if scene else IGNORE_INDEX
    return targets


def _class_loss(
    class_heads: nn.ModuleDict, embeds: torch.Tensor, targets: list[dict[str, int]]
) -> torch.Tensor:
    total = torch.zeros((), device=embeds.device)
    for task in CLASSES_BY_TASK:
        labels = torch.tensor([t[task] for t in targets], device=embeds.device)
        if (labels >= 0).any():
            total = total + F.cross_entropy(class_heads[task](embeds).float(), labels)
    return total


def _loss_of(tokenizer: CLIPTokenizer, views: list[View], images: torch.Tensor) -> Loss:
    def loss(learner: Any, step: int) -> torch.Tensor:
        rng = rng_of("clip", step)
        chosen = rng.choice(len(views), BATCH, replace=False)
        # Half of the captions are complete, which makes the pairs of a batch distinguishable.
        full_captions = [True if whole else None for whole in rng.random(BATCH) < 0.5]
        texts = [
            caption(views[i], rng, scene=full, color=full)
            for i, full in zip(chosen, full_captions, strict=True)
        ]
        # The text tower is causal: positions after the longest caption have no effect.
        tokens = tokenizer(texts, padding="longest", return_tensors="pt").input_ids
        pixels = images[torch.from_numpy(chosen)].float() / 127.5 - 1
        out = learner.clip(input_ids=tokens.to(device()), pixel_values=pixels.to(device()))
        target = torch.arange(BATCH, device=device())
        contrast = F.cross_entropy(out.logits_per_text.float(), target)
        contrast = contrast + F.cross_entropy(out.logits_per_image.float(), target)
        targets = [_targets(views[i], text) for i, text in zip(chosen, texts, strict=True)]
        text_loss = _class_loss(learner.class_heads, out.text_embeds * 10, targets)
        image_loss = _class_loss(learner.class_heads, out.image_embeds * 10, targets)
        return 0.5 * contrast + 0.5 * (text_loss + image_loss)

    return loss


def build(folder: Path, weights: Path) -> None:
    """Train CLIP, and save it and its text encoder as that of the pipeline.

    Args:
        folder: Directory of the image pool and the checkpoints.
        weights: Output directory of the trained models.
    """
    torch.manual_seed(0)
    tokenizer = new_tokenizer()
    views, images = image_pool(folder, NUM_IMAGES)
    learner = _Learner(new_clip(tokenizer))
    clip = fit("clip", learner, _loss_of(tokenizer, views, images), PLAN, folder).clip
    save_half(clip, weights / "clip")
    tokenizer.save_pretrained(weights / "clip")
    CLIPImageProcessor(
        size={"shortest_edge": 64}, crop_size=64, image_mean=[0.5] * 3, image_std=[0.5] * 3
    ).save_pretrained(weights / "clip")
    clip.text_model.save_pretrained(weights / "stable-diffusion" / "text_encoder")
    tokenizer.save_pretrained(weights / "stable-diffusion" / "tokenizer")
