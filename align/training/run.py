"""A training run: from its options to its metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, set_seed

from align.data.licenses import license_counts
from align.data.splits import (
    check_distinct_rows,
    load_eval_dataset,
    load_extra_dataset,
    load_train_dataset,
    load_train_stream,
)
from align.data.streaming import Stream
from align.evaluation.evaluator import AlignmentEvaluator, evaluate_all, generate_sample_sheet
from align.evaluation.generation import ImageGenerator, select_per_label
from align.evaluation.statistics import Estimate
from align.hub.model_card import RUN_RECORD_NAME, SAMPLE_SHEET_NAME
from align.hub.run_record import TrainingRecord, write_run_record
from align.losses.alignment import AlignmentLoss, build_criterion
from align.losses.distillation import KeyValueDistillation
from align.models.backbones.loading import backbone_class
from align.models.encoder import AudioPromptEncoder
from align.preprocessing.audio_tokens import frozen_tokens
from align.preprocessing.cache import Cache
from align.preprocessing.features import AudioFeatures, concatenate_features, extract_features
from align.preprocessing.text_embeds import CaptionEmbeds
from align.prompts.space import PromptSpace
from align.training.augmentation import FeatureLayout
from align.training.callbacks import RunRecordCallback, SampleSheetCallback
from align.training.checkpoints import (
    check_same_rows,
    complete_checkpoints,
    recipe,
    recorded_options,
    remove,
    resumable,
    rows_digest,
)
from align.training.datasets import (
    ExtraRows,
    FeatureDataset,
    StreamingFeatureDataset,
    TokenDataset,
    group_ids,
)
from align.training.distributed import is_main_process, main_process_first
from align.training.setup import build_encoder, build_retrieval_memory, set_space_statistics
from align.training.trainer import AlignTrainer, compute_metrics
from align.training.validation import check_options

if TYPE_CHECKING:
    from align.config.options import Options


@dataclass
class TrainingRun:
    """A training run: models, data and options.

    Attributes:
        options: Options of the run.
        space: Default prompt space.
        encoder: The encoder to train.
        train_features: Features, captions and labels of the training rows.
        eval_features: Those of the evaluation rows.
        evaluated_on: Description of the evaluation rows.
        record: Labels, captions and licenses of the training rows.
        image_generator: Pipeline for evaluation images and distillation, if needed.
        checkpoint: Checkpoint to resume from.
        cache: Cache of features, audio tokens and caption embeds.
        stream: Training rows, with --streaming.
        extra_spaces: Further prompt spaces to train.
        extra_callbacks: Further callbacks of the Trainer.
        num_main_rows: Number of training rows of --dataset, which precede those of
            --extra_dataset.
    """

    options: Options
    space: PromptSpace
    encoder: AudioPromptEncoder
    train_features: AudioFeatures
    eval_features: AudioFeatures
    evaluated_on: str
    record: TrainingRecord
    image_generator: ImageGenerator | None
    checkpoint: Path | None
    cache: Cache
    stream: Stream | None = None
    extra_spaces: Sequence[PromptSpace] = ()
    extra_callbacks: Sequence[TrainerCallback] = ()
    num_main_rows: int = 0

    @classmethod
    def from_options(cls, options: Options) -> TrainingRun:
        """Load models and data, and extract features.

        Args:
            options: Options of the run.

        Raises:
            DataError: If the data cannot be used.
            OSError: If a model does not exist.
            ValueError: If options contradict each other.
        """
        check_options(options)
        checkpoint = resumable(options)
        stream = load_train_stream(options.data) if options.data.streaming else None
        rows = load_train_dataset(options.data) if stream is None else None
        extra = load_extra_dataset(options.data)
        eval_rows, evaluated_on = load_eval_dataset(options.data)
        set_seed(options.training.seed)
        space, *extra_spaces = map(PromptSpace.from_pretrained, options.model.base_model)
        encoder = build_encoder(options.model, space, *extra_spaces)
        cache = Cache.from_options(options.data.cache, options.data.cache_dir)
        extraction_kwargs: dict[str, Any] = {
            "num_workers": options.data.num_workers,
            "cache": cache,
        }
        if stream is not None:
            # Captions and labels are known before the audio is streamed.
            audio_features = AudioFeatures([], stream.captions, stream.labels, [])
        else:
            audio_features = extract_features(
                encoder.processor, rows, title="train features", **extraction_kwargs
            )
        record = TrainingRecord({}, license_counts(stream or rows, extra))
        record = record.with_rows(audio_features.labels, audio_features.captions)
        num_main_rows = len(audio_features)
        if extra is not None:
            audio_features = concatenate_features(
                audio_features,
                extract_features(
                    encoder.processor, extra, title="extra features", **extraction_kwargs
                ),
            )
        # Unreadable clips are left out by now, so that too few distinct rows may remain.
        check_distinct_rows(options.data.dataset, audio_features.captions, audio_features.labels)
        record = replace(record, rows_digest=rows_digest(audio_features))
        if checkpoint is not None:
            check_same_rows(checkpoint, record.rows_digest)
        eval_features = audio_features
        if eval_rows is not None:
            eval_features = extract_features(
                encoder.processor, eval_rows, title="test features", **extraction_kwargs
            )
        generates_images = options.evaluation.num_images or options.evaluation.num_sheet_samples
        image_generator = None
        if generates_images or options.loss.distillation_weight:
            given = options.evaluation
            image_generator = ImageGenerator.from_pretrained(
                space.base_model, given.num_inference_steps, given.guidance_scale
            )
        return cls(
            options, space, encoder, audio_features, eval_features, evaluated_on, record,
            image_generator, checkpoint, cache, stream, extra_spaces, num_main_rows=num_main_rows,
        )  # fmt: skip

    @property
    def folder(self) -> Path:
        """Output directory of the run."""
        return Path(self.options.training.output_dir or ".")

    def train(self) -> None:
        """Train, or resume an interrupted run, and save the encoder."""
        with main_process_first():
            trainer = self._trainer()
        last = None if self.checkpoint is None else str(self.checkpoint)
        if last is not None:
            print(f"resuming from {last}", flush=True)
        elif is_main_process():
            remove(complete_checkpoints(self.folder, RUN_RECORD_NAME), self.folder)
        trainer.train(resume_from_checkpoint=last)
        self.encoder.merge_lora()
        if is_main_process():
            self.encoder.save_pretrained(self.folder)
            write_run_record(
                self.folder, recorded_options(self.options), recipe(self.options), self.record
            )

    def evaluate(self) -> dict[str, Estimate]:
        """Return the metrics of the trained encoder, and write its sample sheet."""
        evaluator = AlignmentEvaluator.from_encoder(
            self.encoder, self.space, self.eval_features, self.record, cache=self.cache
        )
        sample_sheet = self.folder / SAMPLE_SHEET_NAME
        metrics = evaluate_all(
            evaluator, self.image_generator, self.options.evaluation, sample_sheet
        )
        for space in self.extra_spaces:
            evaluator = AlignmentEvaluator.from_encoder(
                self.encoder,
                space,
                self.eval_features,
                self.record,
                name=space.base_model,
                cache=self.cache,
            )
            metrics |= {
                f"{name} ({space.base_model})": value
                for name, value in evaluator.embed_metrics().items()
            }
        return metrics

    def generate_samples(self, sample_sheet: Path) -> None:
        """Write a sample sheet of fixed clips with the current encoder."""
        if self.image_generator is None or not is_main_process():
            return
        encoder, mode = self.encoder, self.encoder.training
        rows = select_per_label(
            self.eval_features.labels, self.options.evaluation.num_sheet_samples
        )
        evaluator = AlignmentEvaluator.from_encoder(
            encoder, self.space, self.eval_features.select(rows), TrainingRecord({})
        )
        generate_sample_sheet(evaluator, self.image_generator, sample_sheet)
        encoder.train(mode)

    def _trainer(self) -> AlignTrainer:
        options, encoder = self.options, self.encoder
        record = self.record.with_rows(self.train_features.labels, self.train_features.captions)
        record = record.with_rows(self.eval_features.labels, self.eval_features.captions)
        criterion, caption_embeds = self._criterion(self.space, self.image_generator, record)
        extra_criteria = {
            space.base_model: self._criterion(space, None, record)[0] for space in self.extra_spaces
        }
        targets = self._targets(self.train_features, caption_embeds, record)
        for name, loss in {self.space.base_model: criterion, **extra_criteria}.items():
            encoder.set_retrieval_memory(
                build_retrieval_memory(loss, targets, options.memory), name
            )
        frozen = options.model.train_backbone == "none"
        make_dataset = self._token_dataset if frozen else self._feature_dataset
        run_record = RunRecordCallback(recorded_options(options), recipe(options), self.record)
        callbacks: list[TrainerCallback] = [run_record]
        if options.training.sample_every_eval and options.evaluation.num_sheet_samples:
            callbacks.append(SampleSheetCallback(self.folder / "samples", self.generate_samples))
        callbacks += self.extra_callbacks
        return AlignTrainer(
            model=encoder,
            args=options.training,
            criterion=criterion,
            extra_criteria=extra_criteria,
            gradient_cache=options.training.gradient_cache,
            train_dataset=(
                self._streaming_dataset(caption_embeds, record)
                if self.stream is not None
                else make_dataset(self.train_features, caption_embeds, record, True)
            ),
            eval_dataset=make_dataset(self.eval_features, caption_embeds, record, False),
            compute_metrics=compute_metrics,
            callbacks=callbacks,
        )

    def _criterion(
        self, space: PromptSpace, image_generator: ImageGenerator | None, record: TrainingRecord
    ) -> tuple[AlignmentLoss, CaptionEmbeds]:
        """Build the loss of a prompt space and encode the captions.

        Sets the statistics of the captions in the head of the space.

        Args:
            space: The prompt space.
            image_generator: Pipeline with the UNet for the distillation loss. Loaded if needed.
            record: Captions by label, of all rows.

        Returns:
            The loss, and the embeds of the captions.
        """
        loss, head = self.options.loss, self.encoder.head(space.base_model)
        captions = self.train_features.captions + self.eval_features.captions
        caption_embeds = CaptionEmbeds.encode(space, captions, self.cache)
        train_embeds = caption_embeds.select(self.train_features.captions)
        set_space_statistics(head, train_embeds, space)
        distillation = None
        if loss.distillation_weight:
            image_generator = image_generator or ImageGenerator.from_pretrained(
                space.base_model, 1, 1.0
            )
            distillation = KeyValueDistillation(
                image_generator.unet, (b.embeds for b in train_embeds.blocks())
            )
        criterion = build_criterion(
            loss, caption_embeds, head, dict(record.captions),
            lengths=space.token_lengths(caption_embeds.captions), distillation=distillation,
        )  # fmt: skip
        return criterion, caption_embeds

    def _targets(
        self, audio_features: AudioFeatures, caption_embeds: CaptionEmbeds, record: TrainingRecord
    ) -> torch.Tensor:
        if self.options.loss.target == "caption":
            return caption_embeds.index(audio_features.captions)
        number = {label: i for i, label in enumerate(sorted(record.captions))}
        return torch.tensor([number[label] for label in audio_features.labels])

    def _feature_dataset(
        self,
        audio_features: AudioFeatures,
        caption_embeds: CaptionEmbeds,
        record: TrainingRecord,
        train: bool,
    ) -> FeatureDataset:
        return FeatureDataset(
            audio_features,
            self._targets(audio_features, caption_embeds, record),
            self.options.augment if train else None,
            self._feature_layout(),
            self.options.training.seed,
            self._caption_lengths(audio_features, train),
            self._extra_rows() if train else None,
        )

    def _feature_layout(self) -> FeatureLayout:
        processor = self.encoder.processor
        kind = backbone_class(processor.model_type)
        return FeatureLayout(processor.num_mel_bins, kind.log_scale, kind.normalized)

    def _streaming_dataset(
        self, caption_embeds: CaptionEmbeds, record: TrainingRecord
    ) -> StreamingFeatureDataset:
        assert self.stream is not None
        return StreamingFeatureDataset(
            self.encoder.processor,
            self.stream,
            self._targets(self.train_features, caption_embeds, record),
            group_ids(self.train_features.labels),
            self.options.augment,
            self._feature_layout(),
            self.options.training.seed,
            self.options.data.num_workers,
        )

    def _token_dataset(
        self,
        audio_features: AudioFeatures,
        caption_embeds: CaptionEmbeds,
        record: TrainingRecord,
        train: bool,
    ) -> TokenDataset:
        store = frozen_tokens(
            self.encoder,
            audio_features,
            device=self.options.training.device,
            title="train tokens" if train else "test tokens",
            cache=self.cache,
        )
        targets, groups = (
            self._targets(audio_features, caption_embeds, record),
            group_ids(audio_features.labels),
        )
        extra = self._extra_rows() if train else None
        return TokenDataset(
            store, targets, groups, self._caption_lengths(audio_features, train), extra
        )

    def _extra_rows(self) -> ExtraRows | None:
        fraction = self.options.data.extra_dataset_fraction
        return ExtraRows(self.num_main_rows, fraction) if fraction else None

    def _caption_lengths(self, audio_features: AudioFeatures, train: bool) -> list[int] | None:
        """Return the lengths to sort the training rows by, for --order caption_length."""
        if not train or self.options.data.order != "caption_length":
            return None
        return [len(caption.split()) for caption in audio_features.captions]
