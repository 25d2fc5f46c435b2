"""HTTP downloads with rate limiting, retries and atomic writes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import requests

RETRY_STATUS_CODES = (429, 500, 502, 503, 504)
MAX_WAIT_S = 60.0  # upper limit of Retry-After
BLOCK = 1 << 16
T = TypeVar("T")


class DownloadError(RuntimeError):
    """A download failed; the message names the URL and the reason."""


class _RetryableError(Exception):
    """A temporary failure; `wait_s` is the delay that the server asked for, if any."""

    def __init__(self, reason: str, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


@dataclass
class Downloader:
    """Downloads URLs one after the other.

    Attributes:
        max_attempts: Maximum number of attempts per URL.
        timeout_s: Timeout of a connection, and of each read, in seconds.
        backoff_s: Delay before the second attempt in seconds; doubles up to one minute.
        pause_s: Delay after each successful request in seconds, to limit the request rate.
        session: HTTP session.
    """

    max_attempts: int = 5
    timeout_s: float = 30.0
    backoff_s: float = 1.0
    pause_s: float = 0.2
    session: requests.Session = field(default_factory=requests.Session, repr=False)

    def json(self, url: str, params: dict[str, Any]) -> Any:
        """Return the JSON response of a URL.

        Args:
            url: URL to get.
            params: Query parameters.

        Raises:
            DownloadError: If all attempts fail.
        """

        def attempt_once() -> Any:
            with self._open(url, params) as response:
                try:
                    return response.json()
                except requests.JSONDecodeError as error:
                    raise _RetryableError("the response is not JSON") from error

        return self._retry(url, attempt_once)

    def save(self, url: str, path: Path) -> None:
        """Download a URL to a file, which is created only when it is complete.

        Args:
            url: URL to get.
            path: Output file.

        Raises:
            DownloadError: If all attempts fail, or return an incomplete or empty file.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(path.name + ".partial")

        def attempt_once() -> None:
            size = 0
            with self._open(url) as response, partial.open("wb") as file:
                for block in response.iter_content(BLOCK):
                    file.write(block)
                    size += len(block)
                expected_size = response.headers.get("Content-Length")
                encoded = "Content-Encoding" in response.headers
            if expected_size is not None and not encoded and size != int(expected_size):
                raise _RetryableError(f"the response ended after {size} of {expected_size} bytes")
            if not size:
                raise _RetryableError("the response is empty")

        try:
            self._retry(url, attempt_once)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def _open(self, url: str, params: dict[str, Any] | None = None) -> requests.Response:
        response = self.session.get(url, params=params, timeout=self.timeout_s, stream=True)
        if response.status_code in RETRY_STATUS_CODES:
            raise _RetryableError(
                f"the server returned {response.status_code}", _retry_after(response)
            )
        if response.status_code != 200:
            raise DownloadError(f"{_without_query(url)} returned {response.status_code}")
        return response

    def _retry(self, url: str, attempt_once: Callable[[], T]) -> T:
        """Return the result of the first attempt that succeeds."""
        if not url.startswith(("http://", "https://")):
            raise DownloadError(f"{url!r} is not a URL")
        wait, reason = self.backoff_s, ""
        for attempt in range(self.max_attempts):
            try:
                result = attempt_once()
            except _RetryableError as error:
                retry_after_s, reason = error.wait_s, str(error)
            except requests.RequestException as error:
                retry_after_s, reason = None, f"the connection failed ({type(error).__name__})"
            else:
                time.sleep(self.pause_s)
                return result
            if attempt + 1 < self.max_attempts:
                time.sleep(
                    min(MAX_WAIT_S, wait if retry_after_s is None else max(retry_after_s, wait))
                )
            wait *= 2
        raise DownloadError(
            f"{_without_query(url)} failed after {self.max_attempts} attempts: {reason}"
        )


def _retry_after(response: requests.Response) -> float | None:
    value = response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _without_query(url: str) -> str:
    return url.split("?")[0]  # the query may contain an API key
