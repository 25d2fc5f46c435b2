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
from align.data.errors import DataError, ErrorBudget
from align.models.processing import AudioProcessor, pad
from align.preprocessing.cache import Cache, digest, state_dict_digest
from align.preprocessing.fingerprint import (
    audio_fingerprint,
    clip_names,
    file_fingerprint,
    probe_rows,
)
from align.preprocessing.parallel import read_rows
from align.preprocessing.store import Store
from diffuse.config.arguments import DataArguments
from diffuse.data.images import ImageError, make_crops, open_image
from diffuse.data.pairs import AudioImagePairs

BLOCK_ROWS = 32  # always the same pairs together: another batch could round differently


@dataclass
class PreprocessedPairs:
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
    audio_index: torch.Tensor
    tokens: torch.Tensor
    mask: torch.Tensor
    embeds: torch.Tensor
    kept: list[int]
    unreadable: list[str]

    def __len__(self) -> int:
        return len(self.latents)


class PairPreprocessor:
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
        crops: ImageCrops,
        device: torch.device,
        cache: Cache | None = None,
        num_workers: int = 1,
    ) -> None:
        self._vae, self._encoder = vae.to(device).eval(), encoder.to(device).eval()
        self._crops, self._device = crops, device
        self._cache, self._num_workers = cache or Cache(), num_workers

    def preprocess(self, pairs: AudioImagePairs, title: str) -> PreprocessedPairs:
        """The pairs' tensors, from the cache where they are there; else with progress.

        Raises:
            DataError: more than 5% of the pairs, or all, cannot be read.
        """
        first_rows = first_rows_by_audio(pairs.rows)
        repeated = {i for i, first in enumerate(first_rows) if first != i}
        reader = PairReader(self._encoder.processor, pairs.rows, self._crops, repeated)

        fresh: list[bool] = []

        def make(store: Store) -> None:
            fresh.append(True)
            try:
                self._fill(store, reader, first_rows, title)
            except DataError:
                store.discard()
                raise

        def size_bytes() -> float:
            return self._size_bytes(reader, len(set(first_rows)))

        about = {"pairs": pairs_fingerprint(pairs.rows), **self._cache_key()}
        store = self._cache.get_or_create("pairs", about, title, size_bytes, make)
        found = _to_tensors(store, first_rows)
        for name in [] if fresh else found.unreadable:
            print(f"left out: {name}", flush=True)
        return found

    def _cache_key(self) -> dict[str, Any]:
        """All that latents, tokens and embeds depend on beside the pairs, as JSON."""
        processor, config = self._encoder.processor, self._encoder.config.to_dict()
        scale = {k: self._vae.config.get(k) for k in ("scaling_factor", "shift_factor")}
        return {
            "vae": [state_dict_digest(self._vae.state_dict()), scale],
            "encoder": [
                state_dict_digest(self._encoder.state_dict()),
                {k: v for k, v in config.items() if k != "_name_or_path"},
            ],
            "processor": [
                processor.model_type,
                processor.feature_extractor.to_dict(),
                processor.max_windows,
            ],
            "crops": vars(self._crops),
        }

    def _size_bytes(self, reader: PairReader, num_clips: int) -> float:
        """How large all will be, by one pair that can be read."""
        some = (i for i in probe_rows(len(reader.rows)) if i not in reader.repeated)
        for result in map(reader.read, some):
            if not isinstance(result, str) and result[0] is not None:
                latents, (audio,) = (
                    self._encode_images([result[1]]),
                    self._encode_audio([result[0]]),
                )
                size = sum(part.nbytes for part in audio)
                return float(len(reader.rows) * latents.nbytes + num_clips * size)
        return 0.0

    def _fill(
        self, store: Store, reader: PairReader, first_rows: Sequence[int], title: str
    ) -> None:
        """Appends what the store lacks: of each pair its latents, and its sound where it is new."""
        start, count = len(store), len(first_rows)
        bad = ErrorBudget(count, "pairs", "pair")
        for i, error in sorted(_errors(store).items()):
            bad.add(i, error)
        known = {i for i, row in enumerate(_shapes(store)) if len(row) > 1}
        results = read_rows(reader, count, start, self._num_workers, worth=MIN_ROWS_FOR_WORKERS)
        progress = iter(tqdm(results, title, count, initial=start, mininterval=2))
        while start < count:
            block, found = list(islice(progress, BLOCK_ROWS)), {}
            for i, result in enumerate(block, start):
                if isinstance(result, str):
                    found[i] = result
                elif i == first_rows[i]:
                    known.add(i)
                elif first_rows[i] not in known:
                    found[i] = "its recording could not be read"
            for i, error in found.items():
                bad.add(i, error)
            good = [result for i, result in enumerate(block, start) if i not in found]
            made = iter(self._rows(good))
            rows = [[] if i in found else next(made) for i in range(start, start + len(block))]
            store.append(rows, errors=found)
            start += len(block)
        if len(bad.errors) == count:
            bad.check(0)

    def _rows(self, good: list[Any]) -> list[list[np.ndarray]]:
        """Of each pair that was read its latents; of a new recording tokens, mask and embeds."""
        if not good:
            return []
        latents = self._encode_images([pixels for _, pixels in good])
        audio = iter(self._encode_audio([features for features, _ in good if features is not None]))
        return [
            [one.numpy(), *(() if features is None else next(audio))]
            for one, (features, _) in zip(latents, good, strict=True)
        ]

    @torch.no_grad()
    def _encode_images(self, pixels: list[np.ndarray]) -> torch.Tensor:
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
    def _encode_audio(self, features: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
        if not features:
            return []
        batch = {k: v.to(self._device) for k, v in pad(features).items()}
        tokens, mask = self._encoder.get_audio_tokens(**batch)
        head = self._encoder.head()
        embeds = head.to_prompt_embeds(*head(tokens, mask)).embeds
        columns = (part.half().cpu().numpy() for part in (tokens, mask, embeds))
        return [list(row) for row in zip(*columns, strict=True)]


def _shapes(store: Store) -> list[list[Any]]:
    """What each row of a store holds."""
    return [row for block in store.blocks for row in block["shapes"]]


def _errors(store: Store) -> dict[int, str]:
    """Why pairs are not there, by their number."""
    notes = (block["notes"].get("errors", {}) for block in store.blocks)
    return {int(i): error for found in notes for i, error in found.items()}


def _describe_errors(errors: dict[int, str]) -> list[str]:
    return [f"pair {i + 1}: {error}" for i, error in sorted(errors.items())]


def _to_tensors(store: Store, first_rows: Sequence[int]) -> PreprocessedPairs:
    """A whole store as tensors."""
    kept = [i for i, row in enumerate(_shapes(store)) if row]
    audio_index: dict[int, int] = {}
    audio: list[list[torch.Tensor]] = []
    latents: list[torch.Tensor] = []
    for i in kept:
        one, *audio_parts = (torch.from_numpy(part) for part in store[i])
        latents.append(one)
        if audio_parts:
            audio_index[i] = len(audio)
            audio.append(audio_parts)
    longest, fill = max(len(mask) for _, mask, _ in audio), torch.nn.functional.pad
    return PreprocessedPairs(
        torch.stack(latents),
        torch.tensor([audio_index[first_rows[i]] for i in kept]),
        torch.stack([fill(tokens, (0, 0, 0, longest - len(tokens))) for tokens, *_ in audio]),
        torch.stack([fill(mask, (0, longest - len(mask))) for _, mask, _ in audio]).bool(),
        torch.stack([embeds for *_, embeds in audio]),
        kept,
        _describe_errors(_errors(store)),
    )


MIN_ROWS_FOR_WORKERS = 200  # rows below which starting workers takes longer than it saves


@dataclass(frozen=True)
class ImageCrops:
    """How images become squares, and the seed of what is random in it."""

    size: int
    num_crops: int
    mirror: bool
    seed: int


@dataclass
class PairReader:
    """Reads the rows of a data set.

    Attributes:
        ear: how recordings are heard.
        rows: with the columns recording and image.
        squares: how images are cut.
        repeated: rows whose recording an earlier row has, too.
    """

    processor: AudioProcessor
    rows: Dataset
    crops: ImageCrops
    repeated: set[int]

    def read(self, i: int) -> tuple[list[np.ndarray] | None, np.ndarray] | str:
        """The features of row i's recording and its squares (V, R, R, 3), or why there are none."""
        crops = self.crops
        try:
            row = self.rows[i]
            rng = np.random.default_rng([crops.seed, i])
            image = open_image(row["image"])
            found = make_crops(image, crops.size, crops.num_crops, crops.mirror, rng)
            pixels = np.stack([np.asarray(crop) for crop in found])
            if i in self.repeated:
                return None, pixels
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                features = self.processor.extract_features(row["audio"])
        except (AudioError, ImageError, ValueError) as error:
            return str(error)
        return [f.astype(np.float32) for f in features], pixels


def first_rows_by_audio(rows: Dataset) -> list[int]:
    """For each row the first row that has the same recording."""
    first: dict[str, int] = {}
    names = clip_names(rows.with_format(None))
    return [first.setdefault(name, i) for i, name in enumerate(names)]


def pairs_fingerprint(rows: Dataset) -> str:
    """A short name that follows from the recordings and images of pairs, whatever is said of them.

    Of pairs that are made when they are read, it follows from all that they are made from.
    """
    plain = rows.with_format(None)
    if {"audio", "image"} <= set(plain.column_names):
        return digest([audio_fingerprint(rows), audio_fingerprint(rows, "image")])
    made = {
        name: [
            file_fingerprint(value) if isinstance(value, str) else value for value in plain[name]
        ]
        for name in plain.column_names
    }
    return digest(made)


def build_preprocessor(
    data: DataArguments, pipeline: Any, encoder: Any, seed: int, device: torch.device
) -> PairPreprocessor:
    """What encodes pairs for a base, as the options ask.

    Raises:
        ValueError: the base cannot draw pictures of this size.
    """
    vae = pipeline.vae
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    size = data.resolution or pipeline.unet.config.sample_size * factor
    if size % factor:
        raise ValueError(f"--resolution must be a multiple of {factor} for this base, not {size}")
    crops = ImageCrops(size, data.num_crops, data.random_flip, seed)
    return PairPreprocessor(vae, encoder, crops, device, cache_from(data), data.num_workers)


def cache_from(data: DataArguments) -> Cache:
    """Where what is computed once is kept."""
    return Cache.from_options(data.cache, data.cache_dir)
