"""What training reads of every pair, computed once: latents of the image, tokens of the sound."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from align.data import DataError
from align.listening import pad
from diffuse.data import Pairs
from diffuse.keeping import keep, rows_of, weights_of
from diffuse.reading import Reader, Squares, read_all, sounds_of

MOST_UNUSABLE = 0.05  # share of pairs that may be unreadable before a run is stopped
BATCH = 32


@dataclass
class Prepared:
    """Pairs as tensors in half precision; N pairs of U different recordings.

    Attributes:
        latents: (N, V, C, h, w) scaled as the UNet takes them; V squares of each image.
        sound: (N,) which recording each pair has.
        tokens: (U, S, H) audio tokens.
        mask: (U, S) bool, true where heard.
        embeds: (U, L, D) prompt embeds by the aligned encoder.
        kept: N row numbers of the pairs that could be read.
        unreadable: the others, and why.
    """

    latents: torch.Tensor
    sound: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor
    embeds: torch.Tensor
    kept: list[int]
    unreadable: list[str]

    def __len__(self) -> int:
        return len(self.latents)


class Preparation:
    """Encodes pairs with a base's autoencoder and an aligned encoder.

    Args:
        vae: the base's.
        encoder: an `AudioPromptEncoder`.
        squares: how images are cut.
        device: where both compute.
        cache: a folder, or None.
        workers: processes that read.
    """

    def __init__(
        self,
        vae: Any,
        encoder: Any,
        squares: Squares,
        device: torch.device,
        cache: Path | None = None,
        workers: int = 1,
    ) -> None:
        self._vae, self._encoder = vae.to(device).eval(), encoder.to(device).eval()
        self._squares, self._device = squares, device
        self._cache, self._workers = cache, workers

    def of(self, pairs: Pairs, title: str) -> Prepared:
        """The pairs' tensors, from the cache where they are there.

        Raises:
            DataError: more than 5% of the pairs, or all, cannot be read.
        """
        source = {
            "rows": rows_of(pairs.rows),
            "weights": weights_of(self._vae, self._encoder),
            "squares": vars(self._squares),
        }
        tensors, notes = keep(self._cache, "pairs", source, lambda: self._make(pairs, title))
        for name in notes["unreadable"]:
            print(f"left out: {name}", flush=True)
        return Prepared(**tensors, kept=notes["kept"], unreadable=notes["unreadable"])

    def _make(self, pairs: Pairs, title: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        sounds = sounds_of(pairs.rows)
        repeated = {i for i, first in enumerate(sounds) if first != i}
        reader = Reader(self._encoder.ear, pairs.rows, self._squares, repeated)
        kept, unreadable, parts, heard = [], [], [], _Heard(self._encoder, self._device)
        pixels: list[np.ndarray] = []
        allowed = max(1, int(MOST_UNUSABLE * len(pairs)))
        answers = tqdm(read_all(reader, self._workers), title, len(pairs), mininterval=2)
        for i, answer in enumerate(answers):
            if isinstance(answer, str) or not heard.add(i, sounds[i], answer[0]):
                why = answer if isinstance(answer, str) else "its recording could not be read"
                unreadable.append(f"pair {i + 1}: {why}")
                if len(unreadable) > allowed:
                    raise DataError(
                        f"more than {MOST_UNUSABLE:.0%} of {len(pairs)} pairs cannot be read; "
                        f"the first: {unreadable[0]}"
                    )
                continue
            kept.append(i)
            pixels.append(answer[1])
            if len(pixels) == BATCH:
                parts.append(self._latents(pixels))
                pixels = []
        if pixels:
            parts.append(self._latents(pixels))
        if not kept:
            raise DataError(f"none of {len(pairs)} pairs can be read; the first: {unreadable[0]}")
        sound = torch.tensor([heard.place[sounds[i]] for i in kept])
        tensors = {"latents": torch.cat(parts), "sound": sound, **heard.tensors()}
        return tensors, {"kept": kept, "unreadable": unreadable}

    @torch.no_grad()
    def _latents(self, pixels: list[np.ndarray]) -> torch.Tensor:
        squares = torch.from_numpy(np.concatenate(pixels)).permute(0, 3, 1, 2)
        config, dtype = self._vae.config, next(self._vae.parameters()).dtype
        found = []
        for part in squares.split(BATCH):
            inputs = part.to(self._device).to(dtype) / 127.5 - 1
            mode = self._vae.encode(inputs).latent_dist.mode().float()
            shift = getattr(config, "shift_factor", None) or 0.0
            found.append(((mode - shift) * config.scaling_factor).half().cpu())
        return torch.cat(found).unflatten(0, (len(pixels), -1))


class _Heard:
    """Collects features and turns them into tokens and prompt embeds, batch by batch."""

    def __init__(self, encoder: Any, device: torch.device) -> None:
        self._encoder, self._device = encoder, device
        self.place: dict[int, int] = {}  # of a recording, by the first row that has it
        self._waiting: list[list[np.ndarray]] = []
        self._parts: list[tuple[torch.Tensor, ...]] = []

    def add(self, row: int, first: int, features: list[np.ndarray] | None) -> bool:
        """Takes a row's features; false where it shares a recording that could not be read."""
        if row != first:
            return first in self.place
        assert features is not None
        self.place[row] = len(self.place)
        self._waiting.append(features)
        if len(self._waiting) == BATCH:
            self._encode()
        return True

    @torch.no_grad()
    def _encode(self) -> None:
        batch = {k: v.to(self._device) for k, v in pad(self._waiting).items()}
        tokens, mask = self._encoder.tokens(**batch)
        head = self._encoder.head()
        embeds = head.prompts(*head(tokens, mask)).embeds
        self._parts.append((tokens.half().cpu(), mask.cpu(), embeds.half().cpu()))
        self._waiting = []

    def tensors(self) -> dict[str, torch.Tensor]:
        """Tokens, mask and embeds of all recordings."""
        if self._waiting:
            self._encode()
        longest = max(mask.shape[1] for _, mask, _ in self._parts)
        fill = torch.nn.functional.pad
        return {
            "tokens": torch.cat(
                [fill(t, (0, 0, 0, longest - t.shape[1])) for t, _, _ in self._parts]
            ),
            "mask": torch.cat([fill(m, (0, longest - m.shape[1])) for _, m, _ in self._parts]),
            "embeds": torch.cat([embeds for _, _, embeds in self._parts]),
        }
