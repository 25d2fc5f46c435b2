"""Checks of the options of a training run, before models and data are loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import check_output_dir

if TYPE_CHECKING:
    from align.config.arguments import ModelArguments
    from align.config.options import Options


def check_model(model: ModelArguments, *_: Any) -> None:
    """Check the model options, and fill in the base models of --init_from.

    Args:
        model: Options of the model.

    Raises:
        ValueError: If the adapter does not support one of the sizes, or --init_from is not an
            encoder.
    """
    from align.models.adapters import check_adapter_kwargs
    from align.training.setup import resolve_bases

    check_adapter_kwargs(model.adapter, model.adapter_kwargs(), "--adapter_")
    resolve_bases(model)


def check_options(options: Options) -> None:
    """Check options that depend on each other, and the output directory.

    Args:
        options: Options of the run.

    Raises:
        ValueError: If options contradict each other, or the output directory is not writable.
    """
    check_model(options.model)
    if options.augment.active and options.model.train_backbone == "none":
        raise ValueError("augmentation needs a trained backbone: set --train_backbone")
    if options.model.backbone_dropout and options.model.train_backbone == "none":
        raise ValueError("--backbone_dropout needs a trained backbone: set --train_backbone")
    check_multiple_base_models(options)
    check_init_from(options.model.init_from, options.training.output_dir)
    check_output_dir(Path(options.training.output_dir or "."), "--output_dir")
    if options.loss.distillation_weight:
        check_distillation(options.model.base_model)
    if options.data.streaming:
        check_streaming(options)


def check_distillation(base_models: Sequence[str]) -> None:
    """Check that all base models support the distillation loss.

    Args:
        base_models: Short names, folders or Hub ids.

    Raises:
        OSError: If a base model does not exist.
        ValueError: If a base model has no UNet.
    """
    from align.prompts.loading import has_unet

    for base_model in base_models:
        if not has_unet(base_model):
            raise ValueError(
                "--distillation_weight compares keys and values of a UNet, and "
                f"{base_model} has a transformer instead: leave it out"
            )


def check_multiple_base_models(options: Options) -> None:
    """Check options that do not support several base models.

    Args:
        options: Options of the run.

    Raises:
        ValueError: If there are several base models and such an option.
    """
    if len(options.model.base_model) < 2:
        return
    if options.training.gradient_cache:
        raise ValueError(
            "--gradient_cache supports one --base_model: give one, and add the others later"
        )
    if options.loss.learn_temperature:
        raise ValueError(
            "--learn_temperature supports one --base_model: give one, or fix the temperature"
        )


def check_streaming(options: Options) -> None:
    """Check options that do not support streaming.

    Args:
        options: Options of the run.

    Raises:
        ValueError: If there is such an option.
    """
    if options.data.eval_dataset is None and options.data.eval_folds is None:
        raise ValueError(
            "--streaming needs evaluation data: give --eval_dataset, or --folds and --eval_folds"
        )
    if options.augment.mix_same_label_prob or options.augment.mix_other_label_prob:
        raise ValueError(
            "--mix_same_label_prob and --mix_other_label_prob need random access to other clips, "
            "which --streaming does not have: leave them out"
        )
    if options.training.world_size > 1 or options.training.dataloader_num_workers:
        raise ValueError(
            "--streaming is single-process (--num_workers processes extract its features): leave "
            "out torchrun and --dataloader_num_workers"
        )


def check_init_from(init_from: str | None, output_dir: str | None) -> None:
    """Check that the output directory is not the encoder to initialize from.

    Args:
        init_from: Value of --init_from.
        output_dir: Value of --output_dir.

    Raises:
        ValueError: If both are the same folder.
    """
    if (
        init_from
        and output_dir
        and Path(init_from).expanduser().resolve() == Path(output_dir).resolve()
    ):
        raise ValueError(f"--init_from {init_from} would be overwritten: give another --output_dir")
