"""Load the training and evaluation rows that the options select."""

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


# Options for reading a dataset and filtering its rows.
READ_OPTIONS = (
    "audio_column", "caption_column", "label_column", "license_column", "caption_template",
    "licenses",
)  # fmt: skip


def load_train_dataset(data: DataArguments) -> Dataset:
    """Load the training rows.

    Args:
        data: Data options.

    Raises:
        DataError: If there are no rows, or all have the same caption or label.
    """
    _caption_images(data)
    rows = load_rows(data.dataset, "train", folds=data.folds, **_read_options(data))
    undecoded = rows.with_format(None)  # skips transforms that synthesize audio
    check_distinct_rows(data.dataset, list(undecoded["caption"]), list(undecoded["label"]))
    return rows


def load_extra_dataset(data: DataArguments) -> Dataset | None:
    """Load the rows of the extra training dataset; None if there is none.

    Args:
        data: Data options.

    Raises:
        DataError: If the dataset cannot be loaded.
    """
    if not data.extra_dataset:
        return None
    return load_rows(data.extra_dataset, "train", **_read_options(data))


def load_train_stream(data: DataArguments) -> Stream:
    """Load the training rows as a stream.

    Args:
        data: Data options.

    Raises:
        DataError: If there are no rows, or all have the same caption or label.
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
    """Caption the images of a folder if a captioner is given and captions are missing."""
    if data.captioner is None:
        return
    from align.data.captioning import caption_folder

    folder = Path(data.dataset).expanduser()
    if not folder.is_dir():
        raise DataError(f"--captioner needs a folder of images, and {folder} is not a folder")
    count = caption_folder(folder, data.captioner)
    if count:
        print(f"wrote {count} image captions to {folder / CAPTIONS}", flush=True)


def check_distinct_rows(dataset: str, captions: list[str], labels: list[str]) -> None:
    """Check that rows have at least two different captions and two different labels.

    Args:
        dataset: Name of the dataset in messages.
        captions: Caption of each row.
        labels: Label of each row.

    Raises:
        DataError: If all captions or all labels are the same.
    """
    if len(set(captions)) < 2:
        raise DataError(
            f"all {len(captions)} rows of {dataset} have the caption {captions[0]!r}: "
            "training needs at least two different captions"
        )
    if len(set(labels)) < 2:
        raise DataError(
            f"all {len(labels)} rows of {dataset} have the label {labels[0]!r}, so all are "
            "positives of each other: give different labels, or another column with --label_column"
        )


def load_eval_dataset(data: DataArguments) -> tuple[Dataset | None, str]:
    """Load the evaluation rows.

    Args:
        data: Data options.

    Returns:
        The rows, None if no held-out rows exist, and a description of them.

    Raises:
        DataError: If the dataset cannot be loaded, or has no test split and no folds are given.
    """
    name, options = data.eval_dataset or data.dataset, _read_options(data)
    if data.eval_folds is not None:
        # Folds divide one split.
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
            "evaluate on, or --eval_dataset"
        )
    return None, "the training clips themselves (no fold was held out)"


def has_test_split(name: str) -> bool:
    """Return whether the test split of a dataset differs from the train split.

    Datasets on the Hub without a short name are assumed to have a test split.
    """
    source = lookup(DATASETS, name.partition("@")[0])
    if isinstance(source, HubDataset):
        return source.columns.splits.get("test") != "train"
    # Short names take precedence over folders of the same name.
    return callable(source) or not has_no_splits(Path(name).expanduser())


def overlap_note(
    name: str,
    split: str,
    folds: Sequence[int] | None,
    train_dataset: str | None,
    train_folds: Sequence[int] | None,
) -> str:
    """Return a note if evaluation rows were trained on, else "".

    Args:
        name: Evaluation dataset.
        split: Split of the evaluation dataset.
        folds: Folds of the evaluation dataset; None for all.
        train_dataset: Training dataset, if known.
        train_folds: Folds of the training dataset; None for all.
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
    """Return the resolved path of a dataset; a folder with a table is the same as the table."""
    path = Path(name).expanduser()
    return (table_file(path) or path).resolve()


def _read_options(data: DataArguments) -> dict[str, Any]:
    return {name: getattr(data, name) for name in READ_OPTIONS}
