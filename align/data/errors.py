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


MAX_ERROR_RATE = 0.05  # share that may fail before a run is stopped


class ErrorBudget:
    """Counts recordings that cannot be used, names each, and stops where they are too many.

    Args:
        rows: how many there are.
        what: of what.
        called: what the number of one is.
    """

    def __init__(self, rows: int, unit: str = "recordings", row_name: str = "row") -> None:
        self._rows, self._unit, self._row_name = rows, unit, row_name
        self._allowed = max(1, int(MAX_ERROR_RATE * rows))
        self.errors: list[str] = []

    def add(self, row: int, error: str) -> None:
        """Counts one.

        Raises:
            DataError: it is one too many.
        """
        self.errors.append(f"{self._row_name} {row + 1}: {error}")
        print(f"left out: {self.errors[-1]}", flush=True)
        self.check(self._allowed)

    def check(self, allowed: int) -> None:
        """Refuses more than are allowed."""
        if len(self.errors) > allowed:
            raise DataError(
                f"{len(self.errors)} of {self._rows} {self._unit} cannot be used, more than "
                f"{MAX_ERROR_RATE:.0%}; the first: {self.errors[0]}"
            )
