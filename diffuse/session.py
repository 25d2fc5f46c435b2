"""A training of the UNet from its options to its figures."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import set_seed

from align.bases import load_picture_side
from align.cache import Cache
from align.outcome import load_encoder
from align.prompts import PromptSpace
from diffuse.adapter import SoundAdapter
from diffuse.arguments import DataArguments, ModelArguments
from diffuse.attachment import Attachment, attach
from diffuse.averages import Average
from diffuse.batches import Dropout, Texts, TrainingPairs
from diffuse.configuration import AdapterConfig
from diffuse.criterion import Criterion
from diffuse.data import Pairs, held_out_pairs, training_pairs
from diffuse.folder import load
from diffuse.hearing import HearingUNet
from diffuse.latents import Preparation, Prepared
from diffuse.reading import Squares
from diffuse.runs import DONE, Wholeness, begin, check_pairs, last_checkpoint
from diffuse.samples import Sampling, features_of
from diffuse.stages import Stage, check_gates, read_stages
from diffuse.texts import encode_texts, remember_phrases, wanted_tokens
from diffuse.trainer import STATE, DiffuseTrainer

if TYPE_CHECKING:
    from diffuse.train import Options


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
        with given.main_process_first(local=False, desc="folder"):
            begin(folder, options, write=given.process_index == 0)
        set_seed(given.seed)
        pairs = training_pairs(options.data)
        held_out, measured_on = held_out_pairs(options.data)
        if given.process_index == 0:
            check_pairs(folder, pairs)
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
            measured_on, encoder,
        )  # fmt: skip
        session._check_parts()
        remember_phrases(session)
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
        last = last_checkpoint(folder)
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
            callbacks.append(Sampling(self, average))
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

    def sample_features(self, rows: list[int]) -> list[Any]:
        """What the sheet shows of held-out recordings."""
        return features_of(self.encoder, self.held_out, self.unseen, rows)

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


def prepare(
    data: DataArguments, pipeline: Any, encoder: Any, seed: int, device: torch.device
) -> Preparation:
    """What encodes pairs for a base, as the options ask.

    Raises:
        ValueError: the base cannot draw pictures of this size.
    """
    vae = pipeline.vae
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    size = data.resolution or pipeline.unet.config.sample_size * factor
    if size % factor:
        raise ValueError(f"--resolution must be a multiple of {factor} for this base, not {size}")
    squares = Squares(size, data.crops, data.flip, seed)
    return Preparation(vae, encoder, squares, device, cache_of(data), data.workers)


def cache_of(data: DataArguments) -> Cache:
    """Where what is computed once is kept."""
    return Cache.of(data.cache, data.cache_dir)
