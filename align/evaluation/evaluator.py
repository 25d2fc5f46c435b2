"""Evaluate an encoder: embedding metrics and generated images."""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from PIL import Image

from align.evaluation.generation import ImageGenerator, save_sample_sheet, select_per_label
from align.evaluation.metrics import load_metric
from align.evaluation.statistics import Estimate, RowLookup, mean_centered_cosine, nearest, scores
from align.hub.run_record import TrainingRecord
from align.models.encoder import AudioPromptEncoder
from align.models.heads import Head
from align.models.processing import AudioProcessor, pad
from align.preprocessing.cache import Cache
from align.preprocessing.features import AudioFeatures
from align.preprocessing.text_embeds import (
    MAX_IN_MEMORY_BYTES,
    CaptionEmbeds,
    LabelMixture,
    LazyTargets,
    standardized_targets,
)
from align.prompts.embeds import PromptEmbeds
from align.prompts.space import PromptSpace
from align.registry import IMAGE_CLASSIFIERS, lookup


class ImageClassifier(Protocol):
    """Classifier that decides whether images show their labels.

    A classifier that supports only some labels implements `supports(label)`; clips with other
    labels are left out of the image metrics.
    """

    def is_correct(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[bool]:
        """Returns True for each image that shows its label; undecided images count as wrong."""
        ...


@dataclass
class AlignmentEvaluator:
    """Predicted and target embeds of a dataset, and the metrics computed from them.

    Attributes:
        audio_features: Features, captions and labels of the N clips.
        predictions: Standardized embeds (N, L, D) predicted by the encoder, and pooled embeds.
        caption_embeds: Text embeds of all captions.
        class_names: K labels.
        class_embeds: Standardized mean caption embeds (K, L, D) of the labels; loaded lazily for
            large datasets.
        record: Captions by label.
        head: Head of the prompt space, on the CPU.
        processor: The encoder's audio processor.
    """

    audio_features: AudioFeatures
    predictions: PromptEmbeds
    caption_embeds: CaptionEmbeds
    class_names: list[str]
    class_embeds: torch.Tensor | LazyTargets
    record: TrainingRecord
    head: Head
    processor: AudioProcessor

    @classmethod
    def from_encoder(
        cls,
        encoder: AudioPromptEncoder,
        space: PromptSpace,
        audio_features: AudioFeatures,
        record: TrainingRecord,
        *,
        name: str | None = None,
        cache: Cache | None = None,
    ) -> AlignmentEvaluator:
        """Runs the encoder on all clips and encodes all captions.

        Args:
            encoder: Trained encoder.
            space: Prompt space to evaluate.
            audio_features: Features, captions and labels of the clips.
            record: Captions by label.
            name: Name of the space in the encoder; its default space if None.
            cache: Cache for large sets of caption embeds; small sets are always recomputed in full
                precision.
        """
        record = record.with_rows(audio_features.labels, audio_features.captions)
        texts = [t for group in record.captions.values() for t in group]
        all_captions = {*texts, *audio_features.captions}
        many = 4 * len(all_captions) * space.unconditional.embeds[0].numel() > MAX_IN_MEMORY_BYTES
        caption_embeds = CaptionEmbeds.encode(
            space, texts + audio_features.captions, cache if many else None
        )
        labels = [label for label, group in record.captions.items() for _ in group]
        mixture = LabelMixture(caption_embeds.index(texts), labels)
        head = copy.deepcopy(encoder.head(name)).cpu()  # a copy: the encoder keeps its device
        class_embeds = standardized_targets(
            caption_embeds.prompts.embeds, head.statistics(), mixture
        )
        predictions = predict(encoder, audio_features, space=name)
        return cls(
            audio_features,
            predictions,
            caption_embeds,
            mixture.names,
            class_embeds,
            record,
            head,
            encoder.processor,
        )

    def embed_metrics(self) -> dict[str, Estimate]:
        """Class accuracy and centered cosine, with the oracle and nearest-caption baselines."""
        own = self.caption_embeds.rows(self.audio_features.captions).embeds
        target = self.head.statistics().standardize(own)
        place = {name: i for i, name in enumerate(self.class_names)}
        class_ids = torch.tensor([place[label] for label in self.audio_features.labels])
        best = nearest(self.predictions.embeds, self.class_embeds)
        correct = best == class_ids
        # Rows of the same clip are not independent cases: count the first one.
        first = {name: i for i, name in reversed(list(enumerate(self.audio_features.clip_ids)))}
        nearest_caption_embeds = self.caption_embeds.rows(self.nearest_captions()).embeds
        nearest_caption_embeds = self.head.statistics().standardize(nearest_caption_embeds)
        return {
            "class_accuracy": Estimate.proportion([bool(correct[i]) for i in first.values()]),
            "centered_cosine": mean_centered_cosine(self.predictions.embeds, target),
            "centered_cosine_nearest_caption": mean_centered_cosine(nearest_caption_embeds, target),
            # The oracle knows the label but not the wording: the mean over a label's captions.
            "centered_cosine_oracle": mean_centered_cosine(self.class_embeds[class_ids], target),
        }

    def select(self, rows: Sequence[int]) -> AlignmentEvaluator:
        """Returns an evaluator of the given rows."""
        chosen = self.predictions.select(torch.tensor(rows))
        return replace(self, audio_features=self.audio_features.select(rows), predictions=chosen)

    def prompt_embeds(self, rows: Sequence[int]) -> PromptEmbeds:
        """Returns the prompt embeds of rows, predicted from audio."""
        chosen = torch.tensor(rows)
        pooled = self.predictions.pooled
        return self.head.to_prompt_embeds(
            self.predictions.embeds[chosen], None if pooled is None else pooled[chosen]
        )

    def caption_prompt_embeds(self, captions: Sequence[str]) -> PromptEmbeds:
        """Returns the prompt embeds of captions, as the pipeline's text encoder computes them."""
        found = self.caption_embeds.rows(captions)
        return PromptEmbeds(found.embeds, found.pooled, self.head.space.padding)

    def nearest_captions(self) -> list[str]:
        """Returns, for each clip, the most frequent caption of the nearest class."""
        best = nearest(self.predictions.embeds, self.class_embeds).tolist()
        return [self.record.most_frequent_caption(self.class_names[i]) for i in best]

    def image_metrics(
        self, image_generator: ImageGenerator, image_classifier: ImageClassifier, count: int
    ) -> dict[str, Estimate]:
        """Generates and classifies `count` images per condition, with the same seeds.

        The conditions are the audio, the ground-truth caption (upper bound) and the caption nearest
        to the audio (baseline without an alignment). If `count` is smaller than the number of
        clips, the clips are spread evenly over the dataset; if it is larger, clips are repeated
        with other seeds. Labels that the classifier does not support are left out.

        Args:
            image_generator: Pipeline that generates the images.
            image_classifier: Classifier that checks the images against their labels.
            count: Number of images per condition.

        Returns:
            The share of correct images by metric name; empty if no label is supported.
        """
        supports = getattr(image_classifier, "supports", lambda label: True)
        supported = [i for i, label in enumerate(self.audio_features.labels) if supports(label)]
        n = len(supported)
        if not n:
            return {}
        places = (i * n // count if count < n else i % n for i in range(count))
        rows = [supported[place] for place in places]
        seeds = list(range(count))
        labels = [self.audio_features.labels[i] for i in rows]
        nearest_captions = self.nearest_captions()
        ways = {
            "image_accuracy": self.prompt_embeds(rows),
            "image_accuracy_text": self.caption_prompt_embeds(
                [self.audio_features.captions[i] for i in rows]
            ),
            "image_accuracy_nearest_caption": self.caption_prompt_embeds(
                [nearest_captions[i] for i in rows]
            ),
        }
        unconditional = self.head.unconditional(count)
        return {
            way: Estimate.proportion(
                image_classifier.is_correct(
                    image_generator.generate(prompts, unconditional, seeds, title=way), labels
                )
            )
            for way, prompts in ways.items()
        }


@torch.no_grad()
def predict(
    encoder: AudioPromptEncoder,
    audio_features: AudioFeatures,
    batch_size: int = 32,
    space: str | None = None,
) -> PromptEmbeds:
    """Returns the encoder's standardized embeds (N, L, D) of every row, on the CPU."""
    encoder.eval()
    embeds, pooled = [], []
    clips, which = audio_features.unique_clips()
    for start in range(0, len(clips), batch_size):
        batch = pad(clips[start : start + batch_size])
        out = encoder(**{k: v.to(encoder.device) for k, v in batch.items()}, space=space)
        embeds.append(out.embeds.float().cpu())
        if out.pooled is not None:
            pooled.append(out.pooled.float().cpu())
    found = PromptEmbeds(torch.cat(embeds), torch.cat(pooled) if pooled else None)
    return found if len(clips) == len(audio_features) else found.select(torch.tensor(which))


# Minimum and maximum of each metric.
DISTANCES = {"euclidean": (0.0, math.inf), "cosine": (-1.0, 1.0), "mse": (0.0, math.inf)}
# Values passed to a metric at a time; `evaluate` stores them as Python objects.
METRIC_CHUNK_SIZE = 4_000_000


def embed_distances(evaluator: AlignmentEvaluator) -> dict[str, Estimate]:
    """Euclidean distance, cosine and MSE between predicted and caption embeds.

    Whole prompt embeds are compared as the pipeline reads them, not standardized.
    """
    metric = load_metric("alignment")
    statistics = evaluator.head.statistics()
    statistics_kwargs = {"center": statistics.mean.flatten(), "std": statistics.std.flatten()}
    rows = evaluator.predictions.embeds
    found: dict[str, list[float]] = defaultdict(list)
    step = max(1, METRIC_CHUNK_SIZE // rows[0].numel())
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        ours = statistics.restore(rows[part]).flatten(1)
        theirs = evaluator.caption_embeds.rows(
            evaluator.audio_features.captions[part]
        ).embeds.flatten(1)
        results = metric.compute(
            predictions=ours.numpy(), references=theirs.numpy(), per_row=True, **statistics_kwargs
        )
        for name in DISTANCES:
            found[name] += results[name]
    return {name: Estimate.mean(torch.tensor(found[name]), *DISTANCES[name]) for name in DISTANCES}


def retrieval_metrics(evaluator: AlignmentEvaluator) -> dict[str, Estimate]:
    """R@1, R@5, R@10 and mAP@10 by centered cosine, in both directions, by caption and by class.

    By caption, the candidates are the distinct captions of the dataset, and all captions of a
    clip's label are relevant. By class, the candidates are the mean embeds of the labels; these
    metrics are omitted if every label has one caption, since they would be identical. Metrics that
    cannot fail, such as R@10 among ten candidates, are omitted.
    """
    audio_features = evaluator.audio_features
    # A clip with several rows, one per caption, is one query.
    queries = list(
        {place: i for i, place in reversed(list(enumerate(audio_features.clip_ids)))}.values()
    )
    queries.sort()
    predicted = evaluator.predictions.embeds[queries]
    captions = list(dict.fromkeys(audio_features.captions))
    where = {caption: i for i, caption in enumerate(captions)}
    captions_by_label: dict[str, set[int]] = defaultdict(set)
    for label, caption in zip(audio_features.labels, audio_features.captions, strict=True):
        captions_by_label[label].add(where[caption])
    caption_targets = evaluator.head.statistics().standardize(
        evaluator.caption_embeds.rows(captions).embeds
    )
    relevant = [sorted(captions_by_label[audio_features.labels[i]]) for i in queries]
    found = _retrieval_both_directions("caption", predicted, caption_targets, relevant)
    if len(captions) != len(evaluator.class_names) or any(
        len(group) > 1 for group in captions_by_label.values()
    ):
        place = {name: i for i, name in enumerate(evaluator.class_names)}
        relevant = [[place[audio_features.labels[i]]] for i in queries]
        found |= _retrieval_both_directions("class", predicted, evaluator.class_embeds, relevant)
    return found


def _retrieval_both_directions(
    kind: str, predicted: torch.Tensor, candidates: RowLookup, relevant: list[list[int]]
) -> dict[str, Estimate]:
    results: dict[str, Any] = load_metric("retrieval").compute(
        predictions=scores(predicted, candidates).numpy(), references=relevant, per_query=True
    )
    ways = {
        "forward": (f"audio_to_{kind}", len(candidates)),
        "backward": (f"{kind}_to_audio", len(predicted)),
    }
    found = {}
    for name, values in results.items():
        way, measure = name.split("_")
        title, count = ways[way]
        if measure.startswith("R@"):
            if int(measure[2:]) < count:
                found[f"{title}_{measure}"] = Estimate.proportion([bool(v) for v in values])
        elif count > 1:
            found[f"{title}_{measure}"] = Estimate.mean(torch.tensor(values), 0, 1)
    return found


class GenerationOptions(Protocol):
    """Options of image generation and classification during evaluation."""

    num_images: int
    image_classifier: str
    num_sheet_samples: int


def generate_sample_sheet(
    evaluator: AlignmentEvaluator, image_generator: ImageGenerator, path: Path
) -> None:
    """Writes a sheet with every clip's spectrogram and the images from its audio and caption."""
    rows = list(range(len(evaluator.audio_features)))
    unconditional = evaluator.head.unconditional(len(rows))
    text = evaluator.caption_prompt_embeds(evaluator.audio_features.captions)
    images = {
        "from audio": image_generator.generate(evaluator.prompt_embeds(rows), unconditional, rows),
        "from caption": image_generator.generate(text, unconditional, rows),
    }
    features = [
        evaluator.processor.spectrogram(row[0]) for row in evaluator.audio_features.features
    ]
    save_sample_sheet(path, features, evaluator.audio_features.captions, images)


def evaluate_all(
    evaluator: AlignmentEvaluator,
    image_generator: ImageGenerator | None,
    evaluation: GenerationOptions,
    sample_sheet: Path | None,
) -> dict[str, Estimate]:
    """Computes all metrics and writes a sample sheet if a path is given.

    Args:
        evaluator: Predictions and targets of a dataset.
        image_generator: Pipeline that generates images; None for embedding metrics only.
        evaluation: Number of images, classifier and number of samples.
        sample_sheet: Path of the sample sheet's PNG file, or None.

    Raises:
        ValueError: The image classifier is unknown.
    """
    metrics = evaluator.embed_metrics() | embed_distances(evaluator) | retrieval_metrics(evaluator)
    if (
        evaluation.image_classifier != "none"
        and evaluation.image_classifier not in IMAGE_CLASSIFIERS
    ):
        raise ValueError(
            f"there is no image classifier {evaluation.image_classifier!r}; "
            f"there are: {', '.join(IMAGE_CLASSIFIERS)}, none"
        )
    if (
        image_generator is not None
        and evaluation.num_images
        and evaluation.image_classifier != "none"
    ):
        image_classifier = lookup(IMAGE_CLASSIFIERS, evaluation.image_classifier)()
        metrics |= evaluator.image_metrics(image_generator, image_classifier, evaluation.num_images)
    if image_generator is not None and evaluation.num_sheet_samples and sample_sheet is not None:
        rows = select_per_label(evaluator.audio_features.labels, evaluation.num_sheet_samples)
        generate_sample_sheet(evaluator.select(rows), image_generator, sample_sheet)
    return metrics
