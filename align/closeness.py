"""How close a listener's embeds come to those of the captions: distances, and retrieval.

Both are asked of the project's own metrics for `evaluate` (`align.metrics`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

from align.measures import Measured
from align.metrics import load_metric

if TYPE_CHECKING:
    from align.examine import Examination

DISTANCES = ("euclidean", "cosine", "mse")
AT_ONCE = 4_000_000  # numbers handed to a metric at a time, which holds them as Python's own


def distances(seen: Examination) -> dict[str, Measured]:
    """Euclidean distance, plain cosine and MSE of whole prompt embeds to the captions' own.

    Of the prompt embeds as the pipeline reads them, not standardised.
    """
    metric = load_metric("alignment")
    statistics = seen.head.statistics()
    about = {"centre": statistics.mean.flatten(), "spread": statistics.spread.flatten()}
    rows = seen.standardised.embeds
    ours = statistics.restore(rows).flatten(1)
    theirs = seen.table.prompts.embeds[seen.table.index(seen.heard.captions)].flatten(1)
    found: dict[str, list[float]] = defaultdict(list)
    step = max(1, AT_ONCE // ours.shape[1])
    for start in range(0, len(ours), step):
        part = slice(start, start + step)
        answer = metric.compute(
            predictions=ours[part].numpy(), references=theirs[part].numpy(), per_row=True, **about
        )
        for name in DISTANCES:
            found[name] += answer[name]
    return {name: Measured.mean(torch.tensor(values)) for name, values in found.items()}


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
    answers = seen.standardised.embeds[sounds].flatten(1)
    captions = list(dict.fromkeys(heard.captions))
    where = {caption: i for i, caption in enumerate(captions)}
    said: dict[str, set[int]] = defaultdict(set)
    for label, caption in zip(heard.labels, heard.captions, strict=True):
        said[label].add(where[caption])
    own = seen.table.prompts.embeds[seen.table.index(captions)]
    own = seen.head.statistics().standardise(own).flatten(1)
    right = [sorted(said[heard.labels[i]]) for i in sounds]
    found = _both_ways("caption", answers, own, right)
    if len(captions) != len(seen.names) or any(len(group) > 1 for group in said.values()):
        right = [[seen.names.index(heard.labels[i])] for i in sounds]
        found |= _both_ways("class", answers, seen.classes.flatten(1), right)
    return found


def _both_ways(
    kind: str, answers: torch.Tensor, candidates: torch.Tensor, right: list[list[int]]
) -> dict[str, Measured]:
    scores = F.normalize(answers, dim=1) @ F.normalize(candidates, dim=1).T
    answer: dict[str, Any] = load_metric("retrieval").compute(
        predictions=scores.numpy(), references=right, per_query=True
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
            found[f"{title}_{measure}"] = _within_one(Measured.mean(torch.tensor(values)))
    return found


def _within_one(figure: Measured) -> Measured:
    # The normal interval of few cases reaches beyond what a precision can be.
    return replace(figure, low=max(0.0, figure.low), high=min(1.0, figure.high))
