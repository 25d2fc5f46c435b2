"""Caption the images of an audio-image dataset: `python -m align.caption FOLDER`.

Captions are written to captions.csv in the folder. Existing captions, there or in metadata.csv, are
never changed.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.data.errors import ErrorBudget


DEFAULT_CAPTIONER = "Salesforce/blip-image-captioning-base"
COLUMNS = ("file_name", "image", "caption", "captioner")
BATCH_SIZE = 8
MAX_NEW_TOKENS = 40  # maximum number of tokens in a caption


@dataclass(frozen=True)
class Pair:
    """Audio file and its image.

    Attributes:
        audio: Path of the audio, relative to the folder.
        image: Path of the image, relative to the folder.
    """

    audio: str
    image: str


def find_pairs(folder: Path) -> list[Pair]:
    """Find the audio-image pairs of a folder without a caption in its metadata.

    Pairs come from the columns file_name and image of metadata.csv or metadata.jsonl. Without
    such a table, audio and images with the same stem form pairs ("rain.wav" and "rain.jpg", in the
    folder or any subfolder), preferably within one folder.

    Args:
        folder: Folder of audio files and images.

    Raises:
        DataError: If there is no pair, or the table lacks a column.
    """
    from align.data.errors import DataError
    from align.data.tables import METADATA, read_table

    for name in METADATA:
        if (folder / name).is_file():
            rows = read_table(folder / name)
            missing = [c for c in ("file_name", "image") if c not in rows.column_names]
            if missing:
                raise DataError(
                    f"{folder / name} has no column {' and no column '.join(missing)}: "
                    "file_name must contain audio files, and image their images"
                )
            texts = rows["caption"] if "caption" in rows.column_names else [None] * len(rows)
            trio = zip(rows["file_name"], rows["image"], texts, strict=True)
            return [Pair(str(a), str(b)) for a, b, text in trio if not str(text or "").strip()]
    pairs = list(_pair_by_stem(folder))
    if not pairs:
        raise DataError(
            f"{folder} has no audio file and image with the same name, such as rain.wav and "
            "rain.jpg, and no metadata.csv with the columns file_name and image"
        )
    return pairs


def _pair_by_stem(folder: Path) -> Iterator[Pair]:
    from align.data.pairing import AUDIO_ENDINGS, IMAGE_ENDINGS, FilePairs

    files = sorted(path for path in folder.rglob("*") if path.is_file())
    images = FilePairs(files, IMAGE_ENDINGS, AUDIO_ENDINGS)
    ambiguous: list[str] = []
    for path in files:
        if path.suffix.lower() not in AUDIO_ENDINGS:
            continue
        name, image = path.relative_to(folder).as_posix(), images.find(path)
        if image is not None:
            yield Pair(name, image.relative_to(folder).as_posix())
        elif images.is_ambiguous(path):
            ambiguous.append(name)
    if ambiguous:
        print(
            f"skipped: {len(ambiguous)} audio files have no image in the same folder and several "
            f"candidates in other folders; the first: {ambiguous[0]}",
            flush=True,
        )


class Captioner:
    """BLIP image captioning model (Li et al. 2022, arXiv 2201.12086).

    Args:
        name: Folder or Hub id of a BlipForConditionalGeneration and its processor.

    Raises:
        OSError: If there is no such model.
    """

    def __init__(self, name: str = DEFAULT_CAPTIONER) -> None:
        import torch
        from transformers import BlipForConditionalGeneration, BlipProcessor

        self.name = name
        self._processor: Any = BlipProcessor.from_pretrained(name)
        model: Any = BlipForConditionalGeneration.from_pretrained(name)
        self._model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")

    def captions(self, images: Sequence[Any]) -> list[str]:
        """Caption PIL images with beam search (deterministic).

        Args:
            images: Images of one batch.
        """
        import torch

        given = self._processor(images=list(images), return_tensors="pt").to(self._model.device)
        with torch.no_grad():
            tokens = self._model.generate(
                **given, do_sample=False, num_beams=3, max_new_tokens=MAX_NEW_TOKENS
            )
        texts = self._processor.batch_decode(tokens, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]


def caption_folder(folder: Path, name: str = DEFAULT_CAPTIONER) -> int:
    """Caption every pair without a caption and write the results to captions.csv.

    Every batch is written at once, so an interrupted call resumes. The model is only loaded if
    captions are missing. An unreadable image gets an empty caption, which excludes its row from
    the dataset, and is retried by the next call.

    Args:
        folder: Folder of audio files and images.
        name: BLIP model: folder or Hub id.

    Returns:
        Number of new captions.

    Raises:
        DataError: If there are no pairs, or more than 5% of the images are unreadable.
        OSError: If there is no such model.
    """
    from tqdm import tqdm

    from align.data.errors import ErrorBudget
    from align.data.tables import CAPTIONS

    path = folder / CAPTIONS
    pairs = find_pairs(folder)
    done, unreadable = _read_captioned(path)
    missing = [pair for pair in pairs if pair.audio not in done]
    if not missing:
        return 0
    captioner: Captioner | None = None
    count, exists = 0, path.exists()
    budget = ErrorBudget(len(pairs), "images")
    with path.open("a", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        if not exists:
            table.writerow(COLUMNS)
        for batch in tqdm(_load_batches(folder, missing, budget), "captions", mininterval=1):
            readable = [(pair, image) for pair, image in batch if image is not None]
            if readable:
                captioner = captioner or Captioner(name)
                texts = captioner.captions([image for _, image in readable])
                for (pair, _), text in zip(readable, texts, strict=True):
                    table.writerow((pair.audio, pair.image, text, name))
            for pair, image in batch:
                if image is None and pair.audio not in unreadable:
                    table.writerow((pair.audio, pair.image, "", ""))
            file.flush()
            count += len(readable)
    if len(budget.errors) == len(pairs):
        budget.check(0)
    return count


def _read_captioned(path: Path) -> tuple[set[str], set[str]]:
    """Return the audio files with a caption in captions.csv, and those with unreadable images.

    A line with a captioner counts as captioned even if its caption was emptied later.
    """
    from align.data.errors import DataError
    from align.data.tables import read_captions_file

    if not path.exists():
        return set(), set()
    names, lines = read_captions_file(path)
    if names != COLUMNS:
        raise DataError(f"{path} must have the columns {', '.join(COLUMNS)}: rename the file")
    done = {line["file_name"] for line in lines if line["caption"] or line["captioner"]}
    return done, {line["file_name"] for line in lines} - done


def _load_batches(
    folder: Path, pairs: Sequence[Pair], budget: ErrorBudget
) -> Iterator[list[tuple[Pair, Any]]]:
    """Yield batches of pairs and their images; unreadable images are reported and None.

    Raises:
        DataError: If too many images are unreadable.
    """
    from PIL import Image, UnidentifiedImageError

    batch: list[tuple[Pair, Any]] = []
    for i, pair in enumerate(pairs):
        try:
            with Image.open(folder / pair.image) as image:
                batch.append((pair, image.convert("RGB")))
        except (OSError, UnidentifiedImageError) as error:
            budget.add(i, f"{pair.image}: {error}")
            batch.append((pair, None))
        if len(batch) == BATCH_SIZE or i == len(pairs) - 1:
            yield batch
            batch = []
