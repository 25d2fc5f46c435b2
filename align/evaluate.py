"""Evaluate a trained encoder: embedding metrics and generated images."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import (
    CommandParser,
    add_evaluation_options,
    argument_group,
    check_evaluation_options,
    check_extra,
    quiet_libraries,
    resolve_device,
)
from align.config.arguments import EvaluationArguments
from align.registry import DATASETS, IMAGE_CLASSIFIERS

if TYPE_CHECKING:
    from datasets import Dataset

COMMAND = "python -m align.evaluate"
EXAMPLES = (
    f"{COMMAND} runs/align/mini",
    f"{COMMAND} runs/align/mini --dataset FOLDER --json metrics.json",
    f"{COMMAND} OWNER/NAME --dataset audiocaps --num_images 0",
)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    model = argument_group(parser, "model")
    model.add_argument("encoder", help="Trained encoder: folder or Hub id.")
    model.add_argument(
        "--space", help="Prompt space to evaluate. Defaults to the encoder's default space."
    )
    _add_data_options(parser)
    evaluation = argument_group(parser, "evaluation")
    evaluation.add_argument(
        "--num_images", type=int, default=100,
        help="Number of images to generate and classify; 0 disables it.",
    )  # fmt: skip
    evaluation.add_argument(
        "--image_classifier", choices=(*IMAGE_CLASSIFIERS, "none"),
        default=EvaluationArguments.image_classifier,
        help="Image classifier that computes the image accuracy.",
    )  # fmt: skip
    add_evaluation_options(parser)
    options = parser.parse_args(given)
    if options.split and not options.dataset:
        parser.error("--split is the split of --dataset: give --dataset as well")
    return options


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the dataset; by default the run's own options apply."""
    data = argument_group(parser, "data")
    data.add_argument(
        "--dataset", help="Dataset to evaluate on: short name, folder or Hub id. "
        "Defaults to the run's evaluation rows.",
    )  # fmt: skip
    data.add_argument("--split", help="Split of --dataset. Defaults to test.")
    data.add_argument("--folds", type=int, nargs="+", help="Folds to evaluate on.")
    data.add_argument("--audio_column", help="Column with the audio.")
    data.add_argument("--caption_column", help="Column with the captions.")
    data.add_argument("--label_column", help="Column with the labels.")
    data.add_argument("--license_column", help="Column with the licenses.")
    data.add_argument(
        "--caption_template",
        help="Template that turns labels into captions, e.g. 'the sound of {}'.",
    )
    data.add_argument("--licenses", nargs="+", help="Keep only clips with these licenses.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate on the test rows of a dataset and print the metrics."""
    options = _arguments(arguments)
    check_extra("align.evaluate", "eval", "datasets", "evaluate")
    from align.audio.files import AudioError
    from align.data.errors import DataError

    try:
        check_evaluation_options(options)
        _check_split(options)
        _evaluate(options)
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"align.evaluate: {error}") from error


def _evaluate(options: argparse.Namespace) -> None:
    quiet_libraries()
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
    # The cache of the training run.
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
    print(f"\n{options.encoder}, evaluated on {name}:\n{format_table(metrics)}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps(flatten_metrics(metrics) | {"evaluated_on": name}, indent=2) + "\n"
        )
        print(f"The metrics are in {options.json}.")
    if options.sample_sheet:
        print(f"The sample sheet is {options.sample_sheet}.")


def _check_split(options: argparse.Namespace) -> None:
    """Check that `--dataset` has splits if `--split` is given.

    Raises:
        ValueError: If it is a folder or a table, which is one set of rows.
    """
    from align.data.tables import has_no_splits

    if not options.split:
        return
    name, _, copy = options.dataset.partition("@")
    own = copy if name in DATASETS else options.dataset
    if own and has_no_splits(Path(own).expanduser()):
        raise ValueError(
            f"--split needs a dataset with splits, and {options.dataset} has none: use --folds"
        )


def _rows(options: argparse.Namespace, data_options: dict[str, Any]) -> tuple[Dataset, str]:
    """Load the evaluation rows, by default those that the run held out.

    Returns:
        The rows, and their description.
    """
    from align.config.arguments import DataArguments
    from align.data.loading import load_rows
    from align.data.splits import (
        READ_OPTIONS,
        load_eval_dataset,
        load_train_dataset,
        overlap_note,
    )

    if not (options.dataset or data_options):
        raise ValueError(f"{options.encoder} has no record of its training data: give --dataset")
    read = {name: getattr(options, name) for name in READ_OPTIONS if getattr(options, name)}
    if options.dataset is None:
        read = {name: data_options.get(name) for name in READ_OPTIONS} | read
        if options.folds is None:
            own = DataArguments(**data_options | read)
            rows, name = load_eval_dataset(own)
            return load_train_dataset(own) if rows is None else rows, name
    name = options.dataset or data_options["dataset"]
    # Folds of the run's own dataset select training rows; otherwise evaluate on the test split.
    split = options.split or ("test" if options.dataset else "train")
    rows = load_rows(name, split, folds=options.folds, **read)
    folds = f", folds {', '.join(map(str, options.folds))}" if options.folds else ""
    which = f", its {split} split" if name.partition("@")[0] in DATASETS else ""
    before = data_options.get("dataset"), data_options.get("folds")
    return rows, name + which + folds + overlap_note(name, split, options.folds, *before)


if __name__ == "__main__":
    main()
