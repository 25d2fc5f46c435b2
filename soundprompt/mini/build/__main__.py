"""Builds the `mini` models: `python -m soundprompt.mini.build [stage ...]`, all by default."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

# In the order in which they need each other.
STAGES = ("image_classifier", "vae", "clip", "unet", "controlnet", "clap", "w2v_bert")
RESUMABLE_STAGES = ("clap", "w2v_bert")  # stages that can train finished weights for longer


def main(arguments: list[str] | None = None) -> None:
    """Runs the stages named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m soundprompt.mini.build", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"one of {', '.join(STAGES)}")
    parser.add_argument(
        "--weights_dir",
        type=Path,
        default=Path(__file__).parents[1] / "weights",
        help="where the finished models go (default: the package's own)",
    )
    parser.add_argument(
        "--work_dir",
        type=Path,
        default=Path("runs/mini"),
        help="where checkpoints lie, to go on from",
    )
    parser.add_argument(
        "--init_from",
        type=Path,
        help=f"{' and '.join(RESUMABLE_STAGES)} go on from the finished models in this folder, not from none",
    )
    options = parser.parse_args(arguments)
    unknown = [stage for stage in options.stages if stage not in STAGES]
    if unknown:
        parser.error(f"no such stage: {', '.join(unknown)}; there are {', '.join(STAGES)}")
    stages = options.stages or STAGES
    if options.init_from and set(stages) - set(RESUMABLE_STAGES):
        parser.error(f"--init_from is for {' and '.join(RESUMABLE_STAGES)}: name them alone")
    if options.init_from and not options.init_from.is_dir():
        parser.error(f"there is no folder {options.init_from} to start from")
    given = {"init_from": options.init_from} if options.init_from else {}
    for stage in stages:
        build = importlib.import_module(f"soundprompt.mini.build.{stage}").build
        build(options.work_dir, options.weights_dir, **given)
        print(f"{stage}: done, in {options.weights_dir.resolve()}", flush=True)


if __name__ == "__main__":
    main()
