"""One drawing: in a thread of its own, told step by step, stopped on demand or at its limit."""

from __future__ import annotations

import queue
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class StepUpdate:
    """A denoising step that is done, of how many."""

    done: int
    total: int


@dataclass(frozen=True)
class JobResult:
    """What a drawing gave: its result, an error, and whether it ran out of time."""

    result: Any = None
    error: BaseException | None = None
    timed_out: bool = False


ReportStep = Callable[[int, int], bool]  # takes (step, steps), answers whether to stop


def run_job(
    work: Callable[[ReportStep], Any], stop_event: threading.Event, timeout_s: float
) -> Iterator[Any]:
    """Runs a drawing and yields a `StepUpdate` for each step, then one `JobResult`.

    Whoever stops to listen (a visitor who leaves, a client that cancels) stops the drawing.

    Args:
        work: draws, and asks its argument at every step whether to stop.
        stop: set by whoever wants it stopped.
        max_s: seconds after which it is stopped.
    """
    updates: queue.SimpleQueue[StepUpdate | JobResult] = queue.SimpleQueue()
    end = time.monotonic() + timeout_s

    def report_step(done: int, total: int) -> bool:
        updates.put(StepUpdate(done, total))
        return stop_event.is_set() or time.monotonic() > end

    def run() -> None:
        try:
            result = work(report_step)
        except BaseException as error:  # goes to the listener, whatever it is
            updates.put(JobResult(error=error))
        else:
            updates.put(
                JobResult(result, timed_out=not stop_event.is_set() and time.monotonic() > end)
            )

    threading.Thread(target=run, daemon=True).start()
    try:
        while True:
            item = updates.get()
            yield item
            if isinstance(item, JobResult):
                return
    finally:
        stop_event.set()


class RunningJobs:
    """Who draws at the moment, so that each visitor stops only what is theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, list[threading.Event]] = defaultdict(list)

    @contextmanager
    def register(self, session_id: str) -> Iterator[threading.Event]:
        """The event that stops a visitor's drawing while it lasts."""
        event = threading.Event()
        with self._lock:
            self._events[session_id].append(event)
        try:
            yield event
        finally:
            with self._lock:
                self._events[session_id].remove(event)
                if not self._events[session_id]:
                    del self._events[session_id]

    def stop(self, session_id: str) -> bool:
        """Stops all drawings of a visitor; whether there was one."""
        with self._lock:
            events = list(self._events.get(session_id, ()))
        for event in events:
            event.set()
        return bool(events)
