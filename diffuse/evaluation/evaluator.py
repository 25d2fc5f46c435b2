"""What an adapter is worth: the pictures of sounds that nobody trained on, before a judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from PIL import Image

from align.evaluation.statistics import Measured
from diffuse.data.pairs import Pairs
from diffuse.evaluation.generation import Drawing
from diffuse.models.levels import swap_level

AND = " + "  # between the things of a label that names two


class Seen(Protocol):
    """What a judge sees in one picture."""

    near: str
    far: str | None
    scene: str


class PictureJudge(Protocol):
    """Whoever can say what pictures show."""

    def look(self, images: Sequence[Image.Image]) -> Sequence[Any]:
        """A `Seen` for each picture."""
        ...


@dataclass
class Examination:
    """Held-out pairs, an adapter that draws them, and a judge.

    Attributes:
        drawing: draws row i of its `prepared`.
        pairs: of which `drawing.prepared.kept` are the rows.
        judge: looks at pictures.
    """

    drawing: Drawing
    pairs: Pairs
    judge: PictureJudge

    def _of(self, column: Sequence[Any]) -> list[Any]:
        return [column[i] for i in self.drawing.prepared.kept]

    def rows(self, count: int, things: int) -> list[int]:
        """Up to `count` rows whose label names so many things, spread evenly."""
        labels = self._of(self.pairs.labels)
        fit = [i for i, label in enumerate(labels) if label.count(AND) + 1 == things]
        if count >= len(fit):
            return fit
        return [fit[i * len(fit) // count] for i in range(count)]

    def things(self, rows: Sequence[int]) -> list[list[str]]:
        """What each row's label names, the near thing first."""
        labels = self._of(self.pairs.labels)
        return [labels[i].split(AND) for i in rows]

    def hearing(self, count: int) -> dict[str, Measured]:
        """Sounds of one thing, asked by prompts that do not name it; then at audio scale 0.

        Beside them the alignment alone: the sound's prompt embeds in the text's place.
        """
        rows = self.rows(count, 1)
        if not rows:
            return {}
        near = [names[0] for names in self.things(rows)]
        prompts, scenes = self._of(self.pairs.prompts), self._of(self.pairs.scenes)
        asked = [prompts[i] for i in rows]
        seeds = list(range(len(rows)))
        drawing = self.drawing
        levels = drawing.levels(rows)
        heard = self.judge.look(drawing.from_texts(asked, seeds, levels, "with the sound"))
        drawing.attached.set_audio_scale(0.0)
        unheard = self.judge.look(drawing.from_texts(asked, seeds, levels, "at audio scale 0"))
        drawing.attached.set_audio_scale(1.0)
        swapped = self.judge.look(drawing.from_embeds(rows, seeds, "embeds swapped"))
        found = {
            "right_object": _share_near(heard, near),
            "right_object_scale0": _share_near(unheard, near),
            "right_object_embeds_swapped": _share_near(swapped, near),
        }
        told = [(i, scenes[row]) for i, row in enumerate(rows) if scenes[row]]
        if told:
            right = [heard[i].scene == scene for i, scene in told]
            before = [swapped[i].scene == scene for i, scene in told]
            found["right_scene"] = Measured.share(right)
            found["right_scene_embeds_swapped"] = Measured.share(before)
        return found

    def fidelity(self, count: int, clip: str) -> tuple[dict[str, Measured], dict[str, float]]:
        """Sounds of one thing by their prompts: IIS, AIC, AIS; FID and KID to the pairs' images.

        Raises:
            OSError: there is no such CLIP.
            ValueError: there are too few pairs.
        """
        from diffuse.data.images import fit, open_image
        from diffuse.evaluation.clip_metrics import Eyes, distances, fitting, hearing

        eyes, rows, drawing = Eyes(clip), self.rows(count, 1), self.drawing
        prompts = self._of(self.pairs.prompts)
        drawn = drawing.from_texts(
            [prompts[i] for i in rows], list(range(len(rows))), drawing.levels(rows), "for CLIP"
        )
        kept = drawing.prepared.kept
        real = [open_image(self.pairs.rows[kept[i]]["image"]) for i in rows]
        real = [fit(image, drawn[0].width) for image in real]
        labels = [names[0] for names in self.things(rows)]
        found = fitting(eyes, real, drawn, labels)
        null = drawing.texts.null[0][None]
        found |= hearing(eyes, drawn, drawing.heard(rows).embeds, null)
        return found, distances(eyes, real, drawn)

    def text_alone(self, count: int, before: Any) -> dict[str, Measured]:
        """Pictures of whole captions by the base, and by it with the adapter attached and silent.

        Args:
            count: pictures each way, seed by seed the same.
            before: an `Artist` of the base without an adapter.
        """
        drawing, labels = self.drawing, self._of(self.pairs.labels)
        captions = [texts[0] for texts in self._of(self.pairs.captions)]
        chosen = [i % len(labels) for i in range(count)]
        if not chosen:
            return {}
        texts = [captions[i] for i in chosen]
        near = [labels[i].split(AND)[0] for i in chosen]
        seeds = [10_000 + i for i in range(count)]
        plain = Drawing(before, drawing.attached, drawing.texts, drawing.prepared)
        return {
            "text_right_before": _share_near(
                self.judge.look(plain.from_texts(texts, seeds, None, "text, before")), near
            ),
            "text_right_after": _share_near(
                self.judge.look(drawing.from_texts(texts, seeds, None, "text, after")), near
            ),
        }

    def mixtures(self, count: int) -> dict[str, Measured]:
        """Sounds of two things, and each level swapped alone for that of another mixture."""
        rows = self.rows(count, 2)
        if len(rows) < 2:
            return {}
        drawing, pairs = self.drawing, self.things(rows)
        prompts = self._of(self.pairs.prompts)
        asked, seeds = [prompts[i] for i in rows], list(range(len(rows)))
        levels = drawing.levels(rows)
        seen = self.judge.look(drawing.from_texts(asked, seeds, levels, "mixtures"))
        found = _two(seen, pairs, "mixture")
        for level in ("foreground", "background"):
            others = [_other(i, pairs, level) for i in range(len(rows))]
            tokens = swap_level(levels, levels[others], level)
            wanted = [
                [pairs[o][0], p[1]] if level == "foreground" else [p[0], pairs[o][1]]
                for o, p in zip(others, pairs, strict=True)
            ]
            seen = self.judge.look(drawing.from_texts(asked, seeds, tokens, f"{level} swapped"))
            found |= _two(seen, wanted, f"{level}_swapped")
        return found

    def disagreeing(self, count: int) -> dict[str, Measured]:
        """A text that names one thing and the sound of another: the share that shows both.

        The text is the whole caption of another pair of one thing. They are composed as what
        contradicts each other is: the sound's thing behind the text's.
        """
        rows = self.rows(count, 1)
        near = [names[0] for names in self.things(rows)]
        captions = self._of(self.pairs.captions)
        caption_of = {name: captions[row][0] for row, name in zip(rows, near, strict=True)}
        names = sorted(caption_of)
        if len(names) < 2:
            return {}
        said = [_another(name, i, names) for i, name in enumerate(near)]
        drawing = self.drawing
        images = drawing.from_texts(
            [caption_of[name] for name in said], list(range(len(rows))),
            drawing.behind(drawing.levels(rows)), "text and sound disagree",
        )  # fmt: skip
        shown = [{seen.near, seen.far} for seen in self.judge.look(images)]
        cases = list(zip(shown, near, said, strict=True))
        return {
            "disagreeing_sound_seen": Measured.share([heard in s for s, heard, _ in cases]),
            "disagreeing_text_seen": Measured.share([text in s for s, _, text in cases]),
            "disagreeing_both_seen": Measured.share([{a, b} <= s for s, a, b in cases]),
        }


def _other(row: int, pairs: Sequence[Sequence[str]], level: str) -> int:
    """The next mixture whose level holds a thing that row's mixture does not hold at all."""
    place = 0 if level == "foreground" else 1
    following = [(row + step) % len(pairs) for step in range(1, len(pairs))]
    return next((i for i in following if pairs[i][place] not in pairs[row]), following[0])


def _another(name: str, turn: int, names: Sequence[str]) -> str:
    """A name other than this one, another at every turn."""
    others = [other for other in names if other != name]
    return others[turn % len(others)]


def _share_near(seen: Sequence[Any], near: Sequence[str]) -> Measured:
    return Measured.share([s.near == name for s, name in zip(seen, near, strict=True)])


def _two(seen: Sequence[Any], pairs: Sequence[Sequence[str]], name: str) -> dict[str, Measured]:
    cases = list(zip(seen, pairs, strict=True))
    front = [s.near == p[0] for s, p in cases]
    behind = [s.far == p[1] for s, p in cases]
    return {
        f"{name}_front": Measured.share(front),
        f"{name}_behind": Measured.share(behind),
        f"{name}_both": Measured.share([a and b for a, b in zip(front, behind, strict=True)]),
    }
