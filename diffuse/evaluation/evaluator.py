"""What an adapter is worth: the pictures of sounds that nobody trained on, before a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from align.evaluation.statistics import Estimate
from diffuse.data.pairs import AudioImagePairs
from diffuse.evaluation.generation import PairImageGenerator
from diffuse.models.levels import swap_level

LABEL_SEPARATOR = " + "  # between the things of a label that names two


class ImagePrediction(Protocol):
    """What a judge sees in one picture."""

    near: str
    far: str | None
    scene: str


class ImageClassifier(Protocol):
    """Whoever can say what pictures show."""

    def classify(self, images: Sequence[Image.Image]) -> Sequence[Any]:
        """A `ImagePrediction` for each picture."""
        ...


@dataclass
class UNetEvaluator:
    """Held-out pairs, an adapter that draws them, and a judge.

    Attributes:
        drawing: draws row i of its `prepared`.
        pairs: of which `pair_generator.prepared.kept` are the rows.
        judge: looks at pictures.
    """

    pair_generator: PairImageGenerator
    pairs: AudioImagePairs
    image_classifier: ImageClassifier

    def _select(self, column: Sequence[Any]) -> list[Any]:
        return [column[i] for i in self.pair_generator.prepared.kept]

    def select_rows(self, count: int, num_sources: int) -> list[int]:
        """Up to `count` rows whose label names so many things, spread evenly."""
        labels = self._select(self.pairs.labels)
        fit = [
            i for i, label in enumerate(labels) if label.count(LABEL_SEPARATOR) + 1 == num_sources
        ]
        if count >= len(fit):
            return fit
        return [fit[i * len(fit) // count] for i in range(count)]

    def source_names(self, rows: Sequence[int]) -> list[list[str]]:
        """What each row's label names, the near thing first."""
        labels = self._select(self.pairs.labels)
        return [labels[i].split(LABEL_SEPARATOR) for i in rows]

    def audio_accuracy(self, count: int) -> dict[str, Estimate]:
        """Sounds of one thing, asked by prompts that do not name it; then at audio scale 0.

        Beside them the alignment alone: the sound's prompt embeds in the text's place.
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
            pair_generator.generate_from_texts(row_prompts, seeds, levels, "with the sound")
        )
        pair_generator.attached.set_audio_scale(0.0)
        without_audio = self.image_classifier.classify(
            pair_generator.generate_from_texts(row_prompts, seeds, levels, "at audio scale 0")
        )
        pair_generator.attached.set_audio_scale(1.0)
        embeds_only = self.image_classifier.classify(
            pair_generator.generate_from_embeds(rows, seeds, "embeds swapped")
        )
        found = {
            "object_accuracy": _foreground_accuracy(with_audio, foregrounds),
            "object_accuracy_scale0": _foreground_accuracy(without_audio, foregrounds),
            "object_accuracy_embeds_only": _foreground_accuracy(embeds_only, foregrounds),
        }
        known_scenes = [(i, scenes[row]) for i, row in enumerate(rows) if scenes[row]]
        if known_scenes:
            right = [with_audio[i].scene == scene for i, scene in known_scenes]
            before = [embeds_only[i].scene == scene for i, scene in known_scenes]
            found["scene_accuracy"] = Estimate.proportion(right)
            found["scene_accuracy_embeds_only"] = Estimate.proportion(before)
        return found

    def clip_metrics(self, count: int, clip: str) -> tuple[dict[str, Estimate], dict[str, float]]:
        """Sounds of one thing by their prompts: IIS, AIC, AIS; FID and KID to the pairs' images.

        Raises:
            OSError: there is no such CLIP.
            ValueError: there are too few pairs.
        """
        from diffuse.data.images import crop_square, open_image
        from diffuse.evaluation.clip_metrics import CLIPFeatures, ais, clip_distances, iis_and_aic

        clip_features, rows, pair_generator = (
            CLIPFeatures(clip),
            self.select_rows(count, 1),
            self.pair_generator,
        )
        prompts = self._select(self.pairs.prompts)
        generated = pair_generator.generate_from_texts(
            [prompts[i] for i in rows],
            list(range(len(rows))),
            pair_generator.level_tokens(rows),
            "for CLIP",
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
        """Pictures of whole captions by the base, and by it with the adapter attached and silent.

        Args:
            count: pictures each way, seed by seed the same.
            before: an `ImageGenerator` of the base without an adapter.
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
                    base_pair_generator.generate_from_texts(texts, seeds, None, "text, before")
                ),
                foregrounds,
            ),
            "text_accuracy_after": _foreground_accuracy(
                self.image_classifier.classify(
                    pair_generator.generate_from_texts(texts, seeds, None, "text, after")
                ),
                foregrounds,
            ),
        }

    def mixture_accuracy(self, count: int) -> dict[str, Estimate]:
        """Sounds of two things, and each level swapped alone for that of another mixture."""
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
        """A text that names one thing and the sound of another: the share that shows both.

        The text is the whole caption of another pair of one thing. They are composed as what
        contradicts each other is: the sound's thing behind the text's.
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
            pair_generator.move_to_background(pair_generator.level_tokens(rows)), "text and sound disagree",
        )  # fmt: skip
        predicted = [
            {prediction.near, prediction.far}
            for prediction in self.image_classifier.classify(images)
        ]
        cases = list(zip(predicted, foregrounds, text_names, strict=True))
        return {
            "contradictory_audio_accuracy": Estimate.proportion(
                [audio_name in s for s, audio_name, _ in cases]
            ),
            "contradictory_text_accuracy": Estimate.proportion([text in s for s, _, text in cases]),
            "contradictory_both_accuracy": Estimate.proportion([{a, b} <= s for s, a, b in cases]),
        }


def _other_mixture(row: int, pairs: Sequence[Sequence[str]], level: str) -> int:
    """The next mixture whose level holds a thing that row's mixture does not hold at all."""
    place = 0 if level == "foreground" else 1
    following = [(row + step) % len(pairs) for step in range(1, len(pairs))]
    return next((i for i in following if pairs[i][place] not in pairs[row]), following[0])


def _other_name(name: str, turn: int, names: Sequence[str]) -> str:
    """A name other than this one, another at every turn."""
    others = [other for other in names if other != name]
    return others[turn % len(others)]


def _foreground_accuracy(predictions: Sequence[Any], foregrounds: Sequence[str]) -> Estimate:
    return Estimate.proportion(
        [s.near == name for s, name in zip(predictions, foregrounds, strict=True)]
    )


def _mixture_figures(
    predictions: Sequence[Any], pairs: Sequence[Sequence[str]], name: str
) -> dict[str, Estimate]:
    cases = list(zip(predictions, pairs, strict=True))
    foreground = [s.near == p[0] for s, p in cases]
    background = [s.far == p[1] for s, p in cases]
    return {
        f"{name}_front": Estimate.proportion(foreground),
        f"{name}_behind": Estimate.proportion(background),
        f"{name}_both": Estimate.proportion(
            [a and b for a, b in zip(foreground, background, strict=True)]
        ),
    }
