"""Pairs of recording and image, by name, from folders, from VGGSound's list or from the hub."""

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


MAX_LISTED = 20  # what is left out is counted in full, and named up to this many


@dataclass
class AudioImagePairs:
    """Pairs, read when they are asked for.

    Attributes:
        rows: with the columns recording (as `align.audio.read` takes it) and image (as
            `diffuse.data.images.open_image` does).
        captions: of each pair, one or more; each training step draws one.
        labels: of each pair.
        phrases: what is to be heard at each level of each pair, or None where it is not known.
        prompts: the text beside the sound when pictures are measured; "" for none.
        scenes: what the prompt asks for by the judge's name of it, where the data tell.
        left_out: what is not among the rows, by the reason.
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
        """How many pairs there are, and what was left out, by name."""
        lines = [f"{len(self)} pairs of {len(set(self.labels))} classes"]
        for reason, names in self.skipped.items():
            shown = ", ".join(names[:MAX_LISTED]) + (" …" if len(names) > MAX_LISTED else "")
            lines.append(f"left out: {len(names)} {reason}: {shown}")
        return "\n".join(lines)


def load_pairs(
    dataset: str,
    split: str,
    *,
    folds: Sequence[int] | None = None,
    video_dir: str | None = None,
    columns: ColumnNames | None = None,
) -> AudioImagePairs:
    """The pairs of a data set.

    Args:
        data: a short name; a folder with metadata.csv, metadata.jsonl or parquet files, or with
            recordings and images that have the same base names; a VGGSound list, with `video_dir`;
            or the hub id of a data set with columns of audio and images.
        split: "train" or "test"; a folder has one set for both, told apart by `folds`.
        folds: keep only rows whose column "fold" is one of these.
        videos: where the videos of a VGGSound list lie.
        columns: what the columns are called.

    Raises:
        DataError: there is no such data set, or it lacks what is asked for.
    """
    columns = columns or ColumnNames()
    path = Path(dataset).expanduser()
    skipped: dict[str, list[str]] = {}
    if dataset in PAIR_DATASETS:
        rows = lookup(PAIR_DATASETS, dataset)(split)
    elif dataset in DATASETS:
        raise DataError(f"{dataset!r} has recordings and no images: the UNet learns from pairs")
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
        gone = "; ".join(f"{len(names)} {reason}" for reason, names in skipped.items())
        raise DataError(f"{dataset} has no pair of a recording and an image{gone and ': ' + gone}")
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
    """A column of texts, all None where there is none."""
    return list(stored[name]) if name in stored.column_names else [None] * len(stored)


def _captions(stored: Dataset, dataset: str) -> list[list[str]]:
    """Each row's captions; [""] where it has none."""
    if "captions" in stored.column_names:
        found = stored["captions"]
    elif "caption" in stored.column_names:
        found = [[text] for text in stored["caption"]]
    else:
        found = [[]] * len(stored)
    cleaned = []
    for texts in found:
        if isinstance(texts, str):
            raise DataError(f"{dataset}: the column captions holds lists of texts, not one text")
        cleaned.append([str(t).strip() for t in texts or () if t and str(t).strip()] or [""])
    return cleaned


def _phrases(stored: Dataset, captions: list[list[str]]) -> list[dict[str, str] | None]:
    """What each level should hear: by columns of that name, else by the first caption's words.

    None where there is no caption.
    """
    if all(level in stored.column_names for level in LEVELS):
        columns = [[text or "" for text in stored[level]] for level in LEVELS]
        return [dict(zip(LEVELS, texts, strict=True)) for texts in zip(*columns, strict=True)]
    return [asdict(parse_caption(texts[0])) if texts[0] else None for texts in captions]


def column_names_of(data: DataArguments) -> ColumnNames:
    """What the options say columns are called."""
    return ColumnNames(
        audio=data.audio_column,
        image=data.image_column,
        caption=data.caption_column,
        label=data.label_column,
    )


def load_train_pairs(data: DataArguments) -> AudioImagePairs:
    """The pairs that the options train on; images are captioned first where that is asked."""
    if data.captioner:
        from align.data.captioning import caption_folder

        folder = Path(data.dataset).expanduser()
        if not folder.is_dir():
            raise DataError(
                f"--captioner writes its captions into a folder: {data.dataset} is none"
            )
        made = caption_folder(folder, data.captioner)
        print(f"{made} captions made by {data.captioner}", flush=True)
    given: dict[str, Any] = {"videos": data.video_dir, "columns": column_names_of(data)}
    return load_pairs(data.dataset, "train", folds=data.folds, **given)


def load_eval_pairs(data: DataArguments) -> tuple[AudioImagePairs | None, str]:
    """The pairs that the options measure on, None where no others are left, and what they are."""
    name = data.eval_dataset or data.dataset
    given: dict[str, Any] = {"videos": data.video_dir, "columns": column_names_of(data)}
    if data.eval_folds is not None:
        split = "test" if data.eval_dataset else "train"  # folds divide one and the same set
        found = load_pairs(name, split, folds=data.eval_folds, **given)
        return found, f"{name}, folds {', '.join(map(str, data.eval_folds))}"
    if data.eval_dataset is not None:
        return load_pairs(name, "test", **given), name
    if name in PAIR_DATASETS or not Path(name).expanduser().is_dir():
        return load_pairs(name, "test", **given), f"{name}, its test split"
    return None, "the training pairs themselves (no fold was held out)"
