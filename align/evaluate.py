"""Measures an encoder: `python -m align.evaluate RUN [--dataset D] [--json F]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import (
    DefaultsHelpFormatter,
    add_evaluation_options,
    check_evaluation_options,
    resolve_device,
)
from align.config.arguments import EvaluationArguments
from align.registry import DATASETS, IMAGE_CLASSIFIERS

if TYPE_CHECKING:
    from datasets import Dataset


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m align.evaluate", description=__doc__, allow_abbrev=False,
        formatter_class=DefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("encoder", help="folder or hub id of a trained encoder")
    parser.add_argument("--dataset", help="a name, a hub id or a folder; by default the run's own")
    parser.add_argument("--split", help="of --dataset, where it has several: test by default")
    parser.add_argument("--folds", type=int, nargs="+", help="measure on these folds only")
    parser.add_argument("--space", help="the prompt space; the encoder's default one if not given")
    parser.add_argument("--num_images", type=int, default=100, help="pictures judged (0: none)")
    parser.add_argument(
        "--image_classifier", choices=(*IMAGE_CLASSIFIERS, "none"), default=EvaluationArguments.image_classifier,
        help="who judges pictures",
    )  # fmt: skip
    add_evaluation_options(parser)
    _add_column_options(parser)
    options = parser.parse_args(given)
    if options.split and not options.dataset:
        parser.error("--split is of --dataset: give that too")
    return options


def _add_column_options(parser: argparse.ArgumentParser) -> None:
    """How --dataset is read; of the run's own data all of it is known."""
    parser.add_argument("--audio_column", help="column of recordings")
    parser.add_argument("--caption_column", help="column of captions: caption by default")
    parser.add_argument("--label_column", help="column of labels: label by default")
    parser.add_argument("--license_column", help="column of licences: licence or license")
    parser.add_argument("--caption_template", help="what is said around labels: 'a {}'")
    parser.add_argument("--licenses", nargs="+", help="keep recordings of these licences only")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures on a data set's test rows and prints the table."""
    options = _arguments(arguments)
    from align.audio.files import AudioError
    from align.data.errors import DataError

    try:
        check_evaluation_options(options)
        _check_split(options)
        _evaluate(options)
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"align.evaluate: {error}") from error


def _evaluate(options: argparse.Namespace) -> None:
    from align.evaluation.evaluator import AlignmentEvaluator, evaluate_all
    from align.evaluation.generation import ImageGenerator
    from align.evaluation.statistics import flatten_metrics, format_table
    from align.hub.run_record import load
    from align.models.encoder import load_encoder
    from align.preprocessing.cache import Cache
    from align.preprocessing.features import extract_features
    from align.prompts.space import PromptSpace

    device = resolve_device(options.device)
    encoder = load_encoder(options.encoder).to(device)
    data_options, record = load(options.encoder)
    rows, name = _rows(options, data_options)
    base_model = encoder.head(options.space).space.base_model
    space = PromptSpace.from_pretrained(base_model)
    # Where the run kept what it heard, if it kept anything.
    cache = Cache.from_options(data_options.get("cache", True), data_options.get("cache_dir"))
    audio_features = extract_features(
        encoder.processor, rows, num_workers=options.num_workers, cache=cache
    )
    image_generator = None
    if options.num_images or options.sample_sheet:
        image_generator = ImageGenerator.from_pretrained(
            base_model, options.num_inference_steps, options.guidance_scale, device
        )
    evaluator = AlignmentEvaluator.from_encoder(
        encoder, space, audio_features, record, name=options.space, cache=cache
    )
    metrics = evaluate_all(evaluator, image_generator, options, options.sample_sheet)
    print(f"\n{options.encoder}, measured on {name}:\n{format_table(metrics)}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps(flatten_metrics(metrics) | {"evaluated_on": name}, indent=2) + "\n"
        )
        print(f"The figures are in {options.json}.")
    if options.sample_sheet:
        print(f"The sounds and pictures are in {options.sample_sheet}.")


def _check_split(options: argparse.Namespace) -> None:
    """Refuses a split of one's own folder or table, of which nobody would read it.

    Raises:
        ValueError: --dataset has one set of rows.
    """
    from align.data.tables import has_no_splits

    if not options.split:
        return
    name, _, copy = options.dataset.partition("@")
    own = copy if name in DATASETS else options.dataset
    if own and has_no_splits(Path(own).expanduser()):
        raise ValueError(
            f"--split is of data with several sets of rows, and {options.data} is one set, "
            "which --folds divides"
        )


def _rows(options: argparse.Namespace, data_options: dict[str, Any]) -> tuple[Dataset, str]:
    """The rows to measure on and what they are: by default those that the run held out."""
    from align.config.arguments import DataArguments
    from align.data.loading import load_rows
    from align.data.splits import (
        READ_OPTIONS,
        load_eval_dataset,
        load_train_dataset,
        overlap_note,
    )

    if not (options.dataset or data_options):
        raise ValueError(f"{options.encoder} does not say what it was trained on: give --dataset")
    read = {name: getattr(options, name) for name in READ_OPTIONS if getattr(options, name)}
    if options.dataset is None:
        read = {name: data_options.get(name) for name in READ_OPTIONS} | read
        if options.folds is None:
            own = DataArguments(**data_options | read)
            rows, name = load_eval_dataset(own)
            return load_train_dataset(own) if rows is None else rows, name
    name = options.dataset or data_options["dataset"]
    # As in training, folds divide what the run trained on; else it is the test split.
    split = options.split or ("test" if options.dataset else "train")
    rows = load_rows(name, split, folds=options.folds, **read)
    folds = f", folds {', '.join(map(str, options.folds))}" if options.folds else ""
    which = f", its {split} split" if name.partition("@")[0] in DATASETS else ""
    before = data_options.get("dataset"), data_options.get("folds")
    return rows, name + which + folds + overlap_note(name, split, options.folds, *before)


if __name__ == "__main__":
    main()
