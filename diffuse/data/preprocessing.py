"""What training reads of every pair, computed once: latents of the image, tokens of the sound."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tqdm import tqdm

from align.audio.files import AudioError
from align.data.errors import DataError, Unusable
from align.models.processing import Ear, pad
from align.preprocessing.cache import Cache, digest, digest_of_weights
from align.preprocessing.fingerprint import recording_names, spread_rows, told_file, told_recordings
from align.preprocessing.parallel import read_rows
from align.preprocessing.store import Store
from diffuse.config.arguments import DataArguments
from diffuse.data.images import ImageError, open_image, views
from diffuse.data.pairs import Pairs

BLOCK_ROWS = 32  # always the same pairs together: another batch could round differently


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
        cache: where what they give is kept; in memory by default.
        workers: processes that read.
    """

    def __init__(
        self,
        vae: Any,
        encoder: Any,
        squares: Squares,
        device: torch.device,
        cache: Cache | None = None,
        workers: int = 1,
    ) -> None:
        self._vae, self._encoder = vae.to(device).eval(), encoder.to(device).eval()
        self._squares, self._device = squares, device
        self._cache, self._workers = cache or Cache(), workers

    def of(self, pairs: Pairs, title: str) -> Prepared:
        """The pairs' tensors, from the cache where they are there; else with progress.

        Raises:
            DataError: more than 5% of the pairs, or all, cannot be read.
        """
        sounds = sounds_of(pairs.rows)
        repeated = {i for i, first in enumerate(sounds) if first != i}
        reader = Reader(self._encoder.ear, pairs.rows, self._squares, repeated)

        fresh: list[bool] = []

        def make(store: Store) -> None:
            fresh.append(True)
            try:
                self._fill(store, reader, sounds, title)
            except DataError:
                store.discard()
                raise

        def size_bytes() -> float:
            return self._size_bytes(reader, len(set(sounds)))

        about = {"pairs": told_pairs(pairs.rows), **self._about()}
        store = self._cache.made("pairs", about, title, size_bytes, make)
        found = _loaded(store, sounds)
        for name in [] if fresh else found.unreadable:
            print(f"left out: {name}", flush=True)
        return found

    def _about(self) -> dict[str, Any]:
        """All that latents, tokens and embeds depend on beside the pairs, as JSON."""
        ear, config = self._encoder.ear, self._encoder.config.to_dict()
        scale = {k: self._vae.config.get(k) for k in ("scaling_factor", "shift_factor")}
        return {
            "vae": [digest_of_weights(self._vae.state_dict()), scale],
            "encoder": [
                digest_of_weights(self._encoder.state_dict()),
                {k: v for k, v in config.items() if k != "_name_or_path"},
            ],
            "ear": [ear.model_type, ear.extractor.to_dict(), ear.max_windows],
            "squares": vars(self._squares),
        }

    def _size_bytes(self, reader: Reader, sounds: int) -> float:
        """How large all will be, by one pair that can be read."""
        some = (i for i in spread_rows(len(reader.rows)) if i not in reader.repeated)
        for answer in map(reader.read, some):
            if not isinstance(answer, str) and answer[0] is not None:
                latents, (heard,) = self._latents([answer[1]]), self._heard([answer[0]])
                size = sum(part.nbytes for part in heard)
                return float(len(reader.rows) * latents.nbytes + sounds * size)
        return 0.0

    def _fill(self, store: Store, reader: Reader, sounds: Sequence[int], title: str) -> None:
        """Appends what the store lacks: of each pair its latents, and its sound where it is new."""
        start, count = len(store), len(sounds)
        bad = Unusable(count, "pairs", "pair")
        for i, error in sorted(_errors(store).items()):
            bad.add(i, error)
        known = {i for i, row in enumerate(_shapes(store)) if len(row) > 1}
        answers = read_rows(reader, count, start, self._workers, worth=WORTH_WORKERS)
        progress = iter(tqdm(answers, title, count, initial=start, mininterval=2))
        while start < count:
            block, found = list(islice(progress, BLOCK_ROWS)), {}
            for i, answer in enumerate(block, start):
                if isinstance(answer, str):
                    found[i] = answer
                elif i == sounds[i]:
                    known.add(i)
                elif sounds[i] not in known:
                    found[i] = "its recording could not be read"
            for i, error in found.items():
                bad.add(i, error)
            good = [answer for i, answer in enumerate(block, start) if i not in found]
            made = iter(self._rows(good))
            rows = [[] if i in found else next(made) for i in range(start, start + len(block))]
            store.append(rows, errors=found)
            start += len(block)
        if len(bad.said) == count:
            bad.check(0)

    def _rows(self, good: list[Any]) -> list[list[np.ndarray]]:
        """Of each pair that was read its latents; of a new recording tokens, mask and embeds."""
        if not good:
            return []
        latents = self._latents([pixels for _, pixels in good])
        heard = iter(self._heard([features for features, _ in good if features is not None]))
        return [
            [one.numpy(), *(() if features is None else next(heard))]
            for one, (features, _) in zip(latents, good, strict=True)
        ]

    @torch.no_grad()
    def _latents(self, pixels: list[np.ndarray]) -> torch.Tensor:
        squares = torch.from_numpy(np.concatenate(pixels)).permute(0, 3, 1, 2)
        config, dtype = self._vae.config, next(self._vae.parameters()).dtype
        found = []
        for part in squares.split(BLOCK_ROWS):
            inputs = part.to(self._device).to(dtype) / 127.5 - 1
            mode = self._vae.encode(inputs).latent_dist.mode().float()
            shift = getattr(config, "shift_factor", None) or 0.0
            found.append(((mode - shift) * config.scaling_factor).half().cpu())
        return torch.cat(found).unflatten(0, (len(pixels), -1))

    @torch.no_grad()
    def _heard(self, features: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
        if not features:
            return []
        batch = {k: v.to(self._device) for k, v in pad(features).items()}
        tokens, mask = self._encoder.tokens(**batch)
        head = self._encoder.head()
        embeds = head.prompts(*head(tokens, mask)).embeds
        columns = (part.half().cpu().numpy() for part in (tokens, mask, embeds))
        return [list(row) for row in zip(*columns, strict=True)]


def _shapes(store: Store) -> list[list[Any]]:
    """What each row of a store holds."""
    return [row for block in store.blocks for row in block["shapes"]]


def _errors(store: Store) -> dict[int, str]:
    """Why pairs are not there, by their number."""
    notes = (block["notes"].get("errors", {}) for block in store.blocks)
    return {int(i): error for found in notes for i, error in found.items()}


def _named(errors: dict[int, str]) -> list[str]:
    return [f"pair {i + 1}: {error}" for i, error in sorted(errors.items())]


def _loaded(store: Store, sounds: Sequence[int]) -> Prepared:
    """A whole store as tensors."""
    kept = [i for i, row in enumerate(_shapes(store)) if row]
    place: dict[int, int] = {}
    heard: list[list[torch.Tensor]] = []
    latents: list[torch.Tensor] = []
    for i in kept:
        one, *sound = (torch.from_numpy(part) for part in store[i])
        latents.append(one)
        if sound:
            place[i] = len(heard)
            heard.append(sound)
    longest, fill = max(len(mask) for _, mask, _ in heard), torch.nn.functional.pad
    return Prepared(
        torch.stack(latents),
        torch.tensor([place[sounds[i]] for i in kept]),
        torch.stack([fill(tokens, (0, 0, 0, longest - len(tokens))) for tokens, *_ in heard]),
        torch.stack([fill(mask, (0, longest - len(mask))) for _, mask, _ in heard]).bool(),
        torch.stack([embeds for *_, embeds in heard]),
        kept,
        _named(_errors(store)),
    )


WORTH_WORKERS = 200  # rows below which starting workers takes longer than it saves


@dataclass(frozen=True)
class Squares:
    """How images become squares, and the seed of what is random in it."""

    size: int
    crops: int
    flip: bool
    seed: int


@dataclass
class Reader:
    """Reads the rows of a data set.

    Attributes:
        ear: how recordings are heard.
        rows: with the columns recording and image.
        squares: how images are cut.
        repeated: rows whose recording an earlier row has, too.
    """

    ear: Ear
    rows: Dataset
    squares: Squares
    repeated: set[int]

    def read(self, i: int) -> tuple[list[np.ndarray] | None, np.ndarray] | str:
        """The features of row i's recording and its squares (V, R, R, 3), or why there are none."""
        squares = self.squares
        try:
            row = self.rows[i]
            rng = np.random.default_rng([squares.seed, i])
            image = open_image(row["image"])
            found = views(image, squares.size, squares.crops, squares.flip, rng)
            pixels = np.stack([np.asarray(square) for square in found])
            if i in self.repeated:
                return None, pixels
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                heard = self.ear.features(row["recording"])
        except (AudioError, ImageError, ValueError) as error:
            return str(error)
        return [f.astype(np.float32) for f in heard], pixels


def sounds_of(rows: Dataset) -> list[int]:
    """For each row the first row that has the same recording."""
    first: dict[str, int] = {}
    names = recording_names(rows.with_format(None))
    return [first.setdefault(name, i) for i, name in enumerate(names)]


def told_pairs(rows: Dataset) -> str:
    """A short name that follows from the recordings and images of pairs, whatever is said of them.

    Of pairs that are made when they are read, it follows from all that they are made from.
    """
    plain = rows.with_format(None)
    if {"recording", "image"} <= set(plain.column_names):
        return digest([told_recordings(rows), told_recordings(rows, "image")])
    made = {
        name: [told_file(value) if isinstance(value, str) else value for value in plain[name]]
        for name in plain.column_names
    }
    return digest(made)


def prepare(
    data: DataArguments, pipeline: Any, encoder: Any, seed: int, device: torch.device
) -> Preparation:
    """What encodes pairs for a base, as the options ask.

    Raises:
        ValueError: the base cannot draw pictures of this size.
    """
    vae = pipeline.vae
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    size = data.resolution or pipeline.unet.config.sample_size * factor
    if size % factor:
        raise ValueError(f"--resolution must be a multiple of {factor} for this base, not {size}")
    squares = Squares(size, data.crops, data.flip, seed)
    return Preparation(vae, encoder, squares, device, cache_of(data), data.workers)


def cache_of(data: DataArguments) -> Cache:
    """Where what is computed once is kept."""
    return Cache.of(data.cache, data.cache_dir)
