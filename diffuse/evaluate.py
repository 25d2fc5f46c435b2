"""Measures a UNet that hears: `python -m diffuse.evaluate RUN [--dataset D] [--json F]`."""

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
from align.registry import IMAGE_CLASSIFIERS

if TYPE_CHECKING:
    import torch

    from align.evaluation.statistics import Estimate
    from diffuse.config.arguments import DataArguments
    from diffuse.data.pairs import AudioImagePairs
    from diffuse.evaluation.evaluator import UNetEvaluator
    from diffuse.evaluation.generation import PairImageGenerator


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m diffuse.evaluate", description=__doc__, allow_abbrev=False,
        formatter_class=DefaultsHelpFormatter,
    )  # fmt: skip
    parser.add_argument("run", help="folder that diffuse.train wrote")
    parser.add_argument("--encoder", help="the aligned encoder; by default the run's own")
    parser.add_argument("--dataset", help="pairs to measure on; by default those the run held out")
    parser.add_argument("--folds", type=int, nargs="+", help="of --dataset: measure on these only")
    parser.add_argument("--num_images", type=int, default=100, help="sounds of one thing drawn")
    parser.add_argument("--num_mixtures", type=int, default=100, help="sounds of two things drawn")
    parser.add_argument(
        "--num_contradictory", type=int, default=50, help="texts against sounds drawn"
    )
    parser.add_argument(
        "--num_captions", type=int, default=100, help="texts drawn before and after"
    )
    parser.add_argument(
        "--image_classifier",
        choices=sorted(IMAGE_CLASSIFIERS),
        default=EvaluationArguments.image_classifier,
        help="who judges",
    )
    parser.add_argument(
        "--clip_model", help="FID, KID, IIS, AIC and AIS by this CLIP: a name, a folder or hub id"
    )
    add_evaluation_options(parser)
    options = parser.parse_args(given)
    if options.folds and not options.dataset:
        parser.error("--folds are of --dataset: give it")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures on held-out pairs and prints the table."""
    options = _arguments(arguments)
    from align.audio.files import AudioError
    from align.data.errors import DataError

    try:
        check_evaluation_options(options, "mixtures", "disagreeing", "texts")
        _evaluate(options)
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.evaluate: {error}") from error


def _evaluate(options: argparse.Namespace) -> None:
    from align.evaluation.statistics import flatten_metrics, format_table
    from align.models.encoder import load_encoder
    from align.registry import lookup
    from diffuse.evaluation.evaluator import UNetEvaluator
    from diffuse.evaluation.generation import sample_rows, save_pair_sheet, spectrograms_of
    from diffuse.models.saving import read_config
    from diffuse.training.checkpoints import load_run_record

    run, device = load_run_record(options.run), resolve_device(options.device)
    read_config(Path(options.run))  # of a run that was killed there is none yet
    encoder = load_encoder(options.encoder or run["model"]["encoder"])
    pairs, name = _pairs(options, run)
    pair_generator = _build_pair_generator(options, run, encoder, pairs, device)
    evaluator = UNetEvaluator(
        pair_generator, pairs, lookup(IMAGE_CLASSIFIERS, options.image_classifier)()
    )
    figures, scalar_figures = _figures(options, run, evaluator, device)
    if figures:
        print(f"\n{options.run}, measured on {name}:\n{format_table(figures)}")
    for title, value in scalar_figures.items():
        print(f"{title}  {value:.4f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps(flatten_metrics(figures) | scalar_figures | {"evaluated_on": name}, indent=2)
            + "\n"
        )
        print(f"The figures are in {options.json}.")
    if options.sample_sheet:
        rows = sample_rows(pair_generator, pairs, options.num_sheet_samples)
        features = spectrograms_of(encoder, pairs, pair_generator.prepared, rows)
        save_pair_sheet(pair_generator, pairs, features, rows, options.sample_sheet)
        print(f"The sounds and pictures are in {options.sample_sheet}.")


def _figures(
    options: argparse.Namespace, run: dict[str, Any], evaluator: UNetEvaluator, device: torch.device
) -> tuple[dict[str, Estimate], dict[str, float]]:
    """All figures that are asked for: those with an interval, and those without."""
    from align.evaluation.generation import ImageGenerator

    figures: dict[str, Estimate] = {}
    scalar_figures: dict[str, float] = {}
    if options.num_images:
        figures |= evaluator.audio_accuracy(options.num_images)
    if options.clip_model and options.num_images:
        found, scalar_figures = evaluator.clip_metrics(options.num_images, options.clip_model)
        figures |= found
    if options.num_captions:
        base_model = run["model"]["base_model"]
        base_generator = ImageGenerator.from_pretrained(
            base_model, options.num_inference_steps, options.guidance_scale, device
        )
        figures |= evaluator.text_accuracy(options.num_captions, base_generator)
    if options.num_mixtures:
        figures |= evaluator.mixture_accuracy(options.num_mixtures)
    if options.num_contradictory:
        figures |= evaluator.contradictory_accuracy(options.num_contradictory)
    return figures, scalar_figures


def _data_arguments(options: argparse.Namespace, run: dict[str, Any]) -> DataArguments:
    from diffuse.config.arguments import DataArguments

    return DataArguments(**run["data"] | {"num_workers": options.num_workers})


def _pairs(options: argparse.Namespace, run: dict[str, Any]) -> tuple[AudioImagePairs, str]:
    """The pairs to measure on and what they are: by default those that the run held out."""
    from diffuse.data.pairs import column_names_of, load_eval_pairs, load_pairs, load_train_pairs

    data = _data_arguments(options, run)
    if options.dataset:
        given: dict[str, Any] = {"videos": data.video_dir, "columns": column_names_of(data)}
        folds = f", folds {', '.join(map(str, options.folds))}" if options.folds else ""
        return load_pairs(
            options.dataset, "test", folds=options.folds, **given
        ), options.dataset + folds
    pairs, name = load_eval_pairs(data)
    return load_train_pairs(data) if pairs is None else pairs, name


def _build_pair_generator(
    options: argparse.Namespace, run: dict[str, Any], encoder: Any, pairs: AudioImagePairs,
    device: torch.device,
) -> PairImageGenerator:  # fmt: skip
    """The run's adapter on its base, and all that its pictures are drawn from."""
    from align.evaluation.generation import ImageGenerator
    from align.prompts.space import PromptSpace
    from diffuse.config.stages import parse_stages
    from diffuse.data.preprocessing import build_preprocessor, cache_from
    from diffuse.data.text_embeds import encode_texts
    from diffuse.evaluation.generation import PairImageGenerator
    from diffuse.models.attach import attach

    base_model, data = run["model"]["base_model"], _data_arguments(options, run)
    image_generator = ImageGenerator.from_pretrained(
        base_model, options.num_inference_steps, options.guidance_scale, device
    )
    preprocessor = build_preprocessor(
        data, image_generator.pipeline, encoder, run["training"]["seed"], device
    )
    prepared = preprocessor.preprocess(pairs, "pairs to measure on")
    image_generator.pipeline.to(device)
    texts = encode_texts(PromptSpace.from_pretrained(base_model), [pairs], cache_from(data))
    replaces_text = parse_stages(run["loss"]["stages"])[-1].loss == "text_replacement"
    attached = attach(image_generator.pipeline, options.run)
    return PairImageGenerator(image_generator, attached, texts, prepared, replaces_text)


if __name__ == "__main__":
    main()
