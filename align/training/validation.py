"""Options that do not go together, found before anything is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import check_output_dir

if TYPE_CHECKING:
    from align.config.arguments import ModelArguments
    from align.config.options import Options


def check_model(model: ModelArguments, *_: Any) -> None:
    """Checks the options of the model that only models can tell, and fills in --init_from's bases.

    Raises:
        ValueError: the adapter does not take a size, or --init_from is no encoder.
    """
    from align.models.adapters import check_adapter_kwargs
    from align.training.setup import resolve_bases

    check_adapter_kwargs(model.adapter, model.adapter_kwargs(), "--adapter_")
    resolve_bases(model)


def check_options(options: Options) -> None:
    """Refuses options of several themes that contradict each other, and a folder that cannot be.

    Raises:
        ValueError: they do, or it cannot.
    """
    check_model(options.model)
    if options.augment.active and options.model.train_backbone == "none":
        raise ValueError("augmentation needs a backbone that trains: set --train_backbone")
    if options.model.backbone_dropout and options.model.train_backbone == "none":
        raise ValueError(
            "--backbone_dropout is the backbone's, which does not train: --train_backbone"
        )
    check_multiple_base_models(options)
    check_init_from(options.model.init_from, options.training.output_dir)
    check_output_dir(Path(options.training.output_dir or "."), "--output_dir")
    if options.loss.distillation_weight:
        check_distillation(options.model.base_model)
    if options.data.streaming:
        check_streaming(options)


def check_distillation(base_models: Sequence[str]) -> None:
    """Refuses bases that cannot be distilled through.

    Raises:
        OSError: there is no such base.
        ValueError: one has no UNet.
    """
    from align.prompts.loading import has_unet

    for base_model in base_models:
        if not has_unet(base_model):
            raise ValueError(
                f"--distillation_weight compares keys and values in a UNet, and {base_model} draws by a "
                "transformer: leave it out"
            )


def check_multiple_base_models(options: Options) -> None:
    """Refuses what does not go together with several bases.

    Raises:
        ValueError: an option would not act on all of them.
    """
    if len(options.model.base_model) < 2:
        return
    if options.training.gradient_cache:
        raise ValueError(
            "--gradient_cache is for one --base_model: give one, and add the others later"
        )
    if options.loss.learn_temperature:
        raise ValueError(
            "--learn_temperature is for one --base_model: give one, or its temperature"
        )


def check_streaming(options: Options) -> None:
    """Refuses options that need recordings to be at hand.

    Raises:
        ValueError: there is one.
    """
    if options.data.eval_dataset is None and options.data.eval_folds is None:
        raise ValueError(
            "what is streamed is heard in training alone: say what to measure on, with --eval_dataset "
            "or with --folds and --eval_folds"
        )
    if options.augment.mix_same_label_prob or options.augment.mix_other_label_prob:
        raise ValueError(
            "--mix_same_label_prob and --mix_other_label_prob need other recordings, a stream has none"
        )
    if options.training.world_size > 1 or options.training.dataloader_num_workers:
        raise ValueError(
            "a stream is read by one process; --num_workers of them hear what it reads (leave out "
            "torchrun and --dataloader_num_workers)"
        )


def check_init_from(init_from: str | None, output_dir: str | None) -> None:
    """Refuses to train into the folder that the training starts from.

    Raises:
        ValueError: it would.
    """
    if (
        init_from
        and output_dir
        and Path(init_from).expanduser().resolve() == Path(output_dir).resolve()
    ):
        raise ValueError(f"--init_from {init_from} would be overwritten: give another --output_dir")
