"""Which rows the options train on, and which they measure on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from align.data.columns import HubDataset
from align.data.errors import DataError
from align.data.loading import load_rows
from align.data.streaming import Stream, load_stream
from align.data.tables import CAPTIONS, has_no_splits, table_file
from align.registry import DATASETS, lookup

if TYPE_CHECKING:
    from align.config.arguments import DataArguments


# The options that say how a data set is read, and which of its rows.
READ_OPTIONS = (
    "audio_column", "caption_column", "label_column", "license_column", "caption_template",
    "licenses",
)  # fmt: skip


def load_train_dataset(data: DataArguments) -> Dataset:
    """The rows that the options train on.

    Raises:
        DataError: there are none, or all say the same.
    """
    _caption_images(data)
    rows = load_rows(data.dataset, "train", folds=data.folds, **_read_options(data))
    undecoded = rows.with_format(None)  # makes no sound
    check_distinct_rows(data.dataset, list(undecoded["caption"]), list(undecoded["label"]))
    return rows


def load_extra_dataset(data: DataArguments) -> Dataset | None:
    """The rows that the options train on besides; None where they name none.

    Raises:
        DataError: there are none.
    """
    if not data.extra_dataset:
        return None
    return load_rows(data.extra_dataset, "train", **_read_options(data))


def load_train_stream(data: DataArguments) -> Stream:
    """The rows that the options train on, one after the other.

    Raises:
        DataError: there are none, or all say the same.
    """
    _caption_images(data)
    stream = load_stream(
        data.dataset,
        "train",
        folds=data.folds,
        buffer_size=data.shuffle_buffer_size,
        **_read_options(data),
    )
    check_distinct_rows(data.dataset, stream.captions, stream.labels)
    return stream


def _caption_images(data: DataArguments) -> None:
    """Captions the pictures of a folder, where a captioner is given and any is missing."""
    if data.captioner is None:
        return
    from align.data.captioning import caption_folder

    folder = Path(data.dataset).expanduser()
    if not folder.is_dir():
        raise DataError(f"--captioner captions the pictures of a folder, and {folder} is none")
    count = caption_folder(folder, data.captioner)
    if count:
        print(f"{count} captions of pictures are in {folder / CAPTIONS}", flush=True)


def check_distinct_rows(dataset: str, captions: list[str], labels: list[str]) -> None:
    """Refuses rows that all say the same.

    Raises:
        DataError: there are not two different things to tell apart.
    """
    if len(set(captions)) < 2:
        raise DataError(
            f"all {len(captions)} rows of {dataset} have the caption {captions[0]!r}: there is "
            "nothing to tell apart, at least two different captions are needed"
        )
    if len(set(labels)) < 2:
        raise DataError(
            f"all {len(labels)} rows of {dataset} have the label {labels[0]!r}, and rows of one label "
            "say the same: give labels that differ, or name another column with --label_column"
        )


def load_eval_dataset(data: DataArguments) -> tuple[Dataset | None, str]:
    """The rows that the options measure on, None where no others are left, and what they are."""
    name, options = data.eval_dataset or data.dataset, _read_options(data)
    if data.eval_folds is not None:
        # Folds divide one and the same set.
        split = "test" if data.eval_dataset else "train"
        rows = load_rows(name, split, folds=data.eval_folds, **options)
        description = f"{name}, folds {', '.join(map(str, data.eval_folds))}"
        return rows, description + overlap_note(
            name, split, data.eval_folds, data.dataset, data.folds
        )
    if data.eval_dataset is not None:
        return load_rows(name, "test", **options), name + overlap_note(
            name, "test", None, data.dataset, data.folds
        )
    if has_test_split(name):
        return load_rows(name, "test", **options), f"{name}, its test split"
    if isinstance(lookup(DATASETS, name.partition("@")[0]), HubDataset):
        raise DataError(
            f"{name} has no test split, only folds: give --folds to train on and --eval_folds to "
            "measure on, or --eval_dataset"
        )
    return None, "the training recordings themselves (no fold was held out)"


def has_test_split(name: str) -> bool:
    """Whether a data set's split "test" has other rows than "train"; of the hub's that is hoped."""
    source = lookup(DATASETS, name.partition("@")[0])
    if isinstance(source, HubDataset):
        return source.columns.splits.get("test") != "train"
    # A short name goes first: a folder may happen to be called the same.
    return callable(source) or not has_no_splits(Path(name).expanduser())


def overlap_note(
    name: str,
    split: str,
    folds: Sequence[int] | None,
    train_dataset: str | None,
    train_folds: Sequence[int] | None,
) -> str:
    """What is said behind a data set's name where its rows were trained on; "" where not.

    Args:
        name: the data set measured on, as options name it.
        split: of it.
        folds: of it; None for all.
        trained: the data set trained on, where that is known.
        trained_folds: of that.
    """
    if (
        train_dataset is None
        or _dataset_path(name) != _dataset_path(train_dataset)
        or (split == "test" and has_test_split(name))
    ):
        return ""
    before = set(train_folds or folds or [0])
    return " (trained on, in part or whole)" if before & set(folds or before) else ""


def _dataset_path(name: str) -> Path:
    """Where a data set lies: a folder is its table, however the path to either is written."""
    path = Path(name).expanduser()
    return (table_file(path) or path).resolve()


def _read_options(data: DataArguments) -> dict[str, Any]:
    return {name: getattr(data, name) for name in READ_OPTIONS}
