"""The audio tokens of a backbone that does not train, computed once and kept."""

from __future__ import annotations

import numpy as np
import torch
from tqdm import tqdm

from align.models.encoder import AudioPromptEncoder
from align.models.processing import pad
from align.preprocessing.cache import Cache, digest_of_weights
from align.preprocessing.features import Heard
from align.preprocessing.store import Chosen, Store

BLOCK_ROWS = 32  # always the same rows together: another batch could round differently


@torch.no_grad()
def frozen_tokens(
    encoder: AudioPromptEncoder,
    heard: Heard,
    *,
    device: torch.device | str = "cpu",
    title: str = "tokens",
    cache: Cache | None = None,
) -> Chosen:
    """The audio tokens of every row; a recording that stands in several is asked for once.

    Args:
        encoder: its backbone is only asked; it is left on `device`, in evaluation mode.
        heard: N rows.
        device: where to compute.
        title: what is said, and what the progress bar says.
        cache: where tokens are kept; in memory where there is none, or where `heard` does not
            tell what it depends on.

    Returns:
        N rows, each tokens (S, H) up to the last that was heard and their mask (S,), 1 where
        heard; both in half precision.
    """
    encoder.eval().to(device)
    backbone, (sounds, which) = encoder.backbone, heard.sounds()
    about = {
        "heard": heard.key,
        "rows": len(sounds),
        "backbone": encoder.config.backbone,
        "weights": digest_of_weights(backbone.state_dict()),
        "max_tokens": encoder.config.max_tokens,
    }

    def rows_from(start: int) -> list[list[np.ndarray]]:
        batch = pad(sounds[start : start + BLOCK_ROWS])
        tokens, mask = encoder.tokens(**{name: v.to(device) for name, v in batch.items()})
        return [_row(*row) for row in zip(tokens.cpu(), mask.cpu(), strict=True)]

    def make(store: Store) -> None:
        starts = range(len(store), len(sounds), BLOCK_ROWS)
        for start in tqdm(starts, f"{title} ({BLOCK_ROWS} a step)", mininterval=1):
            store.append(rows_from(start))

    def size_bytes() -> float:
        frames = sum(len(window) for sound in sounds for window in sound)
        windows = sounds[0]
        tokens, _ = encoder.tokens(**{k: v.to(device) for k, v in pad([windows]).items()})
        return 2.0 * tokens.numel() * frames / sum(map(len, windows))

    kept = cache if cache is not None and heard.key else Cache()
    return Chosen(kept.made("tokens", about, title, size_bytes, make), which)


def _row(tokens: torch.Tensor, mask: torch.Tensor) -> list[np.ndarray]:
    heard = mask.nonzero()
    end = int(heard[-1]) + 1 if len(heard) else 1
    return [tokens[:end].float().numpy(), mask[:end].float().numpy()]
