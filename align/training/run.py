"""A training run from its options to its figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, set_seed

from align.data.licenses import licence_counts
from align.data.splits import (
    check_contrast,
    extra_rows,
    held_out_rows,
    training_rows,
    training_stream,
)
from align.data.streaming import Stream
from align.evaluation.evaluator import Examination, draw_samples, examined
from align.evaluation.generation import Artist, first_of_each
from align.evaluation.statistics import Measured
from align.hub.model_card import SHEET, TOLD
from align.hub.run_record import Known, tell
from align.losses.alignment import AlignmentLoss, new_criterion
from align.losses.distillation import KeyValueDistillation
from align.models.backbones.loading import kind_of
from align.models.encoder import AudioPromptEncoder
from align.preprocessing.audio_tokens import frozen_tokens
from align.preprocessing.cache import Cache
from align.preprocessing.features import Heard, hear, joined
from align.preprocessing.text_embeds import CaptionTable
from align.prompts.space import PromptSpace
from align.training.augmentation import Scale
from align.training.callbacks import Samples, Telling
from align.training.checkpoints import (
    check_rows,
    complete_checkpoints,
    recipe,
    remove,
    resumable,
    told_options,
    told_rows,
)
from align.training.datasets import Extra, Recordings, StreamedRecordings, Tokens, group_numbers
from align.training.distributed import is_main, main_first
from align.training.setup import begin, recalled, tell_space
from align.training.trainer import AlignTrainer, mean_cosine
from align.training.validation import check_together

if TYPE_CHECKING:
    from align.config.options import Options


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
        checkpoint = resumable(options)
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
        own = Known({}, licence_counts(stream or rows, extra))
        own = own.with_rows(heard.labels, heard.captions)
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
            remove(complete_checkpoints(self.folder, TOLD), self.folder)
        trainer.train(resume_from_checkpoint=last)
        self.encoder.merge_lora()
        if is_main():
            self.encoder.save_pretrained(self.folder)
            tell(self.folder, told_options(self.options), recipe(self.options), self.known)

    def measure(self) -> dict[str, Measured]:
        """The figures of the trained encoder; its sample sheet goes to the folder."""
        seen = Examination.of(self.encoder, self.space, self.held_out, self.known, cache=self.cache)
        sheet = self.folder / SHEET
        figures = examined(seen, self.artist, self.options.evaluation, sheet)
        for space in self.others:
            seen = Examination.of(
                self.encoder, space, self.held_out, self.known, name=space.base, cache=self.cache
            )
            figures |= {f"{figure} ({space.base})": v for figure, v in seen.embeds().items()}
        return figures

    def draw_samples(self, sheet: Path) -> None:
        """Writes the sheet of the fixed sample sounds, as the encoder answers now."""
        if self.artist is None or not is_main():
            return
        encoder, mode = self.encoder, self.encoder.training
        rows = first_of_each(self.held_out.labels, self.options.evaluation.samples)
        seen = Examination.of(encoder, self.space, self.held_out.only(rows), Known({}))
        draw_samples(seen, self.artist, sheet)
        encoder.train(mode)

    def _trainer(self) -> AlignTrainer:
        options, encoder = self.options, self.encoder
        everything = self.known.with_rows(self.heard.labels, self.heard.captions)
        everything = everything.with_rows(self.held_out.labels, self.held_out.captions)
        criterion, table = self._criterion(self.space, self.artist, everything)
        others = {space.base: self._criterion(space, None, everything)[0] for space in self.others}
        wanted = self._targets(self.heard, table, everything)
        for name, learned in {self.space.base: criterion, **others}.items():
            encoder.remember(recalled(learned, wanted, options.recall), name)
        frozen = options.model.train_backbone == "none"
        make = self._tokens if frozen else self._recordings
        telling = Telling(told_options(options), recipe(options), self.known)
        callbacks: list[TrainerCallback] = [telling]
        if options.training.draw_every_evaluation and options.evaluation.samples:
            callbacks.append(Samples(self.folder / "samples", self.draw_samples))
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

    def _criterion(
        self, space: PromptSpace, artist: Artist | None, everything: Known
    ) -> tuple[AlignmentLoss, CaptionTable]:
        """The loss of a prompt space, and its captions' embeds; its head gets their statistics.

        Args:
            space: the prompt space.
            artist: a pipeline of it whose UNet is distilled through; loaded if it is needed.
            everything: captions by label, of all rows.
        """
        loss, head = self.options.loss, self.encoder.head(space.base)
        captions = self.heard.captions + self.held_out.captions
        table = CaptionTable.of(space, captions, self.cache)
        own = table.only(self.heard.captions)
        tell_space(head, own, space)
        distillation = None
        if loss.distillation_weight:
            artist = artist or Artist.from_pretrained(space.base, 1, 1.0)
            distillation = KeyValueDistillation(artist.unet, (b.embeds for b in own.blocks()))
        criterion = new_criterion(
            loss, table, head, dict(everything.captions),
            lengths=space.lengths(table.captions), distillation=distillation,
        )  # fmt: skip
        return criterion, table

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
