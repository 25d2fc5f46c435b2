"""Features of synthetic clips, cached on disk, to pre-train the audio models."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr
import torch
from torch import nn
from torch.nn import functional as F
from transformers import ClapFeatureExtractor, SeamlessM4TFeatureExtractor

from align.config.arguments import AugmentArguments
from align.models.backbones.loading import backbone_class
from align.models.processing import AudioProcessor
from align.preprocessing.cache import CACHE_VERSION
from align.training.augmentation import FeatureLayout, augment
from soundprompt.mini.build.samples import SEEDS, rng_of
from soundprompt.mini.captions import audio_caption
from soundprompt.mini.sounds import DURATION_S, SAMPLE_RATE, recording
from soundprompt.mini.source_hash import source_hash
from soundprompt.mini.world import CLASSES, View, random_view

NUM_CLIPS = 24_000
CHUNK = 500
CLAP_BINS = 64
W2V_BERT_BINS, W2V_BERT_STRIDE = 80, 4
NOTHING = len(CLASSES)  # class index of no background
# No mixing: the background is a training target.
AUGMENTATION = AugmentArguments(
    time_shift=1.0, pitch_shift=3, gain_db=12, equalize_db=9, time_masks=2, frequency_masks=2
)


def clap_extractor() -> ClapFeatureExtractor:
    """Create the feature extractor of CLAP for windows of five seconds."""
    return ClapFeatureExtractor(
        feature_size=CLAP_BINS,
        sampling_rate=SAMPLE_RATE,
        hop_length=480,
        max_length_s=int(DURATION_S),
        fft_window_size=1024,
        frequency_min=50,
        frequency_max=SAMPLE_RATE // 2,
        truncation="rand_trunc",
        padding="repeatpad",
    )


def w2v_bert_extractor() -> SeamlessM4TFeatureExtractor:
    """Create the feature extractor of Wav2Vec2-BERT; it stacks four frames instead of two."""
    return SeamlessM4TFeatureExtractor(
        feature_size=W2V_BERT_BINS,
        num_mel_bins=W2V_BERT_BINS,
        sampling_rate=16_000,
        stride=W2V_BERT_STRIDE,
    )


def audio_processors() -> dict[str, AudioProcessor]:
    """Create the audio processors of both audio models."""
    return {
        "clap": AudioProcessor("clap_audio_model", clap_extractor(), 1),
        "w2v_bert": AudioProcessor("wav2vec2-bert", w2v_bert_extractor(), 1),
    }


def view_and_audio(seed: int) -> tuple[View, np.ndarray]:
    """Sample a view and generate its audio at `soundprompt.mini.sounds.SAMPLE_RATE`.

    Args:
        seed: Random seed.
    """
    rng = np.random.default_rng([SEEDS["sounds"], seed])
    view = random_view(rng, far_prob=0.5)
    return view, recording(view.near, view.far, rng)


def _write_chunk(processors: dict[str, AudioProcessor], start: int, path: Path) -> None:
    near, far = [], []
    kept: dict[str, list[np.ndarray]] = {name: [] for name in processors}
    for seed in range(start, start + CHUNK):
        view, audio = view_and_audio(seed)
        near.append(CLASSES.index(view.near))
        far.append(CLASSES.index(view.far) if view.far else NOTHING)
        for name, processor in processors.items():
            waveform = soxr.resample(audio, SAMPLE_RATE, processor.feature_extractor.sampling_rate)
            feature = backbone_class(processor.model_type).extract_features(
                processor.feature_extractor, [waveform]
            )[0]
            kept[name].append(feature.astype(np.float16))
    partial = path.with_suffix(".partial.npz")
    columns: dict[str, Any] = {name: np.stack(rows) for name, rows in kept.items()}
    np.savez(partial, **(columns | {"near": near, "far": far}))
    partial.replace(path)


@dataclass
class AudioFeaturePool:
    """Features of all clips for one backbone.

    Attributes:
        features: Features (N, T, F).
        near: Class indices (N,) of the foreground.
        far: Class indices (N,) of the background.
    """

    features: np.ndarray
    near: np.ndarray
    far: np.ndarray

    @classmethod
    def load(
        cls, folder: Path, processors: dict[str, AudioProcessor], name: str
    ) -> AudioFeaturePool:
        """Load the features of a backbone; missing ones are computed.

        Args:
            folder: Directory of the pool.
            processors: Audio processors by backbone.
            name: Name of the backbone.
        """
        folder.mkdir(parents=True, exist_ok=True)
        parts: list[dict[str, Any]] = []
        made_by = f"{source_hash('sounds', 'world')}-{CACHE_VERSION}"
        for start in range(0, NUM_CLIPS, CHUNK):
            path = folder / f"sounds-{made_by}-{start:05d}.npz"
            if not path.exists():
                _write_chunk(processors, start, path)
                print(f"sounds: {start + CHUNK}/{NUM_CLIPS}", flush=True)
            with np.load(path) as data:
                parts.append({"features": data[name], "near": data["near"], "far": data["far"]})
        columns = ("features", "near", "far")
        return cls(*(np.concatenate([part[c] for part in parts]) for c in columns))

    def batch(self, purpose: int, step: int, n: int, scale: FeatureLayout) -> dict[str, Any]:
        """Sample the augmented batch of a step.

        Args:
            purpose: Number of the random stream.
            step: Training step.
            n: Batch size.
            scale: Layout of the features.

        Returns:
            features (n, T, F), near (n,), far (n,), and the captions texts.
        """
        rng = rng_of("sounds", purpose, step)
        rows = rng.choice(len(self.near), n, replace=False)
        changed = [augment(self.features[r], AUGMENTATION, scale, rng) for r in rows]
        texts = []
        for r in rows:
            far = CLASSES[self.far[r]] if self.far[r] != NOTHING else None
            texts.append(audio_caption(View(CLASSES[self.near[r]], far, "day", None), rng))
        return {
            "features": torch.from_numpy(np.stack(changed)),
            "near": torch.from_numpy(self.near[rows]),
            "far": torch.from_numpy(self.far[rows]),
            "texts": texts,
        }


class ClassHeads(nn.Module):
    """Auxiliary heads for pre-training that classify foreground and background."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.near = nn.Linear(width, len(CLASSES))
        self.far = nn.Linear(width, len(CLASSES) + 1)

    def forward(self, pooled: torch.Tensor, batch: dict[str, Any]) -> torch.Tensor:
        """Compute the sum of both cross entropies.

        Args:
            pooled: Pooled audio features (B, D).
            batch: Batch with the class indices near and far, (B,).
        """
        device = pooled.device
        near = F.cross_entropy(self.near(pooled).float(), batch["near"].to(device))
        return near + F.cross_entropy(self.far(pooled).float(), batch["far"].to(device))


def contrastive_loss(
    audio: torch.Tensor, text: torch.Tensor, scale: torch.Tensor, batch: dict[str, Any]
) -> torch.Tensor:
    """Compute CLIP's loss; clips with the same classes share the target probability.

    Args:
        audio: Normalized audio embeddings (B, P).
        text: Normalized text embeddings (B, P).
        scale: Inverse temperature.
        batch: Batch with the class indices near and far, (B,).
    """
    group = batch["near"] * 100 + batch["far"]
    targets = (group[:, None] == group[None]).float().to(audio.device)
    targets = targets / targets.sum(1, keepdim=True)
    logits = (audio @ text.T).float() * scale
    return -(
        (targets * logits.log_softmax(1)).sum(1) + (targets * logits.log_softmax(0)).sum(0)
    ).mean()
