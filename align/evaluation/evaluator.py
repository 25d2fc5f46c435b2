"""What an encoder is worth: embeds against captions, pictures against a judge."""

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

from align.evaluation.generation import Artist, first_of_each, sample_sheet
from align.evaluation.metrics import load_metric
from align.evaluation.statistics import Measured, Rows, mean_cosine, nearest, scores
from align.hub.run_record import Known
from align.models.encoder import AudioPromptEncoder
from align.models.heads import Head
from align.models.processing import Ear, pad
from align.preprocessing.cache import Cache
from align.preprocessing.features import Heard
from align.preprocessing.text_embeds import HELD_BYTES, CaptionTable, Shares, Targets, targets
from align.prompts.embeds import Prompts
from align.prompts.space import PromptSpace
from align.registry import JUDGES, lookup


class PictureJudge(Protocol):
    """Whoever can say whether pictures show what their labels say.

    One who knows only some labels says so in a method `knows(label)`; others are not drawn.
    """

    def right(self, images: Sequence[Image.Image], labels: Sequence[str]) -> list[bool]:
        """True for each picture that shows its label; what is unclear is not right."""
        ...


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
        known = known.with_rows(heard.labels, heard.captions)
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


# What each can be, at least and at most.
DISTANCES = {"euclidean": (0.0, math.inf), "cosine": (-1.0, 1.0), "mse": (0.0, math.inf)}
AT_ONCE = 4_000_000  # numbers handed to a metric at a time, which holds them as Python's own


def distances(seen: Examination) -> dict[str, Measured]:
    """Euclidean distance, plain cosine and MSE of whole prompt embeds to the captions' own.

    Of the prompt embeds as the pipeline reads them, not standardised.
    """
    metric = load_metric("alignment")
    statistics = seen.head.statistics()
    about = {"centre": statistics.mean.flatten(), "spread": statistics.spread.flatten()}
    rows = seen.standardised.embeds
    found: dict[str, list[float]] = defaultdict(list)
    step = max(1, AT_ONCE // rows[0].numel())
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        ours = statistics.restore(rows[part]).flatten(1)
        theirs = seen.table.rows(seen.heard.captions[part]).embeds.flatten(1)
        answer = metric.compute(
            predictions=ours.numpy(), references=theirs.numpy(), per_row=True, **about
        )
        for name in DISTANCES:
            found[name] += answer[name]
    return {name: Measured.mean(torch.tensor(found[name]), *DISTANCES[name]) for name in DISTANCES}


def retrieval(seen: Examination) -> dict[str, Measured]:
    """R@1, R@5, R@10 and mAP@10 by centred cosine, both ways, by caption and by class.

    By caption, the candidates are the different captions of what was heard; right ones are those
    of the recording's label, which say the same. By class, they are the labels' mean embeds;
    this is left out where it would ask the same again, each label having one caption.
    A figure that cannot fail, such as R@10 among ten, is left out.
    """
    heard = seen.heard
    # A recording that stands in several rows, a caption each, is one query.
    sounds = list({place: i for i, place in reversed(list(enumerate(heard.recordings)))}.values())
    sounds.sort()
    answers = seen.standardised.embeds[sounds]
    captions = list(dict.fromkeys(heard.captions))
    where = {caption: i for i, caption in enumerate(captions)}
    said: dict[str, set[int]] = defaultdict(set)
    for label, caption in zip(heard.labels, heard.captions, strict=True):
        said[label].add(where[caption])
    own = seen.head.statistics().standardise(seen.table.rows(captions).embeds)
    right = [sorted(said[heard.labels[i]]) for i in sounds]
    found = _both_ways("caption", answers, own, right)
    if len(captions) != len(seen.names) or any(len(group) > 1 for group in said.values()):
        place = {name: i for i, name in enumerate(seen.names)}
        right = [[place[heard.labels[i]]] for i in sounds]
        found |= _both_ways("class", answers, seen.classes, right)
    return found


def _both_ways(
    kind: str, answers: torch.Tensor, candidates: Rows, right: list[list[int]]
) -> dict[str, Measured]:
    answer: dict[str, Any] = load_metric("retrieval").compute(
        predictions=scores(answers, candidates).numpy(), references=right, per_query=True
    )
    ways = {
        "forward": (f"sound_to_{kind}", len(candidates)),
        "backward": (f"{kind}_to_sound", len(answers)),
    }
    found = {}
    for name, values in answer.items():
        way, measure = name.split("_")
        title, count = ways[way]
        if measure.startswith("R@"):
            if int(measure[2:]) < count:
                found[f"{title}_{measure}"] = Measured.share([bool(v) for v in values])
        elif count > 1:
            found[f"{title}_{measure}"] = Measured.mean(torch.tensor(values), 0, 1)
    return found


class Evaluation(Protocol):
    """The options that decide what is drawn and judged."""

    pictures: int
    judge: str
    samples: int


def draw_samples(examination: Examination, artist: Artist, path: Path) -> None:
    """Draws every recording of an examination, and its caption, into a sheet."""
    rows = list(range(len(examination.heard)))
    null = examination.head.null(len(rows))
    text = examination.text_prompts(examination.heard.captions)
    pictures = {
        "from the sound": artist.draw(examination.prompts(rows), null, rows),
        "from its caption": artist.draw(text, null, rows),
    }
    features = [examination.ear.spectrogram(row[0]) for row in examination.heard.features]
    sample_sheet(path, features, examination.heard.captions, pictures)


def examined(
    examination: Examination, artist: Artist | None, evaluation: Evaluation, sheet: Path | None
) -> dict[str, Measured]:
    """All figures of an examination, and its sample sheet where a path is given.

    Raises:
        ValueError: there is no such judge.
    """
    figures = examination.embeds() | distances(examination) | retrieval(examination)
    if evaluation.judge != "none" and evaluation.judge not in JUDGES:
        raise ValueError(
            f"there is no judge {evaluation.judge!r}; there are: {', '.join(JUDGES)}, none"
        )
    if artist is not None and evaluation.pictures and evaluation.judge != "none":
        judge = lookup(JUDGES, evaluation.judge)()
        figures |= examination.pictures(artist, judge, evaluation.pictures)
    if artist is not None and evaluation.samples and sheet is not None:
        rows = first_of_each(examination.heard.labels, evaluation.samples)
        draw_samples(examination.only(rows), artist, sheet)
    return figures
