"""Generation jobs: run in a thread, report every step, stop on request or at the time limit."""

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
    """Number of finished denoising steps and number of all steps."""

    done: int
    total: int


@dataclass(frozen=True)
class JobResult:
    """Result or error of a job, and whether it exceeded the time limit."""

    result: Any = None
    error: BaseException | None = None
    timed_out: bool = False


ReportStep = Callable[[int, int], bool]  # takes (done, total), returns whether to stop


def run_job(
    work: Callable[[ReportStep], Any], stop_event: threading.Event, timeout_s: float
) -> Iterator[Any]:
    """Run a job and yield a `StepUpdate` for each step, then one `JobResult`.

    Closing the iterator (a user leaves the page, a client cancels) stops the job.

    Args:
        work: Job; calls its argument at every step, which returns whether to stop.
        stop_event: Stops the job when set.
        timeout_s: Time limit in seconds.
    """
    updates: queue.SimpleQueue[StepUpdate | JobResult] = queue.SimpleQueue()
    end = time.monotonic() + timeout_s

    def report_step(done: int, total: int) -> bool:
        updates.put(StepUpdate(done, total))
        return stop_event.is_set() or time.monotonic() > end

    def run() -> None:
        try:
            result = work(report_step)
        except BaseException as error:  # reported to the caller, whatever it is
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
    """Running jobs by session, so that users stop only their own jobs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, list[threading.Event]] = defaultdict(list)

    @contextmanager
    def register(self, session_id: str) -> Iterator[threading.Event]:
        """Register a job for the duration of the context.

        Args:
            session_id: Session that the job belongs to.

        Yields:
            The event that stops the job.
        """
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
        """Stop all jobs of a session.

        Args:
            session_id: Session whose jobs are stopped.

        Returns:
            Whether any job was running.
        """
        with self._lock:
            events = list(self._events.get(session_id, ()))
        for event in events:
            event.set()
        return bool(events)
