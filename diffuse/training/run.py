"""A training of the UNet from its options to its figures."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from transformers import set_seed

from align.evaluation.generation import Artist
from align.evaluation.statistics import Measured
from align.models.encoder import load_encoder
from align.models.weights import save_file
from align.prompts.loading import load_picture_side
from align.prompts.space import PromptSpace
from align.registry import JUDGES, lookup
from align.training.checkpoints import last_checkpoint
from diffuse.config.arguments import ModelArguments
from diffuse.config.stages import Stage, check_gates, read_stages
from diffuse.data.pairs import Pairs, held_out_pairs, training_pairs
from diffuse.data.preprocessing import Prepared, cache_of, prepare
from diffuse.data.text_embeds import Texts, encode_texts, wanted_tokens
from diffuse.evaluation.evaluator import Examination
from diffuse.evaluation.generation import Drawing, draw_sheet, features_of, sample_rows
from diffuse.models.adapter import SoundAdapter
from diffuse.models.attach import Attachment, attach
from diffuse.models.configuration import AdapterConfig
from diffuse.models.memory import LevelRecall
from diffuse.models.saving import load
from diffuse.training.callbacks import Average, Sampling, Wholeness
from diffuse.training.checkpoints import (
    DONE,
    WHOLE,
    begin,
    check_pairs,
    check_run,
    told_pairs,
)
from diffuse.training.datasets import Dropout, TrainingPairs
from diffuse.training.losses import Criterion
from diffuse.training.model import HearingUNet
from diffuse.training.trainer import STATE, DiffuseTrainer

if TYPE_CHECKING:
    from diffuse.config.options import Options


TEXT_SHARE = 2  # of --pictures: one of so many is drawn from text alone, before and after


@dataclass
class Session:
    """Everything a run holds; `open` makes it, `train` uses it."""

    options: Options
    stages: list[Stage]
    space: PromptSpace
    pipeline: Any
    attached: Attachment
    pairs: Pairs
    prepared: Prepared
    held_out: Pairs
    unseen: Prepared
    texts: Texts
    measured_on: str
    encoder: Any
    named: str  # as `told_pairs` names the pairs

    @classmethod
    def open(cls, options: Options) -> Session:
        """Loads models and data, and computes what is computed once.

        Raises:
            DataError: the data cannot be used.
            OSError: a model does not exist.
            ValueError: options contradict each other.
        """
        model, given = options.model, options.training
        stages = read_stages(options.loss.stages)
        check_gates(stages, model.adapter is not None)
        folder = Path(given.output_dir or ".")
        check_run(folder, options)
        set_seed(given.seed)
        pairs = training_pairs(options.data)
        held_out, measured_on = held_out_pairs(options.data)
        named = told_pairs(pairs)
        check_pairs(folder, options, named)
        if given.process_index == 0:
            print(pairs.report(), flush=True)
        encoder = load_encoder(model.encoder)
        pipeline = load_picture_side(model.base, dtype=torch.float32)
        if getattr(pipeline, "unet", None) is None:
            raise ValueError(f"{model.base} draws without a UNet: sound is heard by UNets alone")
        adapter = new_adapter(model, pipeline.unet, encoder)
        preparation = prepare(options.data, pipeline, encoder, given.seed, given.device)
        space = PromptSpace.from_pretrained(model.base)
        # The other processes find in the cache what the first one computed.
        with given.main_process_first(local=False, desc="latents, tokens and texts"):
            prepared = preparation.of(pairs, "pairs to train on")
            fresh, unseen = pairs, prepared
            if held_out is not None:
                fresh, unseen = held_out, preparation.of(held_out, "pairs to measure on")
            texts = encode_texts(space, [pairs, fresh], cache_of(options.data))
        pipeline.unet.to(given.device, torch.bfloat16 if given.bf16 else torch.float32)
        attached = attach(pipeline, adapter)
        session = cls(
            options, stages, space, pipeline, attached, pairs, prepared, fresh, unseen, texts,
            measured_on, encoder, named,
        )  # fmt: skip
        session._check_parts()
        session._remember_phrases()
        return session

    @property
    def folder(self) -> Path:
        """Where results go."""
        return Path(self.options.training.output_dir or ".")

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes and says things."""
        return bool(self.options.training.process_index == 0)

    @property
    def adapter(self) -> SoundAdapter:
        """The one that trains."""
        return next(iter(self.attached.adapters.values()))

    @property
    def substitutes(self) -> bool:
        """Whether the level tokens were trained to stand in the text's place."""
        return self.stages[-1].loss == "substitution"

    def _check_parts(self) -> None:
        """Refuses a stage that would train what this adapter does not have, before any trains."""
        for stage in self.stages:
            self.attached.train_only(*stage.trains)

    def train(self) -> None:
        """Trains all stages, or goes on where a killed run stopped, and saves the adapter."""
        with self.options.training.main_process_first(local=False, desc="folder"):
            if self.is_main:
                begin(self.folder, self.options, self.named)
        model = HearingUNet(self.pipeline.unet, self.adapter)
        for number, stage in enumerate(self.stages, 1):
            folder = self.folder / f"stage-{number}-{stage.name}"
            if (folder / DONE).exists():
                print(f"stage {number} ({stage.name}) is done: {folder}", flush=True)
                model.set_trained(load_file(folder / STATE))
                continue
            print(f"stage {number} ({stage.name}) trains {', '.join(stage.trains)}", flush=True)
            self._train_stage(model, stage, folder)
        if self.is_main:
            self.attached.save(self.folder)

    def _train_stage(self, model: HearingUNet, stage: Stage, folder: Path) -> None:
        trainer = self.trainer(model, stage, folder)
        given = self.options.training.given_checkpoint
        last = last_checkpoint(folder, WHOLE)
        if given is not None and given.resolve().parent == folder.resolve():
            last = given
        if last is not None:
            print(f"going on from {last}", flush=True)
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        if trainer.average is not None:
            trainer.average.settle()
        if self.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            save_file({k: v.cpu().contiguous() for k, v in model.trained().items()}, folder / STATE)
            (folder / DONE).touch()

    def trainer(self, model: HearingUNet, stage: Stage, folder: Path) -> DiffuseTrainer:
        """The trainer of a stage."""
        args = copy.copy(self.options.training)
        args.output_dir = str(folder)
        args.max_steps = stage.steps or args.max_steps
        args.learning_rate = stage.learning_rate or args.learning_rate
        weights = self.attached.train_only(*stage.trains)
        callbacks: list[Any] = [Wholeness()]
        average = Average(weights, args.ema_decay) if args.ema_decay else None
        if args.draw_every_evaluation and self.options.evaluation.samples:
            callbacks.append(Sampling(self.draw_samples, average))
        return DiffuseTrainer(
            model=model,
            args=args,
            criterion=self._criterion(stage),
            balanced=self.options.data.balanced,
            average=average,
            train_dataset=self.rows(self.pairs, self.prepared),
            eval_dataset=self.rows(self.held_out, self.unseen),
            callbacks=callbacks,
        )

    def _criterion(self, stage: Stage) -> Criterion:
        wanted, known = wanted_tokens(self.adapter, self.pairs, self.prepared, self.texts)
        if stage.loss == "alignment" and not known.any():
            raise ValueError(
                f"stage {stage.name!r} aligns level tokens with phrases, and the data have none: "
                "give captions, or the columns foreground, background and ambience"
            )
        some = wanted[known].float() if known.any() else wanted.float()
        spread = self.adapter.projector.get_buffer("spread").detach().cpu()
        return Criterion(
            stage, self.options.loss, self.pipeline.scheduler, some.mean(0), spread.clone()
        )

    def draw_samples(self, sheet: Path) -> None:
        """Writes the sheet of the fixed sounds, as the adapter in training draws them."""
        given, pipeline = self.options.evaluation, self.pipeline
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(self.attached.unet.device)
        artist = Artist(pipeline, given.draw_steps, given.guidance)
        drawing = Drawing(artist, self.attached, self.texts, self.unseen, self.substitutes)
        mode = self.adapter.training
        self._draw_sheet(drawing, sheet)
        self.adapter.train(mode)

    def _draw_sheet(self, drawing: Drawing, sheet: Path) -> None:
        rows = sample_rows(drawing, self.held_out, self.options.evaluation.samples)
        features = features_of(self.encoder, self.held_out, self.unseen, rows)
        draw_sheet(drawing, self.held_out, features, rows, sheet)

    def measure(self) -> dict[str, Measured]:
        """The saved adapter's figures on the held-out pairs; its sheet goes to the folder."""
        given, base = self.options.evaluation, self.options.model.base
        if not (given.pictures and given.judge != "none") and not given.samples:
            return {}
        artist = Artist.from_pretrained(base, given.draw_steps, given.guidance)
        attached = attach(artist.pipeline, self.folder)
        drawing = Drawing(artist, attached, self.texts, self.unseen, self.substitutes)
        figures: dict[str, Measured] = {}
        if given.pictures and given.judge != "none":
            seen = Examination(drawing, self.held_out, lookup(JUDGES, given.judge)())
            figures = seen.hearing(given.pictures)
            before = Artist.from_pretrained(base, given.draw_steps, given.guidance)
            figures |= seen.text_alone(-(-given.pictures // TEXT_SHARE), before)
        if given.samples:
            self._draw_sheet(drawing, self.folder / "samples.png")
        return figures

    def _remember_phrases(self) -> None:
        """Has the adapter remember what its pairs' phrases ask for, as the options say.

        A saved adapter whose projector stays as it is keeps what it remembers.
        """
        given, adapter = self.options.recall, self.adapter
        learns = any("projector" in stage.trains for stage in self.stages)
        if self.options.model.adapter is not None and given.recall and not learns:
            return
        wanted, known = wanted_tokens(adapter, self.pairs, self.prepared, self.texts)
        spread = adapter.projector.get_buffer("spread").cpu()
        adapter.remember(LevelRecall.of(wanted[known], spread, given))

    def rows(self, pairs: Pairs, prepared: Prepared) -> TrainingPairs:
        """Pairs as a trainer reads them."""
        loss = self.options.loss
        return TrainingPairs(
            pairs,
            prepared,
            self.texts,
            wanted_tokens(self.adapter, pairs, prepared, self.texts),
            dropout=Dropout(
                loss.caption_dropout, loss.sound_dropout, loss.joint_dropout, loss.behind_share
            ),
            times=self.pipeline.scheduler.config.num_train_timesteps,
            seed=self.options.training.seed,
            weighted=loss.class_weighted,
        )


def new_adapter(model: ModelArguments, unet: Any, encoder: Any) -> SoundAdapter:
    """A fresh adapter as the options describe it, or the saved one that they start from."""
    if model.adapter is not None:
        return load(model.adapter)
    config = AdapterConfig(
        base=model.base,
        form=model.form,
        blocks=tuple(model.blocks),
        routing=model.routing,
        width=model.projector_width,
        depth=model.projector_depth,
        heads=model.projector_heads,
        lora_rank=model.lora_rank,
        lora_targets=tuple(model.lora_targets),
    )
    return SoundAdapter.of(unet, encoder, config)
