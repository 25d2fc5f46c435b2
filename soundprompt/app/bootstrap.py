"""The miniature learns to hear at the first start: its alignment, trained in the background.

The repository holds the miniature's models but no trained alignment. Where no run lies yet, the
very command of the documentation trains one, in a process of its own, so that the page answers
meanwhile; a start that was broken off goes on from its last checkpoint.
"""

from __future__ import annotations

import atexit
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

ROOT = Path(__file__).parents[2]
# What tqdm writes: an optional title, a share, and how many of how many.
PROGRESS_BAR = re.compile(r"^(?:([a-z ]+): *)?\d+%\|[^|]*\| *(\d+)/(\d+) ")
FEATURES_SHARE, TRAINING_SHARE = 0.4, 0.6  # shares of the time that both halves take


class MiniEncoderTraining:
    """The miniature's encoder: there, being trained, or failed.

    Args:
        folder: where the run lies, or will.
        flags: of the training, if it is to differ from the documentation's.
    """

    def __init__(self, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.flags = flags or ("--num_images", "0", "--num_sheet_samples", "0")
        self.failure = ""
        self._progress = 0.0
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def ready(self) -> bool:
        """Whether the encoder is whole: run.json is the last thing that a run writes."""
        names = ("config.json", "model.safetensors", "preprocessor_config.json", "run.json")
        running = self._process is not None and self._process.poll() is None
        return not running and all((self.folder / name).is_file() for name in names)

    @property
    def progress(self) -> float:
        """How much of the training is done, from 0 to 1."""
        return self._progress

    def start(self) -> None:
        """Begins to train, unless the encoder is there or being trained; also after a failure."""
        with self._lock:
            if self.ready or (self._process is not None and self._process.poll() is None):
                return
            self.failure, self._progress = "", 0.0
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "align.train", "--output_dir", str(self.folder.resolve()),
                    *self.flags,
                ],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )  # fmt: skip
            atexit.register(self._process.terminate)
            threading.Thread(target=self._monitor, args=(self._process,), daemon=True).start()

    def stop(self) -> None:
        """Ends a training that is under way."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()

    def _monitor(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        last, longest = "", 1
        for line in _lines(process.stderr):
            last = line or last
            bar = PROGRESS_BAR.match(line)
            if bar is None:
                continue
            title, done, total = bar.group(1), int(bar.group(2)), int(bar.group(3))
            if title == "train features":
                self._progress = FEATURES_SHARE * done / total
            elif title is None and total >= longest:  # evaluations have shorter bars
                longest = total
                self._progress = FEATURES_SHARE + TRAINING_SHARE * done / total
        if process.wait() != 0:
            self.failure = last or f"align.train ended with status {process.returncode}"


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Lines as they come; a carriage return ends one too, as progress bars are redrawn by it."""
    pending = b""
    while piece := stream.read1(4096):  # type: ignore[attr-defined]
        *whole, pending = re.split(rb"[\r\n]", pending + piece)
        for line in whole:
            yield re.sub(r"\x1b\[\w", "", line.decode(errors="replace")).strip()
    yield pending.decode(errors="replace").strip()
