"""Evaluate an audio adapter on held-out pairs."""

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
from align.registry import IMAGE_CLASSIFIERS

if TYPE_CHECKING:
    import torch

    from align.evaluation.statistics import Estimate
    from diffuse.config.arguments import DataArguments
    from diffuse.data.pairs import AudioImagePairs
    from diffuse.evaluation.evaluator import UNetEvaluator
    from diffuse.evaluation.generation import PairImageGenerator


COMMAND = "python -m diffuse.evaluate"
EXAMPLES = (
    f"{COMMAND} runs/diffuse/mini",
    f"{COMMAND} runs/diffuse/mini --dataset FOLDER --folds 5 --json metrics.json",
    f"{COMMAND} runs/diffuse/mini --clip_model mini --sample_sheet samples.png",
)


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    model = argument_group(parser, "model")
    model.add_argument("run", help="Run directory written by diffuse.train.")
    model.add_argument("--encoder", help="Audio encoder. Defaults to the run's own.")
    data = argument_group(parser, "data")
    data.add_argument(
        "--dataset", help="Dataset to evaluate on. Defaults to the run's held-out pairs."
    )
    data.add_argument("--folds", type=int, nargs="+", help="Folds of --dataset to evaluate on.")
    evaluation = argument_group(parser, "evaluation")
    evaluation.add_argument(
        "--num_images", type=int, default=100,
        help="Number of images to generate from single-source clips; 0 disables it.",
    )  # fmt: skip
    evaluation.add_argument(
        "--num_mixtures", type=int, default=100,
        help="Number of images to generate from two-source clips; 0 disables it.",
    )  # fmt: skip
    evaluation.add_argument(
        "--num_contradictory", type=int, default=50,
        help="Number of images with contradictory prompt and audio; 0 disables it.",
    )  # fmt: skip
    evaluation.add_argument(
        "--num_captions", type=int, default=100,
        help="Number of captions to generate with and without the adapter attached; 0 disables it.",
    )  # fmt: skip
    evaluation.add_argument(
        "--image_classifier", choices=sorted(IMAGE_CLASSIFIERS),
        default=EvaluationArguments.image_classifier,
        help="Image classifier that computes the object and scene accuracy.",
    )  # fmt: skip
    evaluation.add_argument(
        "--clip_model",
        help="CLIP model for FID, KID, IIS, AIC and AIS: short name, folder or Hub id.",
    )
    add_evaluation_options(parser)
    options = parser.parse_args(given)
    if options.folds and not options.dataset:
        parser.error("--folds selects folds of --dataset: give --dataset")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate on held-out pairs and print a table of the metrics."""
    options = _arguments(arguments)
    check_extra("diffuse.evaluate", "eval", "datasets", "evaluate")
    from align.audio.files import AudioError
    from align.data.errors import DataError

    try:
        check_evaluation_options(options, "num_mixtures", "num_contradictory", "num_captions")
        _evaluate(options)
    except (AudioError, DataError, ValueError, OSError) as error:
        raise SystemExit(f"diffuse.evaluate: {error}") from error


def _evaluate(options: argparse.Namespace) -> None:
    quiet_libraries()
    from align.evaluation.statistics import flatten_metrics, format_table
    from align.models.encoder import load_encoder
    from align.registry import lookup
    from diffuse.evaluation.evaluator import UNetEvaluator
    from diffuse.evaluation.generation import sample_rows, save_pair_sheet, spectrograms_of
    from diffuse.models.saving import read_config
    from diffuse.training.checkpoints import load_run_record

    run, device = load_run_record(options.run), resolve_device(options.device)
    read_config(Path(options.run))  # missing if the run was interrupted
    encoder = load_encoder(options.encoder or run["model"]["encoder"])
    pairs, name = _pairs(options, run)
    pair_generator = _build_pair_generator(options, run, encoder, pairs, device)
    evaluator = UNetEvaluator(
        pair_generator, pairs, lookup(IMAGE_CLASSIFIERS, options.image_classifier)()
    )
    metrics, scalar_metrics = _metrics(options, run, evaluator, device)
    if metrics:
        print(f"\n{options.run}, evaluated on {name}:\n{format_table(metrics)}")
    for title, value in scalar_metrics.items():
        print(f"{title}  {value:.4f}")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps(flatten_metrics(metrics) | scalar_metrics | {"evaluated_on": name}, indent=2)
            + "\n"
        )
        print(f"Metrics saved to {options.json}.")
    if options.sample_sheet:
        rows = sample_rows(pair_generator, pairs, options.num_sheet_samples)
        features = spectrograms_of(encoder, pairs, pair_generator.prepared, rows)
        save_pair_sheet(pair_generator, pairs, features, rows, options.sample_sheet)
        print(f"Sample sheet saved to {options.sample_sheet}.")


def _metrics(
    options: argparse.Namespace, run: dict[str, Any], evaluator: UNetEvaluator, device: torch.device
) -> tuple[dict[str, Estimate], dict[str, float]]:
    """Return all requested metrics: those with a confidence interval, and those without."""
    from align.evaluation.generation import ImageGenerator

    metrics: dict[str, Estimate] = {}
    scalar_metrics: dict[str, float] = {}
    if options.num_images:
        metrics |= evaluator.audio_accuracy(options.num_images)
    if options.clip_model and options.num_images:
        found, scalar_metrics = evaluator.clip_metrics(options.num_images, options.clip_model)
        metrics |= found
    if options.num_captions:
        base_model = run["model"]["base_model"]
        base_generator = ImageGenerator.from_pretrained(
            base_model, options.num_inference_steps, options.guidance_scale, device
        )
        metrics |= evaluator.text_accuracy(options.num_captions, base_generator)
    if options.num_mixtures:
        metrics |= evaluator.mixture_accuracy(options.num_mixtures)
    if options.num_contradictory:
        metrics |= evaluator.contradictory_accuracy(options.num_contradictory)
    return metrics, scalar_metrics


def _data_arguments(options: argparse.Namespace, run: dict[str, Any]) -> DataArguments:
    from diffuse.config.arguments import DataArguments

    return DataArguments(**run["data"] | {"num_workers": options.num_workers})


def _pairs(options: argparse.Namespace, run: dict[str, Any]) -> tuple[AudioImagePairs, str]:
    """Return the evaluation pairs and their description; the run's held-out pairs by default."""
    from diffuse.data.pairs import column_names_of, load_eval_pairs, load_pairs, load_train_pairs

    data = _data_arguments(options, run)
    if options.dataset:
        given: dict[str, Any] = {"video_dir": data.video_dir, "columns": column_names_of(data)}
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
    """Attach the run's adapter to its base model and preprocess the evaluation pairs."""
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
    prepared = preprocessor.preprocess(pairs, "evaluation pairs")
    image_generator.pipeline.to(device)
    texts = encode_texts(PromptSpace.from_pretrained(base_model), [pairs], cache_from(data))
    replaces_text = parse_stages(run["loss"]["stages"])[-1].loss == "text_replacement"
    attached = attach(image_generator.pipeline, options.run)
    return PairImageGenerator(image_generator, attached, texts, prepared, replaces_text)


if __name__ == "__main__":
    main()
