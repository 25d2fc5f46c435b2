"""What is said of data that cannot be used."""

from __future__ import annotations

from align.registry import first_line


class DataError(ValueError):
    """A data set cannot be used; the message says which, and what it would need."""


def root_cause(error: BaseException) -> str:
    """The first line of the error that an error was raised from in the end."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


MOST_UNUSABLE = 0.05  # share that may fail before a run is stopped


class Unusable:
    """Counts recordings that cannot be used, names each, and stops where they are too many.

    Args:
        rows: how many there are.
        what: of what.
        called: what the number of one is.
    """

    def __init__(self, rows: int, what: str = "recordings", called: str = "row") -> None:
        self._rows, self._what, self._called = rows, what, called
        self._allowed = max(1, int(MOST_UNUSABLE * rows))
        self.said: list[str] = []

    def add(self, row: int, error: str) -> None:
        """Counts one.

        Raises:
            DataError: it is one too many.
        """
        self.said.append(f"{self._called} {row + 1}: {error}")
        print(f"left out: {self.said[-1]}", flush=True)
        self.check(self._allowed)

    def check(self, allowed: int) -> None:
        """Refuses more than are allowed."""
        if len(self.said) > allowed:
            raise DataError(
                f"{len(self.said)} of {self._rows} {self._what} cannot be used, more than "
                f"{MOST_UNUSABLE:.0%}; the first: {self.said[0]}"
            )
