"""Every adapter with both miniature backbones: `python -m benchmarks.adapters`.

Each is trained on the same recordings, saved, loaded again, and drives the mini pipeline; the table
says what it cost and what it is worth. With --by mini, all are trained alike, as the miniature is;
with --by recipe, each by the recipe that is made for it: its loss, rate, batches, steps and what of
the backbone is trained, at the miniature's sizes. Runs that are already measured are not repeated,
so an interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.evaluation.evaluator import Examination
    from align.models.heads import Head
    from align.prompts.embeds import Prompts
    from align.training.run import Session


RECIPES = {
    "linear": "art-from-audio",
    "mlp": "clap2diffusion",
    "conv": "audio2img",
    "multiscale": "multiscale",
    "sonic": "sonic",
    "hierarchical": "hierarchical",
    "resampler": "audiocaps",
}
KINDS = tuple(RECIPES)
BACKBONES = ("mini-clap", "mini-w2v-bert")
# SonicDiffusion's sizes are made for prompts six times as wide.
SMALLER = {"sonic": ("--adapter_head_width", "8")}
# The sizes that the recipes give for real text encoders, as the miniature has them.
MINI_SIZES = {
    "conv": ("--adapter_width", "256", "--adapter_heads", "4"),
    "multiscale": ("--adapter_width", "256"),
    "hierarchical": ("--adapter_width", "256", "--adapter_heads", "4"),
    "resampler": ("--adapter_width", "256", "--adapter_heads", "4", "--adapter_depth", "2"),
}

# Their recipes give these CLAP's pooled embedding as the only audio token.
POOLED = ("linear", "mlp", "sonic")


def write_recordings(folder: Path, split: str, rows: int) -> Path:
    """Writes the miniature's first rows of a split as wav files with metadata.csv."""
    import csv

    import soundfile

    from soundprompt.mini.dataset import singles

    folder.mkdir(parents=True, exist_ok=True)
    table = folder / "metadata.csv"
    if table.exists():
        return folder
    lines = []
    for i, row in enumerate(singles(split, rows)):
        sound = row["recording"]
        soundfile.write(folder / f"{i}.wav", sound["array"], sound["sampling_rate"])
        lines.append((f"{i}.wav", row["caption"], row["label"]))
    with table.open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "caption", "label"), *lines])
    return folder


def _trained(command: Sequence[str]) -> tuple[Session, float]:
    """Trains by a command line of align.train and saves; also the CPU seconds of training."""
    from align.config.options import parse_options
    from align.training.run import Session

    session = Session.open(parse_options("benchmarks.adapters", command))
    # Features and tokens are computed here, once for all adapters of a backbone.
    session._trainer()
    start = time.process_time()
    session.train()
    return session, time.process_time() - start


def _command(options: argparse.Namespace, kind: str, backbone: str, rest: list[str]) -> list[str]:
    pooled = kind in POOLED and backbone == "mini-clap"
    by_recipe = options.by == "recipe"
    sizes = MINI_SIZES.get(kind, ()) if by_recipe else ()
    return [
        *((RECIPES[kind], "--base", "mini") if by_recipe else ("mini",)),
        *("--backbone", backbone, "--adapter", kind, *SMALLER.get(kind, ()), *sizes),
        # Wav2Vec2-BERT has no pooled embedding, whatever the recipe made for CLAP says.
        *(("--audio_tokens", "pooled" if pooled else "all") if pooled or by_recipe else ()),
        *("--data", str(options.out / "train"), "--eval_data", str(options.out / "test")),
        *("--num_train_epochs", str(options.epochs), "--seed", str(options.seed)),
        *("--pictures", "0", "--samples", "0", "--judge", "none", "--use_cpu", "true"),
        *("--eval_strategy", "no", "--save_strategy", "no", "--disable_tqdm", "true"),
        *("--output_dir", str(options.out / f"{backbone}-{kind}"), *rest),
    ]


def _run(command: list[str]) -> dict[str, Any]:
    """Trains, saves, loads, and measures the embeds; or what was measured before."""
    from align.evaluation.evaluator import Examination
    from align.models.encoder import load_encoder

    folder = Path(command[command.index("--output_dir") + 1])
    noted = folder / "figures.json"
    if noted.exists():
        found: dict[str, Any] = json.loads(noted.read_text())
        if found["command"] != command:
            raise SystemExit(f"{folder} comes from other options: give another --out")
        return found
    session, seconds = _trained(command)
    encoder = load_encoder(str(folder))
    seen = Examination.of(encoder, session.space, session.held_out, session.known)
    figures = seen.embeds()
    accuracy = figures["class_accuracy"]
    found = {
        "command": command,
        "backbone": command[command.index("--backbone") + 1],
        "adapter": command[command.index("--adapter") + 1],
        "parameters": sum(p.numel() for p in seen.head.adapter.parameters()),
        "cpu_s": seconds,
        "class_accuracy": [accuracy.value, accuracy.low, accuracy.high],
        "centred_cosine": figures["centred_cosine"].value,
        "centred_cosine_oracle": figures["centred_cosine_oracle"].value,
    }
    noted.write_text(json.dumps(found, indent=1))
    return found


def _pictures(run: dict[str, Any], out: Path, count: int) -> list[float]:
    """The share of right pictures drawn from sound, with its interval."""
    folder = out / f"{run['backbone']}-{run['adapter']}"
    noted = folder / f"pictures-{count}.json"
    if not noted.exists():
        seen = _examine(folder, out / "test", count)
        labels = seen.heard.labels
        noted.write_text(json.dumps(_right(seen.prompts(range(count)), seen.head, labels)))
        text = out / f"text-{count}.json"
        if not text.exists():
            prompts = seen.text_prompts(seen.heard.captions)
            text.write_text(json.dumps(_right(prompts, seen.head, labels)))
    found: list[float] = json.loads(noted.read_text())
    return found


def _examine(folder: Path, test: Path, count: int) -> Examination:
    """The answers of the encoder in a folder to recordings spread over the test set."""
    from align.data.loading import load_rows
    from align.evaluation.evaluator import Examination
    from align.hub.run_record import told
    from align.models.encoder import load_encoder
    from align.preprocessing.features import hear
    from align.prompts.space import PromptSpace

    encoder = load_encoder(str(folder))
    rows = load_rows(str(test), "test")
    rows = rows.select([i * len(rows) // count for i in range(count)])
    heard = hear(encoder.ear, rows, title="test features")
    space = PromptSpace.from_pretrained("mini")
    return Examination.of(encoder, space, heard, told(str(folder))[1])


def _right(prompts: Prompts, head: Head, labels: Sequence[str]) -> tuple[float, float, float]:
    """Draws prompts, the same noise for all adapters, and has the pictures judged."""
    from align.evaluation.generation import Artist
    from align.evaluation.statistics import Measured
    from align.registry import JUDGES, lookup

    artist = Artist.from_pretrained("mini", steps=20, guidance=5.0)
    pictures = artist.draw(prompts, head.null(len(labels)), list(range(len(labels))))
    share = Measured.share(lookup(JUDGES, "mini")().right(pictures, labels))
    return share.value, share.low, share.high


def _share(found: Sequence[float]) -> str:
    value, low, high = (100 * part for part in found)
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def as_table(runs: Sequence[dict[str, Any]], text: Sequence[float]) -> str:
    """The runs as a Markdown table, the ceilings in its last lines."""
    lines = [
        "| backbone | adapter | parameters | CPU seconds | class accuracy | centred cosine "
        "| right pictures |",
        "| --- | --- | ---: | ---: | --- | ---: | --- |",
    ]
    for run in runs:
        drawn = _share(run["right_pictures"]) if "right_pictures" in run else ""
        lines.append(
            f"| {run['backbone']} | {run['adapter']} | {run['parameters']:,} | {run['cpu_s']:.0f} "
            f"| {_share(run['class_accuracy'])} | {run['centred_cosine']:.3f} | {drawn} |"
        )
    best = runs[0]["centred_cosine_oracle"]
    drawn = _share(text) if text else ""
    lines.append(f"| | who hears everything | | | 100% | {best:.3f} | |")
    lines.append(f"| | the true caption | | | | | {drawn} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing and prints the table; unknown flags go to the training."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adapters", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--adapters", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument(
        "--by",
        choices=("mini", "recipe"),
        default="mini",
        help="all alike, or each by the recipe that is made for it",
    )
    parser.add_argument("--rows", type=int, default=1500, help="recordings trained on")
    parser.add_argument("--test_rows", type=int, default=250, help="recordings measured on")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the recordings")
    parser.add_argument("--pictures", type=int, default=60, help="pictures judged of each; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default: runs/benchmarks/adapters[-by-recipe]")
    options, rest = parser.parse_known_args(arguments)
    if options.out is None:
        suffix = "-by-recipe" if options.by == "recipe" else ""
        options.out = Path(f"runs/benchmarks/adapters{suffix}")
    if not 0 <= options.pictures <= options.test_rows:
        parser.error("--pictures are of the --test_rows: at most as many; 0 for none")
    write_recordings(options.out / "train", "train", options.rows)
    write_recordings(options.out / "test", "test", options.test_rows)
    pairs = [(kind, backbone) for backbone in options.backbones for kind in options.adapters]
    runs = [_run(_command(options, *pair, rest)) for pair in pairs]
    text = []
    if options.pictures:
        for run in runs:
            run["right_pictures"] = _pictures(run, options.out, options.pictures)
        text = json.loads((options.out / f"text-{options.pictures}.json").read_text())
    print(f"\n{options.rows} recordings, {options.epochs} passes, seed {options.seed}:\n")
    print(as_table(runs, text))


if __name__ == "__main__":
    main()
