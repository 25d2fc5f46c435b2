"""Builds the miniature: `python -m mini.build [stage ...]`, all stages in order by default."""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

# In the order in which they need each other.
STAGES = ("judge", "vae", "clip", "unet", "controlnet", "clap", "w2v_bert")


def main(arguments: list[str] | None = None) -> None:
    """Runs the stages named on the command line."""
    parser = argparse.ArgumentParser(prog="python -m mini.build", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"one of {', '.join(STAGES)}")
    parser.add_argument(
        "--weights",
        type=Path,
        default=Path(__file__).parents[1] / "weights",
        help="where the finished models go (default: the package's own)",
    )
    parser.add_argument(
        "--work", type=Path, default=Path("runs/mini"), help="where checkpoints lie, to go on from"
    )
    options = parser.parse_args(arguments)
    unknown = [stage for stage in options.stages if stage not in STAGES]
    if unknown:
        parser.error(f"no such stage: {', '.join(unknown)}; there are {', '.join(STAGES)}")
    for stage in options.stages or STAGES:
        importlib.import_module(f"mini.build.{stage}").build(options.work, options.weights)
        print(f"{stage}: done, in {options.weights.resolve()}", flush=True)


if __name__ == "__main__":
    main()
