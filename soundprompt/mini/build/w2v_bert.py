"""Training of the `mini` Wav2Vec2-BERT on synthetic clips and embeddings of their captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import (
    CLIPModel,
    CLIPTokenizer,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
)

from align.models.backbones.w2v_bert import W2vBertBackbone
from align.training.augmentation import FeatureLayout
from soundprompt.mini.build.features import (
    W2V_BERT_BINS,
    W2V_BERT_STRIDE,
    AudioFeaturePool,
    ClassHeads,
    audio_processors,
    contrastive_loss,
    w2v_bert_extractor,
)
from soundprompt.mini.build.saving import save_half
from soundprompt.mini.build.training_loop import Loss, TrainingPlan, device, fit

PLAN = TrainingPlan(steps=5000, learning_rate=1e-3, weight_decay=0.05, ema_decay=0.995)
CONTINUED_PLAN = TrainingPlan(steps=5000, learning_rate=6e-4, weight_decay=0.05, ema_decay=0.995)
BATCH = 24


def new_model() -> Wav2Vec2BertModel:
    """The model before training: 25 audio tokens a second, 128 wide."""
    return Wav2Vec2BertModel(
        Wav2Vec2BertConfig(
            feature_projection_input_dim=W2V_BERT_BINS * W2V_BERT_STRIDE,
            hidden_size=128,
            output_hidden_size=128,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=384,
            conv_depthwise_kernel_size=15,
            left_max_position_embeddings=32,
            right_max_position_embeddings=8,
            layerdrop=0.0,
            conformer_conv_dropout=0.05,
            apply_spec_augment=False,
        )
    )


class _Learner(nn.Module):
    """The model and a projection of its mean token to the embedding space of the `mini` CLIP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.model = new_model()
        self.project = nn.Linear(self.model.config.hidden_size, width)
        self.logit_scale = nn.Parameter(torch.tensor(2.66))  # CLIP's initial log temperature
        self.class_heads = ClassHeads(self.model.config.hidden_size)


def _loss_of(pool: AudioFeaturePool, clip: CLIPModel, tokenizer: CLIPTokenizer) -> Loss:
    scale = FeatureLayout(W2V_BERT_BINS, W2vBertBackbone.log_scale, W2vBertBackbone.normalized)

    def loss(learner: Any, step: int) -> torch.Tensor:
        batch = pool.batch(2, step, BATCH, scale)
        tokens = tokenizer(batch["texts"], padding="longest", return_tensors="pt").to(device())
        with torch.no_grad():
            text = clip.get_text_features(**tokens)
            text = F.normalize(getattr(text, "pooler_output", text), dim=-1)
        hidden = learner.model(input_features=batch["features"].to(device())).last_hidden_state
        pooled = hidden.mean(1)
        audio = F.normalize(learner.project(pooled), dim=-1)
        pair = contrastive_loss(audio, text, learner.logit_scale.exp(), batch)
        return 0.5 * pair + learner.class_heads(pooled, batch)

    return loss


def build(folder: Path, weights: Path, init_from: Path | None = None) -> None:
    """Pre-train Wav2Vec2-BERT and save it with its feature extractor.

    Args:
        folder: Directory of the feature pool and the checkpoints.
        weights: Output directory of the trained models.
        init_from: Trained models whose Wav2Vec2-BERT is trained further with a shorter plan.
    """
    torch.manual_seed(0)
    pool = AudioFeaturePool.load(folder, audio_processors(), "w2v_bert")
    clip = CLIPModel.from_pretrained(weights / "clip", dtype=torch.float32).eval().to(device())
    tokenizer = CLIPTokenizer.from_pretrained(weights / "clip")
    learner = _Learner(clip.config.projection_dim)
    if init_from is not None:
        learner.model = Wav2Vec2BertModel.from_pretrained(
            init_from / "w2v-bert", dtype=torch.float32
        )
    # Separate checkpoints: a finished run from scratch must not be resumed.
    name, plan = ("w2v_bert", PLAN) if init_from is None else ("w2v_bert-longer", CONTINUED_PLAN)
    learner = fit(name, learner, _loss_of(pool, clip, tokenizer), plan, folder)
    save_half(learner.model, weights / "w2v-bert")
    w2v_bert_extractor().save_pretrained(weights / "w2v-bert")
