"""Evaluate an audio adapter with an image classifier on held-out pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from align.evaluation.statistics import Estimate
from diffuse.data.pairs import AudioImagePairs
from diffuse.evaluation.generation import PairImageGenerator
from diffuse.models.levels import swap_level

LABEL_SEPARATOR = " + "  # between the sources of a label


class ImagePrediction(Protocol):
    """Prediction of an image classifier.

    Attributes:
        near: The foreground object.
        far: The background object, or None.
        scene: The scene.
    """

    near: str
    far: str | None
    scene: str


class ImageClassifier(Protocol):
    """Classifier of the objects and the scene of images."""

    def classify(self, images: Sequence[Image.Image]) -> Sequence[Any]:
        """Return an `ImagePrediction` for each image.

        Args:
            images: Images to classify.
        """
        ...


@dataclass
class UNetEvaluator:
    """Evaluates a UNet with an audio adapter on held-out pairs.

    Attributes:
        pair_generator: Generates images of the rows of its `prepared` pairs.
        pairs: Held-out pairs; `pair_generator.prepared.kept` are the rows in use.
        image_classifier: Classifies the generated images.
    """

    pair_generator: PairImageGenerator
    pairs: AudioImagePairs
    image_classifier: ImageClassifier

    def _select(self, column: Sequence[Any]) -> list[Any]:
        return [column[i] for i in self.pair_generator.prepared.kept]

    def select_rows(self, count: int, num_sources: int) -> list[int]:
        """Return rows whose label names a number of sources, evenly spaced.

        Args:
            count: Maximum number of rows.
            num_sources: Number of sources in the label.
        """
        labels = self._select(self.pairs.labels)
        fit = [
            i for i, label in enumerate(labels) if label.count(LABEL_SEPARATOR) + 1 == num_sources
        ]
        if count >= len(fit):
            return fit
        return [fit[i * len(fit) // count] for i in range(count)]

    def source_names(self, rows: Sequence[int]) -> list[list[str]]:
        """Return the sources of the label of each row, the foreground first.

        Args:
            rows: Rows to look up.
        """
        labels = self._select(self.pairs.labels)
        return [labels[i].split(LABEL_SEPARATOR) for i in rows]

    def audio_accuracy(self, count: int) -> dict[str, Estimate]:
        """Compute the accuracy on single-source clips with prompts that do not name the source.

        The baselines are an audio scale of 0, and the audio's prompt embeds without the adapter.

        Args:
            count: Maximum number of images per setting.
        """
        rows = self.select_rows(count, 1)
        if not rows:
            return {}
        foregrounds = [names[0] for names in self.source_names(rows)]
        prompts, scenes = self._select(self.pairs.prompts), self._select(self.pairs.scenes)
        row_prompts = [prompts[i] for i in rows]
        seeds = list(range(len(rows)))
        pair_generator = self.pair_generator
        levels = pair_generator.level_tokens(rows)
        with_audio = self.image_classifier.classify(
            pair_generator.generate_from_texts(row_prompts, seeds, levels, "with audio")
        )
        pair_generator.attached.set_audio_scale(0.0)
        without_audio = self.image_classifier.classify(
            pair_generator.generate_from_texts(row_prompts, seeds, levels, "audio scale 0")
        )
        pair_generator.attached.set_audio_scale(1.0)
        embeds_only = self.image_classifier.classify(
            pair_generator.generate_from_embeds(rows, seeds, "audio embeds only")
        )
        found = {
            "object_accuracy": _foreground_accuracy(with_audio, foregrounds),
            "object_accuracy_scale0": _foreground_accuracy(without_audio, foregrounds),
            "object_accuracy_embeds_only": _foreground_accuracy(embeds_only, foregrounds),
        }
        known_scenes = [(i, scenes[row]) for i, row in enumerate(rows) if scenes[row]]
        if known_scenes:
            adapter = [with_audio[i].scene == scene for i, scene in known_scenes]
            baseline = [embeds_only[i].scene == scene for i, scene in known_scenes]
            found["scene_accuracy"] = Estimate.proportion(adapter)
            found["scene_accuracy_embeds_only"] = Estimate.proportion(baseline)
        return found

    def clip_metrics(self, count: int, clip: str) -> tuple[dict[str, Estimate], dict[str, float]]:
        """Compute IIS, AIC and AIS, and FID and KID, on single-source clips with their prompts.

        Args:
            count: Maximum number of images.
            clip: CLIP model: short name, folder or Hub id.

        Raises:
            OSError: If there is no such CLIP model.
            ValueError: If there are too few pairs.
        """
        from diffuse.data.images import crop_square, open_image
        from diffuse.evaluation.clip_metrics import CLIPFeatures, ais, clip_distances, iis_and_aic

        clip_features, pair_generator = CLIPFeatures(clip), self.pair_generator
        rows = self.select_rows(count, 1)
        prompts = self._select(self.pairs.prompts)
        generated = pair_generator.generate_from_texts(
            [prompts[i] for i in rows],
            list(range(len(rows))),
            pair_generator.level_tokens(rows),
            "CLIP metrics",
        )
        kept = pair_generator.prepared.kept
        real = [open_image(self.pairs.rows[kept[i]]["image"]) for i in rows]
        real = [crop_square(image, generated[0].width) for image in real]
        labels = [names[0] for names in self.source_names(rows)]
        found = iis_and_aic(clip_features, real, generated, labels)
        unconditional = pair_generator.texts.unconditional[0][None]
        found |= ais(
            clip_features, generated, pair_generator.audio_conditioning(rows).embeds, unconditional
        )
        return found, clip_distances(clip_features, real, generated)

    def text_accuracy(self, count: int, base_generator: Any) -> dict[str, Estimate]:
        """Compute the accuracy on captions, without the adapter and with it attached (no audio).

        Args:
            count: Number of images per setting, generated from the same seeds.
            base_generator: `ImageGenerator` of the base model without an adapter.
        """
        pair_generator, labels = self.pair_generator, self._select(self.pairs.labels)
        captions = [texts[0] for texts in self._select(self.pairs.captions)]
        chosen = [i % len(labels) for i in range(count)]
        if not chosen:
            return {}
        texts = [captions[i] for i in chosen]
        foregrounds = [labels[i].split(LABEL_SEPARATOR)[0] for i in chosen]
        seeds = [10_000 + i for i in range(count)]
        base_pair_generator = PairImageGenerator(
            base_generator, pair_generator.attached, pair_generator.texts, pair_generator.prepared
        )
        return {
            "text_accuracy_before": _foreground_accuracy(
                self.image_classifier.classify(
                    base_pair_generator.generate_from_texts(
                        texts, seeds, None, "text, without adapter"
                    )
                ),
                foregrounds,
            ),
            "text_accuracy_after": _foreground_accuracy(
                self.image_classifier.classify(
                    pair_generator.generate_from_texts(texts, seeds, None, "text, with adapter")
                ),
                foregrounds,
            ),
        }

    def mixture_accuracy(self, count: int) -> dict[str, Estimate]:
        """Compute the accuracy on two-source clips, and with each level taken from another clip.

        Args:
            count: Maximum number of images per setting.
        """
        rows = self.select_rows(count, 2)
        if len(rows) < 2:
            return {}
        pair_generator, pairs = self.pair_generator, self.source_names(rows)
        prompts = self._select(self.pairs.prompts)
        row_prompts, seeds = [prompts[i] for i in rows], list(range(len(rows)))
        levels = pair_generator.level_tokens(rows)
        predictions = self.image_classifier.classify(
            pair_generator.generate_from_texts(row_prompts, seeds, levels, "mixtures")
        )
        found = _mixture_figures(predictions, pairs, "mixture")
        for level in ("foreground", "background"):
            others = [_other_mixture(i, pairs, level) for i in range(len(rows))]
            tokens = swap_level(levels, levels[others], level)
            expected = [
                [pairs[o][0], p[1]] if level == "foreground" else [p[0], pairs[o][1]]
                for o, p in zip(others, pairs, strict=True)
            ]
            predictions = self.image_classifier.classify(
                pair_generator.generate_from_texts(row_prompts, seeds, tokens, f"{level} swapped")
            )
            found |= _mixture_figures(predictions, expected, f"{level}_swapped")
        return found

    def contradictory_accuracy(self, count: int) -> dict[str, Estimate]:
        """Compute the accuracy with contradictory prompts and audio.

        The prompt is the caption of another single-source pair, and the audio is moved to the
        background, as for the relation "contradictory".

        Args:
            count: Maximum number of images.
        """
        rows = self.select_rows(count, 1)
        foregrounds = [names[0] for names in self.source_names(rows)]
        captions = self._select(self.pairs.captions)
        caption_of = {name: captions[row][0] for row, name in zip(rows, foregrounds, strict=True)}
        names = sorted(caption_of)
        if len(names) < 2:
            return {}
        text_names = [_other_name(name, i, names) for i, name in enumerate(foregrounds)]
        pair_generator = self.pair_generator
        images = pair_generator.generate_from_texts(
            [caption_of[name] for name in text_names], list(range(len(rows))),
            pair_generator.move_to_background(pair_generator.level_tokens(rows)), "contradictory",
        )  # fmt: skip
        predicted = [
            {prediction.near, prediction.far}
            for prediction in self.image_classifier.classify(images)
        ]
        cases = list(zip(predicted, foregrounds, text_names, strict=True))
        return {
            "contradictory_audio_accuracy": Estimate.proportion(
                [audio_name in names for names, audio_name, _ in cases]
            ),
            "contradictory_text_accuracy": Estimate.proportion(
                [text_name in names for names, _, text_name in cases]
            ),
            "contradictory_both_accuracy": Estimate.proportion(
                [{audio_name, text_name} <= names for names, audio_name, text_name in cases]
            ),
        }


def _other_mixture(row: int, pairs: Sequence[Sequence[str]], level: str) -> int:
    """Return the next mixture whose source at a level is not in the mixture of the row."""
    index = 0 if level == "foreground" else 1
    following = [(row + step) % len(pairs) for step in range(1, len(pairs))]
    return next((i for i in following if pairs[i][index] not in pairs[row]), following[0])


def _other_name(name: str, turn: int, names: Sequence[str]) -> str:
    """Return another name; successive turns cycle through all others."""
    others = [other for other in names if other != name]
    return others[turn % len(others)]


def _foreground_accuracy(predictions: Sequence[Any], foregrounds: Sequence[str]) -> Estimate:
    return Estimate.proportion(
        [prediction.near == name for prediction, name in zip(predictions, foregrounds, strict=True)]
    )


def _mixture_figures(
    predictions: Sequence[Any], pairs: Sequence[Sequence[str]], name: str
) -> dict[str, Estimate]:
    cases = list(zip(predictions, pairs, strict=True))
    foreground = [prediction.near == pair[0] for prediction, pair in cases]
    background = [prediction.far == pair[1] for prediction, pair in cases]
    return {
        f"{name}_foreground_accuracy": Estimate.proportion(foreground),
        f"{name}_background_accuracy": Estimate.proportion(background),
        f"{name}_both_accuracy": Estimate.proportion(
            [a and b for a, b in zip(foreground, background, strict=True)]
        ),
    }
