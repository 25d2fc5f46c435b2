"""Training of the `mini` CLAP on synthetic clips and their captions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import ClapConfig, ClapModel, CLIPTokenizer

from align.models.backbones.clap import ClapBackbone
from align.training.augmentation import FeatureLayout
from soundprompt.mini.build.features import (
    CLAP_BINS,
    AudioFeaturePool,
    ClassHeads,
    audio_processors,
    clap_extractor,
    contrastive_loss,
)
from soundprompt.mini.build.saving import save_half
from soundprompt.mini.build.training_loop import Loss, TrainingPlan, device, fit

PLAN = TrainingPlan(steps=9000, learning_rate=1e-3, weight_decay=0.05, ema_decay=0.995)
CONTINUED_PLAN = TrainingPlan(steps=6000, learning_rate=6e-4, weight_decay=0.05, ema_decay=0.995)
BATCH = 32


def new_clap(tokenizer: CLIPTokenizer) -> ClapModel:
    """Create an untrained CLAP: 16 audio tokens of width 256 for five seconds."""
    audio = {
        "spec_size": 128,
        "num_mel_bins": CLAP_BINS,
        "window_size": 4,
        "patch_size": 4,
        "patch_stride": [4, 4],
        "patch_embeds_hidden_size": 32,
        "hidden_size": 256,
        "depths": [1, 2, 3, 2],
        "num_attention_heads": [2, 4, 4, 8],
        "enable_fusion": False,
        "hidden_dropout_prob": 0.0,
        "drop_path_rate": 0.1,
    }
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 192,
        "max_position_embeddings": 80 + len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "type_vocab_size": 1,
    }
    return ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=128))


class _Learner(nn.Module):
    def __init__(self, clap: ClapModel) -> None:
        super().__init__()
        self.clap = clap
        self.class_heads = ClassHeads(clap.config.audio_config.hidden_size)


def _loss_of(pool: AudioFeaturePool, tokenizer: CLIPTokenizer) -> Loss:
    scale = FeatureLayout(CLAP_BINS, ClapBackbone.log_scale)

    def loss(learner: Any, step: int) -> torch.Tensor:
        batch = pool.batch(1, step, BATCH, scale)
        tokens = tokenizer(batch["texts"], padding="longest", return_tensors="pt").to(device())
        out = learner.clap(
            input_features=batch["features"][:, None].to(device()),
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
        )
        pair = contrastive_loss(
            out.audio_embeds, out.text_embeds, learner.clap.logit_scale_a.exp(), batch
        )
        return 0.5 * pair + learner.class_heads(out.audio_model_output.pooler_output, batch)

    return loss


def build(folder: Path, weights: Path, init_from: Path | None = None) -> None:
    """Pre-train CLAP and save it with its feature extractor and tokenizer.

    Args:
        folder: Directory of the feature pool and the checkpoints.
        weights: Output directory of the trained models.
        init_from: Trained models whose CLAP is trained further with a shorter plan.
    """
    torch.manual_seed(0)
    pool = AudioFeaturePool.load(folder, audio_processors(), "clap")
    tokenizer = CLIPTokenizer.from_pretrained(weights / "clip")
    clap = new_clap(tokenizer)
    if init_from is not None:
        clap = ClapModel.from_pretrained(init_from / "clap", dtype=torch.float32)
    # Separate checkpoints: a finished run from scratch must not be resumed.
    name, plan = ("clap", PLAN) if init_from is None else ("clap-longer", CONTINUED_PLAN)
    learner = fit(name, _Learner(clap), _loss_of(pool, tokenizer), plan, folder)
    save_half(learner.clap, weights / "clap")
    clap_extractor().save_pretrained(weights / "clap")
    tokenizer.save_pretrained(weights / "clap")
