"""Options that do not go together, found before anything is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from align.beginning import check_start
from align.distillation import check_distillation
from align.doorway import check_folder
from align.several import check_several
from align.streaming import check_streaming

if TYPE_CHECKING:
    from align.train import Options


def check_together(options: Options) -> None:
    """Refuses options of several themes that contradict each other, and a folder that cannot be.

    Raises:
        ValueError: they do, or it cannot.
    """
    if options.augment.active and options.model.train_backbone == "none":
        raise ValueError("augmentation needs a backbone that trains: set --train_backbone")
    if options.model.dropout and options.model.train_backbone == "none":
        raise ValueError("--dropout is the backbone's, which does not train: --train_backbone")
    check_several(options)
    check_start(options.model.start, options.training.output_dir)
    check_folder(Path(options.training.output_dir or "."), "--output_dir")
    if options.loss.distillation_weight:
        check_distillation(options.model.base)
    if options.data.streaming:
        check_streaming(options)
    if options.training.resume_from_checkpoint:
        raise ValueError("a run goes on from its own folder: --resume, not another checkpoint")
