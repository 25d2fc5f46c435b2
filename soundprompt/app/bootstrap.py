"""Training of the `mini` encoder at the first start of the app.

The package contains the `mini` models but no trained encoder. If there is none yet, the app trains
one in a separate process, with the command of the documentation, and stays responsive meanwhile.
An interrupted training resumes from its last checkpoint.
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
# A tqdm progress bar: optional title, percentage, and finished steps out of all steps.
PROGRESS_BAR = re.compile(r"^(?:([a-z ]+): *)?\d+%\|[^|]*\| *(\d+)/(\d+) ")
FEATURES_SHARE, TRAINING_SHARE = 0.4, 0.6  # fractions of the total time


class MiniEncoderTraining:
    """Background training of the `mini` encoder.

    Args:
        folder: Output directory of the training run.
        flags: Options of `align.train` that replace the defaults of the app.
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
        """Whether the encoder is trained; run.json is the last file that a run writes."""
        names = ("config.json", "model.safetensors", "preprocessor_config.json", "run.json")
        running = self._process is not None and self._process.poll() is None
        return not running and all((self.folder / name).is_file() for name in names)

    @property
    def progress(self) -> float:
        """Finished fraction of the training, from 0 to 1."""
        return self._progress

    def start(self) -> None:
        """Start training, unless the encoder exists or is being trained; also after a failure."""
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
        """Stop a running training."""
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
    """Yield lines as they arrive; progress bars end theirs with a carriage return."""
    pending = b""
    while piece := stream.read1(4096):  # type: ignore[attr-defined]
        *whole, pending = re.split(rb"[\r\n]", pending + piece)
        for line in whole:
            yield re.sub(r"\x1b\[\w", "", line.decode(errors="replace")).strip()
    yield pending.decode(errors="replace").strip()
