"""What an encoder is worth: embeds against captions, pictures against a judge."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch
from PIL import Image

from align.cache import Cache
from align.drawing import Artist
from align.encoder import AudioPromptEncoder
from align.features import Heard
from align.heads import Head
from align.listening import Ear, pad
from align.lookup import Targets, targets
from align.measures import Measured, centred_cosine, nearest
from align.prompts import Prompts, PromptSpace
from align.targets import HELD_BYTES, CaptionTable, Shares


class PictureJudge(Protocol):
    """Whoever can say whether pictures show what their labels say.

    One who knows only some labels says so in a method `knows(label)`; others are not drawn.
    """

    def right(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[bool]:
        """True for each picture that shows its label; what is unclear is not right."""
        ...


@dataclass
class Known:
    """The captions by label that an encoder was trained on: {label: [caption, ...]}.

    Repeated captions count as often as they stand there.

    Attributes:
        captions: see above.
        licences: how many of the recordings state which licence; empty where none do.
        rows: a name that follows from the rows; empty where that is not known.
    """

    captions: dict[str, list[str]]
    licences: dict[str, int] = field(default_factory=dict)
    rows: str = ""

    def with_rows(self, heard: Heard) -> Known:
        """These, and the labels of further rows that are not among them."""
        more = {label: list(texts) for label, texts in self.captions.items()}
        for label, caption in zip(heard.labels, heard.captions, strict=True):
            if label not in self.captions:
                more.setdefault(label, []).append(caption)
        return replace(self, captions=more)

    def plain(self, label: str) -> str:
        """The label's most frequent caption; of equally frequent ones, the alphabet's first."""
        counts = Counter(self.captions[label])
        return min(counts, key=lambda text: (-counts[text], text))


@dataclass
class Examination:
    """An encoder's answers to recordings, beside what was asked.

    Attributes:
        heard: the recordings.
        standardised: (N, L, D) the encoder's embeds, and pooled.
        table: the captions' own embeds.
        names: K labels, with `classes` (K, L, D) their standardised mean embeds.
        classes: see names; read when they are asked for where they are many.
        known: captions by label.
        head: the space's head.
        ear: how the encoder hears.
    """

    heard: Heard
    standardised: Prompts
    table: CaptionTable
    names: list[str]
    classes: torch.Tensor | Targets
    known: Known
    head: Head
    ear: Ear

    @classmethod
    def of(
        cls,
        encoder: AudioPromptEncoder,
        space: PromptSpace,
        heard: Heard,
        known: Known,
        *,
        name: str | None = None,
        cache: Cache | None = None,
    ) -> Examination:
        """Listens to all recordings and encodes all captions.

        Args:
            encoder: what answers.
            space: in which.
            heard: the recordings.
            known: captions by label.
            name: of the space among the encoder's; its default one if not given.
            cache: where captions' embeds are kept if they are many; few are encoded anew, exact.
        """
        known = known.with_rows(heard)
        texts = [t for group in known.captions.values() for t in group]
        everything = {*texts, *heard.captions}
        many = 4 * len(everything) * space.unconditional.embeds[0].numel() > HELD_BYTES
        table = CaptionTable.of(space, texts + heard.captions, cache if many else None)
        labels = [label for label, group in known.captions.items() for _ in group]
        shares = Shares(table.index(texts), labels)
        head = copy.deepcopy(encoder.head(name)).cpu()  # the encoder stays where it is
        classes = targets(table.prompts.embeds, head.statistics(), shares)
        answered = answers(encoder, heard, space=name)
        return cls(heard, answered, table, shares.names, classes, known, head, encoder.ear)

    def embeds(self) -> dict[str, Measured]:
        """Class accuracy, centred cosine, and the cosine that a perfect listener reaches."""
        own = self.table.rows(self.heard.captions).embeds
        target = self.head.statistics().standardise(own)
        place = {name: i for i, name in enumerate(self.names)}
        wanted = torch.tensor([place[label] for label in self.heard.labels])
        best = nearest(self.standardised.embeds, self.classes)
        right = best == wanted
        # Several captions of one recording are not several cases.
        first = {name: i for i, name in reversed(list(enumerate(self.heard.recordings)))}
        guessed = self.table.rows(self.nearest_captions()).embeds
        guessed = self.head.statistics().standardise(guessed)
        return {
            "class_accuracy": Measured.share([bool(right[i]) for i in first.values()]),
            "centred_cosine": mean_cosine(self.standardised.embeds, target),
            "centred_cosine_nearest_caption": mean_cosine(guessed, target),
            # Who hears everything still cannot know the wording: the mean over a label's captions.
            "centred_cosine_oracle": mean_cosine(self.classes[wanted], target),
        }

    def only(self, rows: Sequence[int]) -> Examination:
        """The same examination of some of its recordings."""
        chosen = self.standardised.rows(torch.tensor(rows))
        return replace(self, heard=self.heard.only(rows), standardised=chosen)

    def prompts(self, rows: Sequence[int]) -> Prompts:
        """Prompt embeds of rows, from their sound."""
        chosen = torch.tensor(rows)
        pooled = self.standardised.pooled
        return self.head.prompts(
            self.standardised.embeds[chosen], None if pooled is None else pooled[chosen]
        )

    def text_prompts(self, captions: Sequence[str]) -> Prompts:
        """Prompt embeds of captions, as the pipeline's own text encoder gives them."""
        found = self.table.rows(captions)
        return Prompts(found.embeds, found.pooled, self.head.space.padding)

    def nearest_captions(self) -> list[str]:
        """The plain caption of the class nearest to each recording."""
        best = nearest(self.standardised.embeds, self.classes).tolist()
        return [self.known.plain(self.names[i]) for i in best]

    def pictures(self, artist: Artist, judge: PictureJudge, count: int) -> dict[str, Measured]:
        """Draws and judges `count` pictures three ways, seed by seed the same.

        From the sound; from its true caption, the ceiling; and from the caption nearest to the
        sound, which is what one would do without an alignment. Fewer pictures than recordings
        are of recordings spread evenly over the set; more draw every recording anew. Of what the
        judge does not know, nothing is drawn.
        """
        knows = getattr(judge, "knows", lambda label: True)
        known = [i for i, label in enumerate(self.heard.labels) if knows(label)]
        n = len(known)
        if not n:
            return {}
        places = (i * n // count if count < n else i % n for i in range(count))
        rows = [known[place] for place in places]
        seeds = list(range(count))
        labels = [self.heard.labels[i] for i in rows]
        guessed = self.nearest_captions()
        ways = {
            "right_pictures": self.prompts(rows),
            "right_pictures_text": self.text_prompts([self.heard.captions[i] for i in rows]),
            "right_pictures_nearest_caption": self.text_prompts([guessed[i] for i in rows]),
        }
        null = self.head.null(count)
        return {
            way: Measured.share(judge.right(artist.draw(prompts, null, seeds, title=way), labels))
            for way, prompts in ways.items()
        }


def mean_cosine(standardised: torch.Tensor, target: torch.Tensor) -> Measured:
    """The mean centred cosine of two (N, L, D), row by row."""
    return Measured.mean(centred_cosine(standardised, target), -1, 1)


@torch.no_grad()
def answers(
    encoder: AudioPromptEncoder, heard: Heard, batch_size: int = 32, space: str | None = None
) -> Prompts:
    """The encoder's standardised embeds of every row's recording, on the CPU."""
    encoder.eval()
    embeds, pooled = [], []
    sounds, which = heard.sounds()
    for start in range(0, len(sounds), batch_size):
        batch = pad(sounds[start : start + batch_size])
        out = encoder(**{k: v.to(encoder.device) for k, v in batch.items()}, space=space)
        embeds.append(out.embeds.float().cpu())
        if out.pooled is not None:
            pooled.append(out.pooled.float().cpu())
    found = Prompts(torch.cat(embeds), torch.cat(pooled) if pooled else None)
    return found if len(sounds) == len(heard) else found.rows(torch.tensor(which))


def flat(measured: dict[str, Measured]) -> dict[str, Any]:
    """Figures as they stand in metrics.json: each share, its interval, and its count."""
    out: dict[str, Any] = {}
    for name, figure in measured.items():
        out[name] = round(figure.value, 4)
        out[f"{name}_interval"] = [round(figure.low, 4), round(figure.high, 4)]
        out[f"{name}_n"] = figure.n
    return out


def as_table(measured: dict[str, Measured]) -> str:
    """Figures as a table for people."""
    width = max(len(name) for name in measured)
    lines = [
        f"{name:<{width}}  {m.value:7.3f}  [{m.low:.3f}, {m.high:.3f}]  {m.n:>6}"
        for name, m in measured.items()
    ]
    head = f"{'':<{width}}  {'value':>7}  {'95% interval':<14}  {'cases':>6}"
    return "\n".join([head, *lines])
