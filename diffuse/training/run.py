"""A run of `diffuse.train`, from its options to its metrics."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from transformers import set_seed

from align.evaluation.generation import ImageGenerator
from align.evaluation.statistics import Estimate
from align.models.encoder import load_encoder
from align.models.weights import save_file
from align.prompts.loading import load_image_side
from align.prompts.space import PromptSpace
from align.registry import IMAGE_CLASSIFIERS, lookup
from align.training.checkpoints import last_checkpoint
from diffuse.config.arguments import ModelArguments
from diffuse.config.stages import Stage, check_gates, parse_stages
from diffuse.data.pairs import AudioImagePairs, load_eval_pairs, load_train_pairs
from diffuse.data.preprocessing import PreprocessedPairs, build_preprocessor, cache_from
from diffuse.data.text_embeds import TextEmbeds, encode_texts, target_tokens
from diffuse.evaluation.evaluator import UNetEvaluator
from diffuse.evaluation.generation import (
    PairImageGenerator,
    sample_rows,
    save_pair_sheet,
    spectrograms_of,
)
from diffuse.models.adapter import SoundAdapter
from diffuse.models.attach import AttachedAdapters, attach
from diffuse.models.configuration import AdapterConfig
from diffuse.models.memory import LevelRetrievalMemory
from diffuse.models.saving import load_adapter
from diffuse.training.callbacks import CompletionCallback, EMACallback, SampleSheetCallback
from diffuse.training.checkpoints import (
    COMPLETE_MARKER,
    DONE_MARKER,
    check_pairs,
    check_run,
    pairs_fingerprint,
    start_run,
)
from diffuse.training.datasets import AudioImageDataset, ConditioningDropout
from diffuse.training.losses import StageLoss
from diffuse.training.model import UNetWithAudio
from diffuse.training.trainer import TRAINED_WEIGHTS_NAME, DiffuseTrainer

if TYPE_CHECKING:
    from diffuse.config.options import Options


# One in this many of --num_images is also generated from text only, before and after training.
TEXT_IMAGE_DIVISOR = 2


@dataclass
class TrainingRun:
    """A training run: create it with `from_options`, then call `train` and `evaluate`.

    Attributes:
        options: Options of the run.
        stages: Training stages in order.
        space: Prompt space of the base model.
        pipeline: Base model with the adapter attached.
        attached: Adapters attached to the UNet.
        train_pairs: Training pairs.
        train_tensors: Their preprocessed tensors.
        eval_pairs: Held-out pairs; the training pairs if there are none.
        eval_tensors: Their preprocessed tensors.
        texts: Text embeds of all captions and phrases.
        evaluated_on: Description of the held-out pairs.
        encoder: Audio encoder.
        fingerprint: Fingerprint of the training pairs.
    """

    options: Options
    stages: list[Stage]
    space: PromptSpace
    pipeline: Any
    attached: AttachedAdapters
    train_pairs: AudioImagePairs
    train_tensors: PreprocessedPairs
    eval_pairs: AudioImagePairs
    eval_tensors: PreprocessedPairs
    texts: TextEmbeds
    evaluated_on: str
    encoder: Any
    fingerprint: str

    @classmethod
    def from_options(cls, options: Options) -> TrainingRun:
        """Load models and data and preprocess the data.

        Args:
            options: Options of the run.

        Returns:
            The run.

        Raises:
            DataError: If the data cannot be used.
            OSError: If a model does not exist.
            ValueError: If options contradict each other.
        """
        model, training = options.model, options.training
        stages = parse_stages(options.loss.stages)
        check_gates(stages, model.init_from is not None)
        folder = Path(training.output_dir or ".")
        check_run(folder, options)
        set_seed(training.seed)
        pairs = load_train_pairs(options.data)
        eval_pairs, evaluated_on = load_eval_pairs(options.data)
        fingerprint = pairs_fingerprint(pairs)
        check_pairs(folder, options, fingerprint)
        if training.process_index == 0:
            print(pairs.summary(), flush=True)
        encoder = load_encoder(model.encoder)
        pipeline = load_image_side(model.base_model, dtype=torch.float32)
        if getattr(pipeline, "unet", None) is None:
            raise ValueError(
                f"{model.base_model} has no UNet: audio adapters require a base model with a UNet"
            )
        adapter = new_adapter(model, pipeline.unet, encoder)
        preprocessor = build_preprocessor(
            options.data, pipeline, encoder, training.seed, training.device
        )
        space = PromptSpace.from_pretrained(model.base_model)
        # The other processes read what the main process has computed from the cache.
        with training.main_process_first(local=False, desc="latents, tokens and text embeds"):
            prepared = preprocessor.preprocess(pairs, "training pairs")
            held_out, eval_tensors = pairs, prepared
            if eval_pairs is not None:
                held_out = eval_pairs
                eval_tensors = preprocessor.preprocess(eval_pairs, "evaluation pairs")
            texts = encode_texts(space, [pairs, held_out], cache_from(options.data))
        pipeline.unet.to(training.device, torch.bfloat16 if training.bf16 else torch.float32)
        attached = attach(pipeline, adapter)
        run = cls(
            options, stages, space, pipeline, attached, pairs, prepared, held_out, eval_tensors,
            texts, evaluated_on, encoder, fingerprint,
        )  # fmt: skip
        run._check_parameter_groups()
        run._build_retrieval_memory()
        return run

    @property
    def folder(self) -> Path:
        """Output directory of the run."""
        return Path(self.options.training.output_dir or ".")

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes files and prints."""
        return bool(self.options.training.process_index == 0)

    @property
    def adapter(self) -> SoundAdapter:
        """The adapter that is trained."""
        return next(iter(self.attached.adapters.values()))

    @property
    def replaces_text(self) -> bool:
        """Whether the last stage passes the level tokens in place of the text."""
        return self.stages[-1].loss == "text_replacement"

    def _check_parameter_groups(self) -> None:
        """Check before training that the adapter has all parameter groups of all stages."""
        for stage in self.stages:
            self.attached.train_only(*stage.trainable)

    def train(self) -> None:
        """Train all stages, or resume an interrupted run, and save the adapter."""
        with self.options.training.main_process_first(local=False, desc="folder"):
            if self.is_main:
                start_run(self.folder, self.options, self.fingerprint)
        model = UNetWithAudio(self.pipeline.unet, self.adapter)
        for number, stage in enumerate(self.stages, 1):
            folder = self.folder / f"stage-{number}-{stage.name}"
            if (folder / DONE_MARKER).exists():
                print(f"stage {number} ({stage.name}) is done: {folder}", flush=True)
                model.load_trained_state_dict(load_file(folder / TRAINED_WEIGHTS_NAME))
                continue
            print(f"stage {number} ({stage.name}) trains {', '.join(stage.trainable)}", flush=True)
            self._train_stage(model, stage, folder)
        if self.is_main:
            self.attached.save(self.folder)

    def _train_stage(self, model: UNetWithAudio, stage: Stage, folder: Path) -> None:
        trainer = self.build_trainer(model, stage, folder)
        given = self.options.training.given_checkpoint
        last = last_checkpoint(folder, COMPLETE_MARKER)
        if given is not None and given.resolve().parent == folder.resolve():
            last = given
        if last is not None:
            print(f"resuming from {last}", flush=True)
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        if trainer.ema is not None:
            trainer.ema.copy_to_model()
        if self.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(
                {k: v.cpu().contiguous() for k, v in model.trained_state_dict().items()},
                folder / TRAINED_WEIGHTS_NAME,
            )
            (folder / DONE_MARKER).touch()

    def build_trainer(self, model: UNetWithAudio, stage: Stage, folder: Path) -> DiffuseTrainer:
        """Build the trainer of a stage.

        Args:
            model: UNet with the adapter.
            stage: The stage.
            folder: Output directory of the stage.
        """
        args = copy.copy(self.options.training)
        args.output_dir = str(folder)
        args.max_steps = stage.max_steps or args.max_steps
        args.learning_rate = stage.learning_rate or args.learning_rate
        weights = self.attached.train_only(*stage.trainable)
        callbacks: list[Any] = [CompletionCallback()]
        ema = EMACallback(weights, args.ema_decay) if args.ema_decay else None
        if args.sample_every_eval and self.options.evaluation.num_sheet_samples:
            callbacks.append(SampleSheetCallback(self.generate_samples, ema))
        return DiffuseTrainer(
            model=model,
            args=args,
            stage_loss=self._build_loss(stage),
            class_balanced=self.options.data.class_balanced,
            ema=ema,
            train_dataset=self.build_dataset(self.train_pairs, self.train_tensors),
            eval_dataset=self.build_dataset(self.eval_pairs, self.eval_tensors),
            callbacks=callbacks,
        )

    def _build_loss(self, stage: Stage) -> StageLoss:
        targets, has_target = target_tokens(
            self.adapter, self.train_pairs, self.train_tensors, self.texts
        )
        if stage.loss == "alignment" and not has_target.any():
            raise ValueError(
                f"stage {stage.name!r} aligns level tokens with phrases, and the dataset has none: "
                "give captions, or the columns foreground, background and ambience"
            )
        known = targets[has_target].float() if has_target.any() else targets.float()
        std = self.adapter.projector.get_buffer("std").detach().cpu()
        return StageLoss(
            stage, self.options.loss, self.pipeline.scheduler, known.mean(0), std.clone()
        )

    def generate_samples(self, sheet: Path) -> None:
        """Write a sample sheet with the adapter in training.

        Args:
            sheet: Output PNG file.
        """
        evaluation, pipeline = self.options.evaluation, self.pipeline
        pipeline.set_progress_bar_config(disable=True)
        pipeline.to(self.attached.unet.device)
        image_generator = ImageGenerator(
            pipeline, evaluation.num_inference_steps, evaluation.guidance_scale
        )
        pair_generator = PairImageGenerator(
            image_generator, self.attached, self.texts, self.eval_tensors, self.replaces_text
        )
        mode = self.adapter.training
        self._save_sample_sheet(pair_generator, sheet)
        self.adapter.train(mode)

    def _save_sample_sheet(self, pair_generator: PairImageGenerator, sheet: Path) -> None:
        rows = sample_rows(
            pair_generator, self.eval_pairs, self.options.evaluation.num_sheet_samples
        )
        features = spectrograms_of(self.encoder, self.eval_pairs, self.eval_tensors, rows)
        save_pair_sheet(pair_generator, self.eval_pairs, features, rows, sheet)

    def evaluate(self) -> dict[str, Estimate]:
        """Evaluate the saved adapter on the held-out pairs and write a sample sheet.

        Returns:
            Metrics by name.
        """
        evaluation, base_model = self.options.evaluation, self.options.model.base_model
        if (
            not (evaluation.num_images and evaluation.image_classifier != "none")
            and not evaluation.num_sheet_samples
        ):
            return {}
        image_generator = ImageGenerator.from_pretrained(
            base_model, evaluation.num_inference_steps, evaluation.guidance_scale
        )
        attached = attach(image_generator.pipeline, self.folder)
        pair_generator = PairImageGenerator(
            image_generator, attached, self.texts, self.eval_tensors, self.replaces_text
        )
        metrics: dict[str, Estimate] = {}
        if evaluation.num_images and evaluation.image_classifier != "none":
            evaluator = UNetEvaluator(
                pair_generator,
                self.eval_pairs,
                lookup(IMAGE_CLASSIFIERS, evaluation.image_classifier)(),
            )
            metrics = evaluator.audio_accuracy(evaluation.num_images)
            base_generator = ImageGenerator.from_pretrained(
                base_model, evaluation.num_inference_steps, evaluation.guidance_scale
            )
            metrics |= evaluator.text_accuracy(
                -(-evaluation.num_images // TEXT_IMAGE_DIVISOR), base_generator
            )
        if evaluation.num_sheet_samples:
            self._save_sample_sheet(pair_generator, self.folder / "samples.png")
        return metrics

    def _build_retrieval_memory(self) -> None:
        """Set the adapter's retrieval memory to the target tokens of the training pairs.

        An adapter that the run is initialized from keeps its memory if no stage trains the
        projector.
        """
        memory, adapter = self.options.retrieval_memory, self.adapter
        trains_projector = any("projector" in stage.trainable for stage in self.stages)
        keeps_memory = self.options.model.init_from is not None and not trains_projector
        if keeps_memory and memory.retrieval_memory:
            return
        targets, has_target = target_tokens(
            adapter, self.train_pairs, self.train_tensors, self.texts
        )
        std = adapter.projector.get_buffer("std").cpu()
        adapter.set_retrieval_memory(
            LevelRetrievalMemory.from_targets(targets[has_target], std, memory)
        )

    def build_dataset(
        self, pairs: AudioImagePairs, prepared: PreprocessedPairs
    ) -> AudioImageDataset:
        """Build the dataset of a trainer.

        Args:
            pairs: The pairs.
            prepared: Their preprocessed tensors.
        """
        loss = self.options.loss
        return AudioImageDataset(
            pairs,
            prepared,
            self.texts,
            target_tokens(self.adapter, pairs, prepared, self.texts),
            dropout=ConditioningDropout(
                loss.caption_dropout, loss.audio_dropout, loss.joint_dropout, loss.background_prob
            ),
            num_train_timesteps=self.pipeline.scheduler.config.num_train_timesteps,
            seed=self.options.training.seed,
            class_weighted=loss.class_weighted,
        )


def new_adapter(model: ModelArguments, unet: Any, encoder: Any) -> SoundAdapter:
    """Create an untrained adapter, or load the one that the run is initialized from.

    Args:
        model: Options of the models.
        unet: UNet of the base model.
        encoder: Audio encoder.

    Returns:
        The adapter.
    """
    if model.init_from is not None:
        return load_adapter(model.init_from)
    config = AdapterConfig(
        base_model=model.base_model,
        attention_type=model.attention_type,
        blocks=tuple(model.blocks),
        routing=model.routing,
        width=model.projector_width,
        depth=model.projector_depth,
        heads=model.projector_heads,
        lora_rank=model.lora_rank,
        lora_targets=tuple(model.lora_targets),
    )
    return SoundAdapter.from_unet(unet, encoder, config)
