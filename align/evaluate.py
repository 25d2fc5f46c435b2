"""Measures an encoder: `python -m align.evaluate RUN [--data D] [--json F]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import Defaults, add_evaluation, check_evaluation, chosen_device
from align.config.arguments import EvaluationArguments
from align.registry import DATASETS, JUDGES

if TYPE_CHECKING:
    from datasets import Dataset


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m align.evaluate", description=__doc__, allow_abbrev=False,
        formatter_class=Defaults,
    )  # fmt: skip
    parser.add_argument("run", help="folder or hub id of a trained encoder")
    parser.add_argument("--data", help="a name, a hub id or a folder; by default the run's own")
    parser.add_argument("--split", help="of --data, where it has several: test by default")
    parser.add_argument("--folds", type=int, nargs="+", help="measure on these folds only")
    parser.add_argument("--space", help="the prompt space; the encoder's default one if not given")
    parser.add_argument("--pictures", type=int, default=100, help="pictures judged (0: none)")
    parser.add_argument(
        "--judge", choices=(*JUDGES, "none"), default=EvaluationArguments.judge,
        help="who judges pictures",
    )  # fmt: skip
    add_evaluation(parser)
    _add_columns(parser)
    options = parser.parse_args(given)
    if options.split and not options.data:
        parser.error("--split is of --data: give that too")
    return options


def _add_columns(parser: argparse.ArgumentParser) -> None:
    """How --data is read; of the run's own data all of it is known."""
    parser.add_argument("--recording_column", help="column of recordings")
    parser.add_argument("--caption_column", help="column of captions: caption by default")
    parser.add_argument("--label_column", help="column of labels: label by default")
    parser.add_argument("--licence_column", help="column of licences: licence or license")
    parser.add_argument("--caption_template", help="what is said around labels: 'a {}'")
    parser.add_argument("--licences", nargs="+", help="keep recordings of these licences only")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures on a data set's test rows and prints the table."""
    options = _arguments(arguments)
    from align.audio.files import AudioError
    from align.data.errors import DataError

    try:
        check_evaluation(options)
        _check_split(options)
        _evaluate(options)
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"align.evaluate: {error}") from error


def _evaluate(options: argparse.Namespace) -> None:
    from align.evaluation.evaluator import Examination, examined
    from align.evaluation.generation import Artist
    from align.evaluation.statistics import as_table, flat
    from align.hub.run_record import told
    from align.models.encoder import load_encoder
    from align.preprocessing.cache import Cache
    from align.preprocessing.features import hear
    from align.prompts.space import PromptSpace

    device = chosen_device(options.device)
    encoder = load_encoder(options.run).to(device)
    trained_on, known = told(options.run)
    rows, name = _rows(options, trained_on)
    base = encoder.head(options.space).space.base
    space = PromptSpace.from_pretrained(base)
    # Where the run kept what it heard, if it kept anything.
    cache = Cache.of(trained_on.get("cache", True), trained_on.get("cache_dir"))
    heard = hear(encoder.ear, rows, workers=options.workers, cache=cache)
    artist = None
    if options.pictures or options.sheet:
        artist = Artist.from_pretrained(base, options.draw_steps, options.guidance, device)
    seen = Examination.of(encoder, space, heard, known, name=options.space, cache=cache)
    figures = examined(seen, artist, options, options.sheet)
    print(f"\n{options.run}, measured on {name}:\n{as_table(figures)}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(flat(figures) | {"measured_on": name}, indent=2) + "\n")
        print(f"The figures are in {options.json}.")
    if options.sheet:
        print(f"The sounds and pictures are in {options.sheet}.")


def _check_split(options: argparse.Namespace) -> None:
    """Refuses a split of one's own folder or table, of which nobody would read it.

    Raises:
        ValueError: --data has one set of rows.
    """
    from align.data.tables import has_one_set

    if not options.split:
        return
    name, _, copy = options.data.partition("@")
    own = copy if name in DATASETS else options.data
    if own and has_one_set(Path(own).expanduser()):
        raise ValueError(
            f"--split is of data with several sets of rows, and {options.data} is one set, "
            "which --folds divides"
        )


def _rows(options: argparse.Namespace, trained_on: dict[str, Any]) -> tuple[Dataset, str]:
    """The rows to measure on and what they are: by default those that the run held out."""
    from align.config.arguments import DataArguments
    from align.data.loading import load_rows
    from align.data.splits import READ_BY, held_out_rows, overlap, training_rows

    if not (options.data or trained_on):
        raise ValueError(f"{options.run} does not say what it was trained on: give --data")
    read = {name: getattr(options, name) for name in READ_BY if getattr(options, name)}
    if options.data is None:
        read = {name: trained_on.get(name) for name in READ_BY} | read
        if options.folds is None:
            own = DataArguments(**trained_on | read)
            rows, name = held_out_rows(own)
            return training_rows(own) if rows is None else rows, name
    name = options.data or trained_on["data"]
    # As in training, folds divide what the run trained on; else it is the test split.
    split = options.split or ("test" if options.data else "train")
    rows = load_rows(name, split, folds=options.folds, **read)
    folds = f", folds {', '.join(map(str, options.folds))}" if options.folds else ""
    which = f", its {split} split" if name.partition("@")[0] in DATASETS else ""
    before = trained_on.get("data"), trained_on.get("folds")
    return rows, name + which + folds + overlap(name, split, options.folds, *before)


if __name__ == "__main__":
    main()
