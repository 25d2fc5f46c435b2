"""How close a listener's embeds come to those of the captions: distances, and retrieval.

Both are asked of the project's own metrics for `evaluate` (`align.metrics`).
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch

from align.measures import Measured, Rows, scores
from align.metrics import load_metric

if TYPE_CHECKING:
    from align.examine import Examination

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
