"""Files over HTTP, politely: few at a time, retried with an end, whole or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import requests

RETRY_STATUS_CODES = (429, 500, 502, 503, 504)
MAX_WAIT_S = 60.0  # whatever a server asks for
BLOCK = 1 << 16
T = TypeVar("T")


class DownloadError(RuntimeError):
    """An address did not give what it should; the message says which and why."""


class _RetryableError(Exception):
    """What went wrong may pass; `wait_s` is what the server asked for, if anything."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass
class Downloader:
    """Gets addresses one after the other.

    Attributes:
        tries: attempts at one address before it is given up.
        timeout_s: seconds without an answer, or without a byte, that end an attempt.
        backoff_s: wait before the second attempt; it doubles each time, to a minute at most.
        pause_s: rest after every address that was got, so that nobody is flooded.
    """

    max_attempts: int = 5
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
            with self._open(url, params) as response:
                try:
                    return response.json()
                except requests.JSONDecodeError as error:
                    raise _RetryableError("its answer is not JSON") from error

        return self._retry(url, once)

    def save(self, url: str, path: Path) -> None:
        """Saves what an address answers to a file, which appears only when it is whole.

        Raises:
            FetchError: the address does not answer, breaks off or is empty, after all attempts.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")

        def once() -> None:
            size = 0
            with self._open(url) as response, partial.open("wb") as file:
                for block in response.iter_content(BLOCK):
                    file.write(block)
                    size += len(block)
                promised = response.headers.get("Content-Length")
                encoded = "Content-Encoding" in response.headers
            if promised is not None and not encoded and size != int(promised):
                raise _RetryableError(f"it broke off after {size} of {promised} bytes")
            if not size:
                raise _RetryableError("it is empty")

        try:
            self._retry(url, once)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _open(self, url: str, params: dict[str, Any] | None = None) -> requests.Response:
        response = self.session.get(url, params=params, timeout=self.timeout_s, stream=True)
        if response.status_code in RETRY_STATUS_CODES:
            raise _RetryableError(f"it answered {response.status_code}", _retry_after(response))
        if response.status_code != 200:
            raise DownloadError(f"{_without_query(url)} answered {response.status_code}")
        return response

    def _retry(self, url: str, once: Callable[[], T]) -> T:
        """The first attempt that succeeds."""
        if not url.startswith(("http://", "https://")):
            raise DownloadError(f"{url!r} is not an address")
        wait, reason = self.backoff_s, ""
        for attempt in range(self.max_attempts):
            try:
                found = once()
            except _RetryableError as error:
                retry_after_s, reason = error.wait_s, str(error)
            except requests.RequestException as error:
                retry_after_s, reason = None, f"the connection failed ({type(error).__name__})"
            else:
                time.sleep(self.pause_s)
                return found
            if attempt + 1 < self.max_attempts:
                time.sleep(
                    min(MAX_WAIT_S, wait if retry_after_s is None else max(retry_after_s, wait))
                )
            wait *= 2
        raise DownloadError(
            f"{_without_query(url)} was given up after {self.max_attempts} attempts: {reason}"
        )


def _retry_after(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _without_query(url: str) -> str:
    return url.split("?")[0]  # what follows may hold a key
