"""Recordings that are heard as they come: training on more than disk and memory hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

from align.augment import AugmentArguments, Scale, augment
from align.data import Stream
from align.listening import Ear
from align.unusable import Unusable
from align.workers import WORTH_WORKERS, Answer, Listeners

if TYPE_CHECKING:
    from align.train import Options


def check_streaming(options: Options) -> None:
    """Refuses options that need recordings to be at hand.

    Raises:
        ValueError: there is one.
    """
    if options.data.eval_data is None and options.data.eval_folds is None:
        raise ValueError(
            "what is streamed is heard in training alone: say what to measure on, with --eval_data "
            "or with --folds and --eval_folds"
        )
    if options.augment.mix_same or options.augment.mix_other:
        raise ValueError("--mix_same and --mix_other need other recordings, a stream has none")
    if options.training.world_size > 1 or options.training.dataloader_num_workers:
        raise ValueError(
            "a stream is read by one process; --workers of them hear what it reads (leave out "
            "torchrun and --dataloader_num_workers)"
        )


class StreamedRecordings(IterableDataset):
    """Rows of a stream, their features computed when it is their turn and kept by nobody.

    An epoch has as many rows as the data set: where a recording cannot be used, the one before it
    is heard once more, so that a resumed run finds its place. Order and augmentation follow from
    seed, epoch and place.

    Args:
        ear: how the backbone hears.
        stream: N rows.
        targets: (N,) each row's caption, as a row of the caption table.
        groups: N.
        augmentation: what is changed; it cannot mix in other recordings, which are not there.
        scale: the features' layout.
        seed: of order and augmentation.
        workers: processes that hear what this one reads; few rows are heard by this one.
    """

    def __init__(
        self,
        ear: Ear,
        stream: Stream,
        targets: torch.Tensor,
        groups: Sequence[int],
        augmentation: AugmentArguments,
        scale: Scale,
        seed: int,
        workers: int = 1,
    ) -> None:
        self._stream, self._seed = stream, seed
        self._augmentation, self._scale = augmentation, scale
        said = zip(stream.captions, stream.labels, strict=True)
        asked = zip(targets, groups, strict=True)
        self._asked = dict(zip(said, asked, strict=True))
        self._listeners = Listeners(ear, workers if len(stream) >= WORTH_WORKERS else 1)
        self._epoch = 0
        self._told = False

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._stream)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """The epoch's rows.

        Raises:
            DataError: more than 5% of the recordings cannot be used.
        """
        bad = Unusable(len(self), called="the stream's number")
        owed, last, warned = 0, None, []
        for place, (answer, said) in enumerate(self._answers()):
            if answer.error:
                bad.add(place, answer.error)
                owed += 1
            else:
                warned += [answer.warning] if answer.warning else []
                target, group = self._asked[said]
                windows = self._changed(answer.windows, place)
                last = {"windows": windows, "target": target, "group": group}
            if last is None:
                continue
            # Those before the first good one wait for it.
            for _ in range(owed + (not answer.error)):
                yield last
            owed = 0
        if last is None:
            bad.check(0)
        if warned and not self._told:
            self._told = True
            print(f"{len(warned)} recordings are damaged or not heard whole: {warned[0]}")

    def _changed(self, windows: list[np.ndarray], place: int) -> list[np.ndarray]:
        windows = [np.asarray(window, np.float32) for window in windows]
        if not self._augmentation.active:
            return windows
        rng = np.random.default_rng([self._seed, self._epoch, place])
        return [augment(window, self._augmentation, self._scale, rng) for window in windows]

    def _answers(self) -> Iterator[tuple[Answer, tuple[str, str]]]:
        passing = self._stream.passing(self._seed, self._epoch)
        return self._listeners.answers(
            (sound, (caption, label)) for sound, caption, label in passing
        )
