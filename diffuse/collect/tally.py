"""What a collector says while it works and at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tally:
    """Counts what was saved, what was there already, and what was left out and why."""

    saved: int = 0
    there: int = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def leave_out(self, what: str, kind: str, reason: str = "") -> None:
        """Names something that is left out; `kind` is what it is counted under."""
        self.left_out[kind] += 1
        print(f"left out: {what}: {reason or kind}", flush=True)

    def report(self, folder: Path) -> str:
        """One sentence of counts, and where the results are."""
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.left_out.most_common())
        missed = f"; left out {self.left_out.total()} ({kinds})" if kinds else ""
        return (
            f"{self.saved} saved, {self.there} there already{missed}.\n"
            f"They are in {folder}, listed in {folder / 'metadata.csv'}."
        )
