"""Precompute the audio tokens of a frozen backbone."""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from align.models.encoder import AudioPromptEncoder
from align.models.processing import pad
from align.preprocessing.cache import Cache, state_dict_digest
from align.preprocessing.features import AudioFeatures
from align.preprocessing.store import Store, StoreView

BLOCK_ROWS = 32  # fixed batches: results may round differently in another batch


@torch.no_grad()
def frozen_tokens(
    encoder: AudioPromptEncoder,
    audio_features: AudioFeatures,
    *,
    device: torch.device | str = "cpu",
    title: str = "tokens",
    cache: Cache | None = None,
) -> StoreView:
    """Compute the audio tokens of every row; clips with several rows are encoded once.

    Args:
        encoder: Encoder with a frozen backbone; left on `device` in evaluation mode.
        audio_features: Features of N rows.
        device: Device to compute on.
        title: Title of messages and of the progress bar.
        cache: Cache for the tokens; they stay in memory without one, or if the features have no
            fingerprint.

    Returns:
        N rows, each tokens (S, H) without trailing padding and their mask (S,), 1 for tokens and 0
        for padding; both in half precision.
    """
    encoder.eval().to(device)
    backbone, (clips, indices) = encoder.backbone, audio_features.unique_clips()
    key = {
        "features": audio_features.fingerprint,
        "rows": len(clips),
        "backbone": encoder.config.backbone,
        "weights": state_dict_digest(backbone.state_dict()),
        "max_tokens": encoder.config.max_tokens,
    }

    def rows_from(start: int) -> list[list[np.ndarray]]:
        batch = pad(clips[start : start + BLOCK_ROWS])
        tokens, mask = encoder.get_audio_tokens(**{name: v.to(device) for name, v in batch.items()})
        return [_row(*row) for row in zip(tokens.cpu(), mask.cpu(), strict=True)]

    def create(store: Store) -> None:
        starts = range(len(store), len(clips), BLOCK_ROWS)
        for start in tqdm(starts, f"{title} ({BLOCK_ROWS} a step)", mininterval=1):
            store.append(rows_from(start))

    def estimate_bytes() -> float:
        frames = sum(len(window) for clip in clips for window in clip)
        windows = clips[0]
        tokens, _ = encoder.get_audio_tokens(**{k: v.to(device) for k, v in pad([windows]).items()})
        return 2.0 * tokens.numel() * frames / sum(map(len, windows))

    token_cache = cache if cache is not None and audio_features.fingerprint else Cache()
    return StoreView(
        token_cache.get_or_create("tokens", key, title, estimate_bytes, create), indices
    )


def _row(tokens: torch.Tensor, mask: torch.Tensor) -> list[np.ndarray]:
    nonzero = mask.nonzero()
    end = int(nonzero[-1]) + 1 if len(nonzero) else 1
    return [tokens[:end].float().numpy(), mask[:end].float().numpy()]
