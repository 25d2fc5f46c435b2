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
class Step:
    """A denoising step that is done, of how many."""

    done: int
    of: int


@dataclass(frozen=True)
class Outcome:
    """What a drawing gave: its result, an error, and whether it ran out of time."""

    result: Any = None
    error: BaseException | None = None
    late: bool = False


Tell = Callable[[int, int], bool]  # takes (step, steps), answers whether to stop


def draw(work: Callable[[Tell], Any], stop: threading.Event, max_s: float) -> Iterator[Any]:
    """Runs a drawing and yields a `Step` for each step, then one `Outcome`.

    Whoever stops to listen (a visitor who leaves, a client that cancels) stops the drawing.

    Args:
        work: draws, and asks its argument at every step whether to stop.
        stop: set by whoever wants it stopped.
        max_s: seconds after which it is stopped.
    """
    news: queue.SimpleQueue[Step | Outcome] = queue.SimpleQueue()
    end = time.monotonic() + max_s

    def tell(done: int, of: int) -> bool:
        news.put(Step(done, of))
        return stop.is_set() or time.monotonic() > end

    def run() -> None:
        try:
            result = work(tell)
        except BaseException as error:  # goes to the listener, whatever it is
            news.put(Outcome(error=error))
        else:
            news.put(Outcome(result, late=not stop.is_set() and time.monotonic() > end))

    threading.Thread(target=run, daemon=True).start()
    try:
        while True:
            item = news.get()
            yield item
            if isinstance(item, Outcome):
                return
    finally:
        stop.set()


class Stops:
    """Who draws at the moment, so that each visitor stops only what is theirs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._events: dict[str, list[threading.Event]] = defaultdict(list)

    @contextmanager
    def event(self, visitor: str) -> Iterator[threading.Event]:
        """The event that stops a visitor's drawing while it lasts."""
        event = threading.Event()
        with self._lock:
            self._events[visitor].append(event)
        try:
            yield event
        finally:
            with self._lock:
                self._events[visitor].remove(event)
                if not self._events[visitor]:
                    del self._events[visitor]

    def stop(self, visitor: str) -> bool:
        """Stops all drawings of a visitor; whether there was one."""
        with self._lock:
            events = list(self._events.get(visitor, ()))
        for event in events:
            event.set()
        return bool(events)
