"""Every adapter with both miniature backbones: `python -m benchmarks.adapters`.

Each is trained on the same recordings, saved, loaded again, and drives the mini pipeline; the table
says what it cost and what it is worth. Runs that are already measured are not repeated, so an
interrupted benchmark goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from align.examine import Examination

KINDS = ("linear", "mlp", "conv", "multiscale", "sonic", "hierarchical", "resampler")
BACKBONES = ("mini-clap", "mini-w2v-bert")
# SonicDiffusion's sizes are made for prompts six times as wide.
SMALLER = {"sonic": ("--adapter_head_width", "8")}


def write_recordings(folder: Path, split: str, rows: int) -> Path:
    """Writes the miniature's first rows of a split as wav files with metadata.csv."""
    import csv

    import soundfile

    from mini.dataset import singles

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


def _train(command: Sequence[str], folder: Path) -> float:
    """Trains by a command line of align.train and saves; returns the CPU seconds of training."""
    from align.recipes import parse
    from align.session import Session
    from align.train import KINDS as OPTIONS
    from align.train import Options

    session = Session.open(Options(*parse(OPTIONS, "align", "benchmarks.adapters", command)))
    # Features and tokens are computed here, once for all adapters of a backbone.
    session._trainer()
    start = time.process_time()
    session.train()
    return time.process_time() - start


def _examine(folder: Path, test: Path) -> Examination:
    """The answers of the encoder in a folder to the test recordings."""
    from align.data import load_rows
    from align.examine import Examination
    from align.features import hear
    from align.outcome import load_encoder, told
    from align.prompts import PromptSpace

    encoder = load_encoder(str(folder))
    _, known = told(str(folder))
    heard = hear(encoder.ear, load_rows(str(test), "test"), title="test features")
    return Examination.of(encoder, PromptSpace.from_pretrained("mini"), heard, known)


def _right(seen: Examination, count: int, of_text: bool = False) -> tuple[float, float, float]:
    """The share of right pictures of `count` recordings spread over the set, with its interval."""
    from align.drawing import Artist
    from align.measures import Measured
    from align.names import JUDGES, lookup

    rows = [i * len(seen.heard) // count for i in range(count)]
    captions = [seen.heard.captions[i] for i in rows]
    prompts = seen.text_prompts(captions) if of_text else seen.prompts(rows)
    artist = Artist.from_pretrained("mini", steps=20, guidance=5.0)
    pictures = artist.draw(prompts, seen.head.null(count), list(range(count)))
    judge = lookup(JUDGES, "mini")()
    share = Measured.share(judge.right(pictures, [seen.heard.labels[i] for i in rows]))
    return share.value, share.low, share.high


def _run(options: argparse.Namespace, kind: str, backbone: str, rest: list[str]) -> dict[str, Any]:
    """One adapter with one backbone: trained, loaded, measured; or what was measured before."""
    folder = options.out / f"{backbone}-{kind}"
    command = [
        *("mini", "--backbone", backbone, "--adapter", kind, *SMALLER.get(kind, ())),
        *("--data", str(options.out / "train"), "--eval_data", str(options.out / "test")),
        *("--num_train_epochs", str(options.epochs), "--seed", str(options.seed)),
        *("--pictures", "0", "--samples", "0", "--judge", "none", "--use_cpu", "true"),
        *("--eval_strategy", "no", "--save_strategy", "no", "--disable_tqdm", "true"),
        *("--output_dir", str(folder), *rest),
    ]
    noted = folder / "figures.json"
    if noted.exists():
        found: dict[str, Any] = json.loads(noted.read_text())
        if found["command"] != command or found["pictures"] != options.pictures:
            raise SystemExit(f"{folder} comes from other options: give another --out")
        return found
    seconds = _train(command, folder)
    seen = _examine(folder, options.out / "test")
    figures = seen.embeds()
    found = {
        "command": command,
        "pictures": options.pictures,
        "backbone": backbone,
        "adapter": kind,
        "parameters": sum(p.numel() for p in seen.head.adapter.parameters()),
        "cpu_s": seconds,
        "class_accuracy": [figures["class_accuracy"].value, *_interval(figures["class_accuracy"])],
        "centred_cosine": figures["centred_cosine"].value,
        "centred_cosine_oracle": figures["centred_cosine_oracle"].value,
        "right_pictures": _right(seen, options.pictures),
    }
    text = options.out / "text.json"
    if not text.exists():
        text.write_text(json.dumps(_right(seen, options.pictures, of_text=True)))
    noted.write_text(json.dumps(found, indent=1))
    return found


def _interval(figure: Any) -> tuple[float, float]:
    return figure.low, figure.high


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
        lines.append(
            f"| {run['backbone']} | {run['adapter']} | {run['parameters']:,} | {run['cpu_s']:.0f} "
            f"| {_share(run['class_accuracy'])} | {run['centred_cosine']:.3f} "
            f"| {_share(run['right_pictures'])} |"
        )
    best = runs[0]["centred_cosine_oracle"]
    lines.append(f"| | who hears everything | | | 100% | {best:.3f} | |")
    lines.append(f"| | the true caption | | | | | {_share(text)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is missing and prints the table; unknown flags go to the training."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adapters", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--adapters", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    parser.add_argument("--rows", type=int, default=1500, help="recordings trained on")
    parser.add_argument("--test_rows", type=int, default=250, help="recordings measured on")
    parser.add_argument("--epochs", type=int, default=5, help="passes over the recordings")
    parser.add_argument("--pictures", type=int, default=60, help="pictures judged of each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/adapters"))
    options, rest = parser.parse_known_args(arguments)
    if not 0 < options.pictures <= options.test_rows:
        parser.error("--pictures are of the --test_rows: at least one, at most as many")
    write_recordings(options.out / "train", "train", options.rows)
    write_recordings(options.out / "test", "test", options.test_rows)
    runs = [
        _run(options, kind, backbone, rest)
        for backbone in options.backbones
        for kind in options.adapters
    ]
    text = json.loads((options.out / "text.json").read_text())
    print(f"\n{options.rows} recordings, {options.epochs} passes, seed {options.seed}:\n")
    print(as_table(runs, text))


if __name__ == "__main__":
    main()
