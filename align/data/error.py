"""What is said of data that cannot be used."""


class DataError(ValueError):
    """A data set cannot be used; the message says which, and what it would need."""


def first_line(error: BaseException) -> str:
    """The first line of what lies at the bottom of an error, cut to 200 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
