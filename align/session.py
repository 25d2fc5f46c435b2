"""A training run from its options to its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, set_seed

from align.augment import Scale
from align.backbones import kind_of
from align.batches import Extra, Recordings, Tokens, group_numbers
from align.beginning import begin, finish, tell_space
from align.cache import Cache
from align.cards import SHEET
from align.checkpoints import (
    Telling,
    check_rows,
    last_checkpoint,
    start_anew,
    told_options,
    told_rows,
)
from align.contradictions import check_together
from align.criterion import new_criterion
from align.data import Stream, extra_rows, held_out_rows, training_rows, training_stream
from align.data.choice import check_contrast
from align.distillation import KeyValueDistillation
from align.drawing import Artist
from align.encoder import AudioPromptEncoder
from align.examine import Examination, Known
from align.features import Heard, hear, joined
from align.measures import Measured
from align.origins import licence_counts
from align.outcome import examined, tell
from align.prompts import PromptSpace
from align.ranks import is_main, main_first
from align.recall import recalled
from align.samples import Samples
from align.several import measure_others, new_criteria
from align.streaming import StreamedRecordings
from align.targets import CaptionTable
from align.tokens import frozen_tokens
from align.trainer import AlignTrainer, mean_cosine

if TYPE_CHECKING:
    from align.train import Options


@dataclass
class Session:
    """Everything a run holds; `open` makes it, `train` and `measure` use it."""

    options: Options
    space: PromptSpace
    encoder: AudioPromptEncoder
    heard: Heard
    held_out: Heard
    measured_on: str
    known: Known
    artist: Artist | None
    checkpoint: Path | None  # to go on from
    cache: Cache
    stream: Stream | None = None  # of what is trained on, where it is not heard beforehand
    others: Sequence[PromptSpace] = ()  # further spaces that are learned
    watchers: Sequence[TrainerCallback] = ()  # of the training, beside its own
    own_rows: int = 0  # of `heard`; those of --extra_data stand behind them

    @classmethod
    def open(cls, options: Options) -> Session:
        """Loads models and data, and computes features.

        Raises:
            DataError: the data cannot be used.
            OSError: a model does not exist.
            ValueError: options contradict each other.
        """
        check_together(options)
        checkpoint = None
        if options.training.resume:
            folder = Path(options.training.output_dir or ".")
            checkpoint = last_checkpoint(folder, told_options(options))
        stream = training_stream(options.data) if options.data.streaming else None
        rows = training_rows(options.data) if stream is None else None
        extra = extra_rows(options.data)
        held_out, measured_on = held_out_rows(options.data)
        set_seed(options.training.seed)
        space, *others = map(PromptSpace.from_pretrained, options.model.base)
        encoder = begin(options.model, space, *others)
        cache = Cache.of(options.data.cache, options.data.cache_dir)
        hearing: dict[str, Any] = {"workers": options.data.workers, "cache": cache}
        if stream is not None:
            heard = Heard([], stream.captions, stream.labels, [])  # what is said of them is known
        else:
            heard = hear(encoder.ear, rows, title="train features", **hearing)
        own = Known({}, licence_counts(stream or rows, extra)).with_rows(heard)
        own_rows = len(heard)
        if extra is not None:
            heard = joined(heard, hear(encoder.ear, extra, title="extra features", **hearing))
        # Of what could be told apart, too little may be left once recordings are left out.
        check_contrast(options.data.data, heard.captions, heard.labels)
        own = replace(own, rows=told_rows(heard))
        if checkpoint is not None:
            check_rows(checkpoint, own.rows)
        fresh = heard
        if held_out is not None:
            fresh = hear(encoder.ear, held_out, title="test features", **hearing)
        draws = options.evaluation.pictures or options.evaluation.samples
        artist = None
        if draws or options.loss.distillation_weight:
            given = options.evaluation
            artist = Artist.from_pretrained(space.base, given.draw_steps, given.guidance)
        return cls(
            options, space, encoder, heard, fresh, measured_on, own, artist, checkpoint, cache,
            stream, others, own_rows=own_rows,
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """Where results go."""
        return Path(self.options.training.output_dir or ".")

    def train(self) -> None:
        """Trains, or goes on where a killed run stopped, and saves the encoder."""
        with main_first():
            trainer = self._trainer()
        last = None if self.checkpoint is None else str(self.checkpoint)
        if last is not None:
            print(f"going on from {last}", flush=True)
        elif is_main():
            start_anew(self.folder)
        trainer.train(resume_from_checkpoint=last)
        finish(self.encoder)
        if is_main():
            self.encoder.save_pretrained(self.folder)
            tell(self.folder, told_options(self.options), self.known)

    def measure(self) -> dict[str, Measured]:
        """The figures of the trained encoder; its sample sheet goes to the folder."""
        seen = Examination.of(self.encoder, self.space, self.held_out, self.known, cache=self.cache)
        sheet = self.folder / SHEET
        figures = examined(seen, self.artist, self.options.evaluation, sheet)
        return figures | measure_others(self)

    def _trainer(self) -> AlignTrainer:
        options, encoder = self.options, self.encoder
        everything = self.known.with_rows(self.heard).with_rows(self.held_out)
        captions = self.heard.captions + self.held_out.captions
        table = CaptionTable.of(self.space, captions, self.cache)
        own = table.only(self.heard.captions)
        tell_space(encoder.head(), own, self.space)
        distillation = None
        if options.loss.distillation_weight:
            assert self.artist is not None
            embeds = (block.embeds for block in own.blocks())
            distillation = KeyValueDistillation(self.artist.unet, embeds)
        criterion = new_criterion(
            options.loss, table, encoder.head(), everything.captions,
            lengths=self.space.lengths(table.captions), distillation=distillation,
        )  # fmt: skip
        others = new_criteria(self, captions, everything.captions)
        wanted = self._targets(self.heard, table, everything)
        for name, learned in {self.space.base: criterion, **others}.items():
            encoder.remember(recalled(learned, wanted, options.recall), name)
        frozen = options.model.train_backbone == "none"
        make = self._tokens if frozen else self._recordings
        callbacks: list[TrainerCallback] = [Telling(told_options(options), self.known)]
        if options.training.draw_every_evaluation and options.evaluation.samples:
            callbacks.append(Samples(self))
        callbacks += self.watchers
        return AlignTrainer(
            model=encoder,
            args=options.training,
            criterion=criterion,
            others=others,
            gradient_cache=options.training.gradient_cache,
            train_dataset=(
                self._streamed(table, everything)
                if self.stream is not None
                else make(self.heard, table, everything, True)
            ),
            eval_dataset=make(self.held_out, table, everything, False),
            compute_metrics=mean_cosine,
            callbacks=callbacks,
        )

    def _targets(self, heard: Heard, table: CaptionTable, everything: Known) -> torch.Tensor:
        if self.options.loss.target == "caption":
            return table.index(heard.captions)
        number = {label: i for i, label in enumerate(sorted(everything.captions))}
        return torch.tensor([number[label] for label in heard.labels])

    def _recordings(
        self, heard: Heard, table: CaptionTable, everything: Known, train: bool
    ) -> Recordings:
        return Recordings(
            heard,
            self._targets(heard, table, everything),
            self.options.augment if train else None,
            self._scale(),
            self.options.training.seed,
            self._caption_lengths(heard, train),
            self._extra() if train else None,
        )

    def _scale(self) -> Scale:
        ear = self.encoder.ear
        kind = kind_of(ear.model_type)
        return Scale(ear.bins, kind.log_scale, kind.normalised)

    def _streamed(self, table: CaptionTable, everything: Known) -> StreamedRecordings:
        assert self.stream is not None
        return StreamedRecordings(
            self.encoder.ear,
            self.stream,
            self._targets(self.heard, table, everything),
            group_numbers(self.heard.labels),
            self.options.augment,
            self._scale(),
            self.options.training.seed,
            self.options.data.workers,
        )

    def _tokens(self, heard: Heard, table: CaptionTable, everything: Known, train: bool) -> Tokens:
        store = frozen_tokens(
            self.encoder,
            heard,
            device=self.options.training.device,
            title="train tokens" if train else "test tokens",
            cache=self.cache,
        )
        targets, groups = self._targets(heard, table, everything), group_numbers(heard.labels)
        extra = self._extra() if train else None
        return Tokens(store, targets, groups, self._caption_lengths(heard, train), extra)

    def _extra(self) -> Extra | None:
        share = self.options.data.extra_share
        return Extra(self.own_rows, share) if share else None

    def _caption_lengths(self, heard: Heard, train: bool) -> list[int] | None:
        """By what rows come in order, where an order is asked for."""
        if not train or self.options.data.order != "caption_length":
            return None
        return [len(caption.split()) for caption in heard.captions]
