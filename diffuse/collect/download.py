"""Files over HTTP, politely: few at a time, retried with an end, whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import requests

AGAIN = (429, 500, 502, 503, 504)
LONGEST_WAIT_S = 60.0  # whatever a server asks for
BLOCK = 1 << 16
T = TypeVar("T")


class FetchError(RuntimeError):
    """An address did not give what it should; the message says which and why."""


class _TryAgain(Exception):
    """What went wrong may pass; `wait_s` is what the server asked for, if anything."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass
class Fetcher:
    """Gets addresses one after the other.

    Attributes:
        tries: attempts at one address before it is given up.
        timeout_s: seconds without an answer, or without a byte, that end an attempt.
        backoff_s: wait before the second attempt; it doubles each time, to a minute at most.
        pause_s: rest after every address that was got, so that nobody is flooded.
    """

    tries: int = 5
    timeout_s: float = 30.0
    backoff_s: float = 1.0
    pause_s: float = 0.2
    session: requests.Session = field(default_factory=requests.Session, repr=False)

    def json(self, url: str, params: dict[str, Any]) -> Any:
        """The JSON that an address answers.

        Raises:
            FetchError: it does not, after all attempts.
        """

        def once() -> Any:
            with self._open(url, params) as answer:
                try:
                    return answer.json()
                except requests.JSONDecodeError as error:
                    raise _TryAgain("its answer is not JSON") from error

        return self._insist(url, once)

    def save(self, url: str, path: Path) -> None:
        """Saves what an address answers to a file, which appears only when it is whole.

        Raises:
            FetchError: the address does not answer, breaks off or is empty, after all attempts.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")

        def once() -> None:
            size = 0
            with self._open(url) as answer, partial.open("wb") as file:
                for block in answer.iter_content(BLOCK):
                    file.write(block)
                    size += len(block)
                promised = answer.headers.get("Content-Length")
                encoded = "Content-Encoding" in answer.headers
            if promised is not None and not encoded and size != int(promised):
                raise _TryAgain(f"it broke off after {size} of {promised} bytes")
            if not size:
                raise _TryAgain("it is empty")

        try:
            self._insist(url, once)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _open(self, url: str, params: dict[str, Any] | None = None) -> requests.Response:
        answer = self.session.get(url, params=params, timeout=self.timeout_s, stream=True)
        if answer.status_code in AGAIN:
            raise _TryAgain(f"it answered {answer.status_code}", _asked_wait(answer))
        if answer.status_code != 200:
            raise FetchError(f"{_shown(url)} answered {answer.status_code}")
        return answer

    def _insist(self, url: str, once: Callable[[], T]) -> T:
        """The first attempt that succeeds."""
        if not url.startswith(("http://", "https://")):
            raise FetchError(f"{url!r} is not an address")
        wait, reason = self.backoff_s, ""
        for attempt in range(self.tries):
            try:
                found = once()
            except _TryAgain as error:
                asked, reason = error.wait_s, str(error)
            except requests.RequestException as error:
                asked, reason = None, f"the connection failed ({type(error).__name__})"
            else:
                time.sleep(self.pause_s)
                return found
            if attempt + 1 < self.tries:
                time.sleep(min(LONGEST_WAIT_S, wait if asked is None else max(asked, wait)))
            wait *= 2
        raise FetchError(f"{_shown(url)} was given up after {self.tries} attempts: {reason}")


def _asked_wait(answer: requests.Response) -> float | None:
    asked = answer.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else None


def _shown(url: str) -> str:
    return url.split("?")[0]  # what follows may hold a key
