"""Measures a UNet that hears: `python -m diffuse.evaluate RUN [--data D] [--json F]`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import Defaults, add_evaluation, check_evaluation, chosen_device
from align.config.arguments import EvaluationArguments
from align.registry import JUDGES

if TYPE_CHECKING:
    import torch

    from align.evaluation.statistics import Measured
    from diffuse.config.arguments import DataArguments
    from diffuse.data.pairs import Pairs
    from diffuse.evaluation.evaluator import Examination
    from diffuse.evaluation.generation import Drawing


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m diffuse.evaluate", description=__doc__, allow_abbrev=False,
        formatter_class=Defaults,
    )  # fmt: skip
    parser.add_argument("run", help="folder that diffuse.train wrote")
    parser.add_argument("--encoder", help="the aligned encoder; by default the run's own")
    parser.add_argument("--data", help="pairs to measure on; by default those the run held out")
    parser.add_argument("--folds", type=int, nargs="+", help="of --data: measure on these only")
    parser.add_argument("--pictures", type=int, default=100, help="sounds of one thing drawn")
    parser.add_argument("--mixtures", type=int, default=100, help="sounds of two things drawn")
    parser.add_argument("--disagreeing", type=int, default=50, help="texts against sounds drawn")
    parser.add_argument("--texts", type=int, default=100, help="texts drawn before and after")
    parser.add_argument(
        "--judge", choices=sorted(JUDGES), default=EvaluationArguments.judge, help="who judges"
    )
    parser.add_argument(
        "--clip", help="FID, KID, IIS, AIC and AIS by this CLIP: a name, a folder or hub id"
    )
    add_evaluation(parser)
    options = parser.parse_args(given)
    if options.folds and not options.data:
        parser.error("--folds are of --data: give it")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures on held-out pairs and prints the table."""
    options = _arguments(arguments)
    from align.audio.files import AudioError
    from align.data.errors import DataError

    try:
        check_evaluation(options, "mixtures", "disagreeing", "texts")
        _evaluate(options)
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.evaluate: {error}") from error


def _evaluate(options: argparse.Namespace) -> None:
    from align.evaluation.statistics import as_table, flat
    from align.models.encoder import load_encoder
    from align.registry import lookup
    from diffuse.evaluation.evaluator import Examination
    from diffuse.evaluation.generation import draw_sheet, features_of, sample_rows
    from diffuse.models.saving import read_config
    from diffuse.training.checkpoints import told

    run, device = told(options.run), chosen_device(options.device)
    read_config(Path(options.run))  # of a run that was killed there is none yet
    encoder = load_encoder(options.encoder or run["model"]["encoder"])
    pairs, name = _pairs(options, run)
    drawing = _drawing(options, run, encoder, pairs, device)
    examination = Examination(drawing, pairs, lookup(JUDGES, options.judge)())
    figures, told_also = _figures(options, run, examination, device)
    if figures:
        print(f"\n{options.run}, measured on {name}:\n{as_table(figures)}")
    for title, value in told_also.items():
        print(f"{title}  {value:.4f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps(flat(figures) | told_also | {"measured_on": name}, indent=2) + "\n"
        )
        print(f"The figures are in {options.json}.")
    if options.sheet:
        rows = sample_rows(drawing, pairs, options.samples)
        features = features_of(encoder, pairs, drawing.prepared, rows)
        draw_sheet(drawing, pairs, features, rows, options.sheet)
        print(f"The sounds and pictures are in {options.sheet}.")


def _figures(
    options: argparse.Namespace, run: dict[str, Any], examination: Examination, device: torch.device
) -> tuple[dict[str, Measured], dict[str, float]]:
    """All figures that are asked for: those with an interval, and those without."""
    from align.evaluation.generation import Artist

    figures: dict[str, Measured] = {}
    told_also: dict[str, float] = {}
    if options.pictures:
        figures |= examination.hearing(options.pictures)
    if options.clip and options.pictures:
        found, told_also = examination.fidelity(options.pictures, options.clip)
        figures |= found
    if options.texts:
        base = run["model"]["base"]
        before = Artist.from_pretrained(base, options.draw_steps, options.guidance, device)
        figures |= examination.text_alone(options.texts, before)
    if options.mixtures:
        figures |= examination.mixtures(options.mixtures)
    if options.disagreeing:
        figures |= examination.disagreeing(options.disagreeing)
    return figures, told_also


def _asked(options: argparse.Namespace, run: dict[str, Any]) -> DataArguments:
    from diffuse.config.arguments import DataArguments

    return DataArguments(**run["data"] | {"workers": options.workers})


def _pairs(options: argparse.Namespace, run: dict[str, Any]) -> tuple[Pairs, str]:
    """The pairs to measure on and what they are: by default those that the run held out."""
    from diffuse.data.pairs import columns_of, held_out_pairs, load_pairs, training_pairs

    asked = _asked(options, run)
    if options.data:
        given: dict[str, Any] = {"videos": asked.videos, "columns": columns_of(asked)}
        folds = f", folds {', '.join(map(str, options.folds))}" if options.folds else ""
        return load_pairs(options.data, "test", folds=options.folds, **given), options.data + folds
    pairs, name = held_out_pairs(asked)
    return training_pairs(asked) if pairs is None else pairs, name


def _drawing(
    options: argparse.Namespace, run: dict[str, Any], encoder: Any, pairs: Pairs,
    device: torch.device,
) -> Drawing:  # fmt: skip
    """The run's adapter on its base, and all that its pictures are drawn from."""
    from align.evaluation.generation import Artist
    from align.prompts.space import PromptSpace
    from diffuse.config.stages import read_stages
    from diffuse.data.preprocessing import cache_of, prepare
    from diffuse.data.text_embeds import encode_texts
    from diffuse.evaluation.generation import Drawing
    from diffuse.models.attach import attach

    base, asked = run["model"]["base"], _asked(options, run)
    artist = Artist.from_pretrained(base, options.draw_steps, options.guidance, device)
    preparation = prepare(asked, artist.pipeline, encoder, run["training"]["seed"], device)
    prepared = preparation.of(pairs, "pairs to measure on")
    artist.pipeline.to(device)
    texts = encode_texts(PromptSpace.from_pretrained(base), [pairs], cache_of(asked))
    substitutes = read_stages(run["loss"]["stages"])[-1].loss == "substitution"
    attached = attach(artist.pipeline, options.run)
    return Drawing(artist, attached, texts, prepared, substitutes)


if __name__ == "__main__":
    main()
