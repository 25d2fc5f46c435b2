"""Train the `mini` models: `python -m soundprompt.mini.build [stage ...]`; all by default."""

from __future__ import annotations

import importlib
from pathlib import Path

from align.cli import CommandParser

# In order of their dependencies.
STAGES = ("image_classifier", "vae", "clip", "unet", "controlnet", "clap", "w2v_bert")
RESUMABLE_STAGES = ("clap", "w2v_bert")  # stages that --init_from applies to


def main(arguments: list[str] | None = None) -> None:
    """Run the stages given on the command line."""
    parser = CommandParser("python -m soundprompt.mini.build", description=__doc__)
    parser.add_argument("stages", nargs="*", metavar="stage", help=f"Stage: {', '.join(STAGES)}.")
    parser.add_argument(
        "--weights_dir",
        type=Path,
        default=Path(__file__).parents[1] / "weights",
        help="Output directory of the trained models.",
    )
    parser.add_argument(
        "--work_dir",
        type=Path,
        default=Path("runs/mini"),
        help="Directory of the checkpoints.",
    )
    parser.add_argument(
        "--init_from",
        type=Path,
        help="Initialize clap and w2v_bert from the trained models in this directory.",
    )
    options = parser.parse_args(arguments)
    unknown = [stage for stage in options.stages if stage not in STAGES]
    if unknown:
        parser.error(f"there is no stage {', '.join(unknown)}: use {', '.join(STAGES)}")
    stages = options.stages or STAGES
    if options.init_from and set(stages) - set(RESUMABLE_STAGES):
        parser.error(f"--init_from is for {' and '.join(RESUMABLE_STAGES)}: run only these")
    if options.init_from and not options.init_from.is_dir():
        parser.error(f"--init_from: there is no directory {options.init_from}")
    given = {"init_from": options.init_from} if options.init_from else {}
    for stage in stages:
        build = importlib.import_module(f"soundprompt.mini.build.{stage}").build
        build(options.work_dir, options.weights_dir, **given)
        print(f"{stage}: saved in {options.weights_dir.resolve()}", flush=True)


if __name__ == "__main__":
    main()
