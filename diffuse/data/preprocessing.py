"""Preprocessing of pairs, cached on disk: image latents, audio tokens and prompt embeds."""

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

BLOCK_ROWS = 32  # fixed batches, because the rounding depends on the batch


@dataclass
class PreprocessedPairs:
    """N pairs of U different clips as half-precision tensors.

    Attributes:
        latents: (N, V, C, h, w), scaled for the UNet; V crops per image.
        audio_index: (N,), index of the clip of each pair.
        tokens: (U, S, H) audio tokens.
        mask: (U, S), bool, false for padding.
        embeds: (U, L, D) prompt embeds of the aligned encoder.
        kept: N row numbers of the pairs that could be read.
        unreadable: Descriptions of the other pairs and their errors.
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
    """Encodes pairs with the autoencoder of a base model and an aligned encoder.

    Args:
        vae: Autoencoder of the base model.
        encoder: `AudioPromptEncoder`.
        crops: Crops of the images.
        device: Device of both models.
        cache: Cache of the results. Defaults to memory.
        num_workers: Number of preprocessing processes.
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
        """Return the tensors of pairs, from the cache or computed with a progress bar.

        Args:
            pairs: Pairs to preprocess.
            title: Title of the progress bar.

        Raises:
            DataError: If more than 5% of the pairs, or all, cannot be read.
        """
        first_rows = first_rows_by_audio(pairs.rows)
        repeated = {i for i, first in enumerate(first_rows) if first != i}
        reader = PairReader(self._encoder.processor, pairs.rows, self._crops, repeated)

        filled: list[bool] = []

        def fill(store: Store) -> None:
            filled.append(True)
            try:
                self._fill(store, reader, first_rows, title)
            except DataError:
                store.discard()
                raise

        def size_bytes() -> float:
            return self._size_bytes(reader, len(set(first_rows)))

        key = {"pairs": pairs_fingerprint(pairs.rows), **self._cache_key()}
        store = self._cache.get_or_create("pairs", key, title, size_bytes, fill)
        prepared = _to_tensors(store, first_rows)
        for name in [] if filled else prepared.unreadable:
            print(f"skipped: {name}", flush=True)
        return prepared

    def _cache_key(self) -> dict[str, Any]:
        """Return all that the results depend on besides the pairs, as JSON values."""
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
        """Estimate the size of the results from the first readable pair."""
        candidates = (i for i in probe_rows(len(reader.rows)) if i not in reader.repeated)
        for result in map(reader.read, candidates):
            if not isinstance(result, str) and result[0] is not None:
                latents = self._encode_images([result[1]])
                (audio,) = self._encode_audio([result[0]])
                size = sum(part.nbytes for part in audio)
                return float(len(reader.rows) * latents.nbytes + num_clips * size)
        return 0.0

    def _fill(
        self, store: Store, reader: PairReader, first_rows: Sequence[int], title: str
    ) -> None:
        """Append the missing rows to the store: latents of each pair, audio of each new clip."""
        start, count = len(store), len(first_rows)
        budget = ErrorBudget(count, "pairs", "pair")
        for i, error in sorted(_errors(store).items()):
            budget.add(i, error)
        known = {i for i, row in enumerate(_shapes(store)) if len(row) > 1}
        results = read_rows(reader, count, start, self._num_workers, worth=MIN_ROWS_FOR_WORKERS)
        progress = iter(tqdm(results, title, count, initial=start, mininterval=2))
        while start < count:
            block, errors = list(islice(progress, BLOCK_ROWS)), {}
            for i, result in enumerate(block, start):
                if isinstance(result, str):
                    errors[i] = result
                elif i == first_rows[i]:
                    known.add(i)
                elif first_rows[i] not in known:
                    errors[i] = "its audio could not be read"
            for i, error in errors.items():
                budget.add(i, error)
            readable = [result for i, result in enumerate(block, start) if i not in errors]
            encoded = iter(self._rows(readable))
            numbers = range(start, start + len(block))
            store.append([[] if i in errors else next(encoded) for i in numbers], errors=errors)
            start += len(block)
        if len(budget.errors) == count:
            budget.check(0)

    def _rows(self, readable: list[Any]) -> list[list[np.ndarray]]:
        """Return the latents of each read pair, and tokens, mask and embeds of new clips."""
        if not readable:
            return []
        latents = self._encode_images([pixels for _, pixels in readable])
        new_clips = [features for features, _ in readable if features is not None]
        audio = iter(self._encode_audio(new_clips))
        return [
            [one.numpy(), *(() if features is None else next(audio))]
            for one, (features, _) in zip(latents, readable, strict=True)
        ]

    @torch.no_grad()
    def _encode_images(self, pixels: list[np.ndarray]) -> torch.Tensor:
        crops = torch.from_numpy(np.concatenate(pixels)).permute(0, 3, 1, 2)
        config, dtype = self._vae.config, next(self._vae.parameters()).dtype
        found = []
        for part in crops.split(BLOCK_ROWS):
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
    """Return the shapes of the arrays of each row of a store."""
    return [row for block in store.blocks for row in block["shapes"]]


def _errors(store: Store) -> dict[int, str]:
    """Return the errors of the pairs that could not be read, by row number."""
    notes = (block["notes"].get("errors", {}) for block in store.blocks)
    return {int(i): error for found in notes for i, error in found.items()}


def _describe_errors(errors: dict[int, str]) -> list[str]:
    return [f"pair {i + 1}: {error}" for i, error in sorted(errors.items())]


def _to_tensors(store: Store, first_rows: Sequence[int]) -> PreprocessedPairs:
    """Convert a complete store to tensors."""
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


MIN_ROWS_FOR_WORKERS = 200  # below, starting workers takes longer than it saves


@dataclass(frozen=True)
class ImageCrops:
    """Crops of images, and the seed of the random ones.

    Attributes:
        size: Side of a crop in pixels.
        num_crops: Number of crops per image.
        mirror: Add the horizontally flipped crops.
        seed: Seed of the random crops.
    """

    size: int
    num_crops: int
    mirror: bool
    seed: int


@dataclass
class PairReader:
    """Reads the rows of a dataset of pairs.

    Attributes:
        processor: Audio processor of the encoder.
        rows: Dataset with the columns audio and image.
        crops: Crops of the images.
        repeated: Rows whose clip is that of an earlier row.
    """

    processor: AudioProcessor
    rows: Dataset
    crops: ImageCrops
    repeated: set[int]

    def read(self, i: int) -> tuple[list[np.ndarray] | None, np.ndarray] | str:
        """Return the audio features and the crops (V, R, R, 3) of a row, or an error message.

        The features are None for a repeated clip.

        Args:
            i: Row number.
        """
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
    """Return for each row the first row with the same clip.

    Args:
        rows: Dataset of pairs.
    """
    first: dict[str, int] = {}
    names = clip_names(rows.with_format(None))
    return [first.setdefault(name, i) for i, name in enumerate(names)]


def pairs_fingerprint(rows: Dataset) -> str:
    """Return a fingerprint of the audio and images of pairs; captions do not matter.

    For datasets that are generated on access it depends on all stored columns.

    Args:
        rows: Dataset of pairs.
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
    """Build the preprocessor of a base model from the options.

    Args:
        data: Data options.
        pipeline: Diffusers pipeline of the base model.
        encoder: `AudioPromptEncoder`.
        seed: Seed of the random crops.
        device: Device of the models.

    Raises:
        ValueError: If the base model does not support the resolution.
    """
    vae = pipeline.vae
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    size = data.resolution or pipeline.unet.config.sample_size * factor
    if size % factor:
        raise ValueError(
            f"--resolution must be a multiple of {factor} for this base model, not {size}"
        )
    crops = ImageCrops(size, data.num_crops, data.random_flip, seed)
    return PairPreprocessor(vae, encoder, crops, device, cache_from(data), data.num_workers)


def cache_from(data: DataArguments) -> Cache:
    """Return the cache that the options select.

    Args:
        data: Data options.
    """
    return Cache.from_options(data.cache, data.cache_dir)
