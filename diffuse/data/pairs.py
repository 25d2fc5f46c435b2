"""Audio-image pairs from built-in datasets, folders, VGGSound lists and the Hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from align.data.captions import parse_caption
from align.data.errors import DataError
from align.data.loading import keep_folds
from align.registry import DATASETS, PAIR_DATASETS, lookup
from diffuse.data.sources import ColumnNames, folder_rows, hub_rows
from diffuse.data.vggsound import vggsound_rows
from diffuse.models.levels import LEVELS

if TYPE_CHECKING:
    from diffuse.config.arguments import DataArguments


MAX_LISTED = 20  # names of skipped entries per reason


@dataclass
class AudioImagePairs:
    """Audio-image pairs, decoded on access.

    Attributes:
        rows: Dataset with the columns audio (as `align.audio.read` takes it) and image (as
            `diffuse.data.images.open_image` takes it).
        captions: One or more captions of each pair; each training step samples one.
        labels: Class label of each pair.
        phrases: Phrase of each level of each pair, or None if unknown.
        prompts: Text prompt of each pair for evaluation; "" for none.
        scenes: Scene in the prompt by the image classifier's name, or None if unknown.
        skipped: Names of the entries that are left out, by reason.
    """

    rows: Dataset
    captions: list[list[str]]
    labels: list[str]
    phrases: list[dict[str, str] | None]
    prompts: list[str]
    scenes: list[str | None]
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def summary(self) -> str:
        """Return the numbers of pairs and classes, and what was skipped."""
        lines = [f"{len(self)} pairs of {len(set(self.labels))} classes"]
        for reason, names in self.skipped.items():
            shown = ", ".join(names[:MAX_LISTED]) + (" …" if len(names) > MAX_LISTED else "")
            lines.append(f"skipped: {len(names)} {reason}: {shown}")
        return "\n".join(lines)


def load_pairs(
    dataset: str,
    split: str,
    *,
    folds: Sequence[int] | None = None,
    video_dir: str | None = None,
    columns: ColumnNames | None = None,
) -> AudioImagePairs:
    """Load the pairs of a dataset.

    Args:
        dataset: Short name; folder with metadata.csv, metadata.jsonl or parquet files, or with
            audio and image files of the same base names; VGGSound list, with `video_dir`; or Hub id
            of a dataset with columns of audio and images.
        split: "train" or "test". A folder has a single set, divided by `folds`.
        folds: Values of the column "fold" to keep. Defaults to all.
        video_dir: Folder of the videos named in a VGGSound list.
        columns: Names of the columns.

    Raises:
        DataError: If the dataset does not exist, or lacks a column or a fold.
    """
    columns = columns or ColumnNames()
    path = Path(dataset).expanduser()
    skipped: dict[str, list[str]] = {}
    if dataset in PAIR_DATASETS:
        rows = lookup(PAIR_DATASETS, dataset)(split)
    elif dataset in DATASETS:
        raise DataError(
            f"{dataset!r} has audio without images: give a dataset of audio-image pairs"
        )
    elif video_dir is not None or path.suffix == ".csv":
        rows = vggsound_rows(path, video_dir, split, skipped)
    elif path.is_dir():
        rows = folder_rows(path, columns, skipped)
    else:
        rows = hub_rows(dataset, split, columns)
    if folds is not None:
        rows = keep_folds(rows, dataset, folds)
    return _build_pairs(rows, dataset, skipped)


def _build_pairs(rows: Dataset, dataset: str, skipped: dict[str, list[str]]) -> AudioImagePairs:
    if not len(rows):
        reasons = "; ".join(f"{len(names)} {reason}" for reason, names in skipped.items())
        raise DataError(f"{dataset} has no audio-image pair{reasons and ': ' + reasons}")
    stored = rows.with_format(None)
    captions = _captions(stored, dataset)
    labels = [
        texts[0] if label in (None, "") else str(label)
        for label, texts in zip(_column(stored, "label"), captions, strict=True)
    ]
    prompts = [text or "" for text in _column(stored, "prompt")]
    scenes = [name or None for name in _column(stored, "scene")]
    return AudioImagePairs(
        rows, captions, labels, _phrases(stored, captions), prompts, scenes, skipped
    )


def _column(stored: Dataset, name: str) -> list[str | None]:
    """Return a column of texts; all None if there is no such column."""
    return list(stored[name]) if name in stored.column_names else [None] * len(stored)


def _captions(stored: Dataset, dataset: str) -> list[list[str]]:
    """Return the captions of each row; [""] for a row without captions."""
    if "captions" in stored.column_names:
        found = stored["captions"]
    elif "caption" in stored.column_names:
        found = [[text] for text in stored["caption"]]
    else:
        found = [[]] * len(stored)
    cleaned = []
    for texts in found:
        if isinstance(texts, str):
            raise DataError(
                f"{dataset}: the column captions must contain lists of texts, not a text"
            )
        cleaned.append([str(t).strip() for t in texts or () if t and str(t).strip()] or [""])
    return cleaned


def _phrases(stored: Dataset, captions: list[list[str]]) -> list[dict[str, str] | None]:
    """Return the phrase of each level, from columns or parsed from the first caption.

    Rows without a caption have None.
    """
    if all(level in stored.column_names for level in LEVELS):
        columns = [[text or "" for text in stored[level]] for level in LEVELS]
        return [dict(zip(LEVELS, texts, strict=True)) for texts in zip(*columns, strict=True)]
    return [asdict(parse_caption(texts[0])) if texts[0] else None for texts in captions]


def column_names_of(data: DataArguments) -> ColumnNames:
    """Return the names of the columns that the options select.

    Args:
        data: Data options.
    """
    return ColumnNames(
        audio=data.audio_column,
        image=data.image_column,
        caption=data.caption_column,
        label=data.label_column,
    )


def load_train_pairs(data: DataArguments) -> AudioImagePairs:
    """Load the training pairs, and caption the images first if `captioner` is set.

    Args:
        data: Data options.

    Raises:
        DataError: If the dataset cannot be loaded.
    """
    if data.captioner:
        from align.data.captioning import caption_folder

        folder = Path(data.dataset).expanduser()
        if not folder.is_dir():
            raise DataError(
                f"--captioner requires a folder as --dataset, not {data.dataset}: "
                "captions are saved there"
            )
        count = caption_folder(folder, data.captioner)
        print(f"captioned {count} images with {data.captioner}", flush=True)
    given: dict[str, Any] = {"video_dir": data.video_dir, "columns": column_names_of(data)}
    return load_pairs(data.dataset, "train", folds=data.folds, **given)


def load_eval_pairs(data: DataArguments) -> tuple[AudioImagePairs | None, str]:
    """Load the evaluation pairs.

    Args:
        data: Data options.

    Returns:
        The pairs, or None if there are no others than the training pairs, and their description.

    Raises:
        DataError: If the dataset cannot be loaded.
    """
    name = data.eval_dataset or data.dataset
    given: dict[str, Any] = {"video_dir": data.video_dir, "columns": column_names_of(data)}
    if data.eval_folds is not None:
        split = "test" if data.eval_dataset else "train"  # the folds of one set
        found = load_pairs(name, split, folds=data.eval_folds, **given)
        return found, f"{name}, folds {', '.join(map(str, data.eval_folds))}"
    if data.eval_dataset is not None:
        return load_pairs(name, "test", **given), name
    if name in PAIR_DATASETS or not Path(name).expanduser().is_dir():
        return load_pairs(name, "test", **given), f"{name}, its test split"
    return None, "the training pairs (no held-out folds)"
