"""Errors of datasets, and the tolerated number of unusable rows."""

from __future__ import annotations

from align.registry import first_line


class DataError(ValueError):
    """Unusable dataset; the message names it and what it needs."""


def root_cause(error: BaseException) -> str:
    """Return the first line of the original error in a chain of exceptions."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


MAX_ERROR_RATE = 0.05  # fraction of rows that may fail before a run stops


class ErrorBudget:
    """Report and count unusable rows, and raise if there are too many.

    Args:
        rows: Number of rows.
        unit: What a row contains, in the plural, for messages.
        row_name: Word before a row's number in messages.
    """

    def __init__(self, rows: int, unit: str = "clips", row_name: str = "row") -> None:
        self._rows, self._unit, self._row_name = rows, unit, row_name
        self._allowed = max(1, int(MAX_ERROR_RATE * rows))
        self.errors: list[str] = []

    def add(self, row: int, error: str) -> None:
        """Count and report one error.

        Args:
            row: Index of the row, from 0.
            error: Reason why it cannot be used.

        Raises:
            DataError: If there are too many errors.
        """
        self.errors.append(f"{self._row_name} {row + 1}: {error}")
        print(f"skipped: {self.errors[-1]}", flush=True)
        self.check(self._allowed)

    def check(self, allowed: int) -> None:
        """Check the number of errors.

        Raises:
            DataError: If there are more than `allowed`.
        """
        if len(self.errors) > allowed:
            raise DataError(
                f"{len(self.errors)} of {self._rows} {self._unit} cannot be used, more than "
                f"{MAX_ERROR_RATE:.0%}; the first: {self.errors[0]}"
            )
