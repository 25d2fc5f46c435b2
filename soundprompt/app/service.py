"""What the page's buttons and the API's names do."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from align.audio.files import AudioError
from soundprompt.app import messages as words
from soundprompt.app.arguments import StudioOptions
from soundprompt.app.audio_input import Sound, hear
from soundprompt.app.bootstrap import Miniature
from soundprompt.app.jobs import Outcome, Step, Stops, draw
from soundprompt.app.models import (
    MINIATURE,
    NONE,
    Choice,
    ModelError,
    Shelf,
    find,
    miniature_folder,
)
from soundprompt.app.validation import Wish, WishError, checked

if TYPE_CHECKING:
    from collections.abc import Callable


POLL_S = 0.5  # between two looks at a training that is waited for


class Refusal(Exception):
    """A drawing that cannot be had, in a sentence for the visitor."""


class Service:
    """Holds what all visitors share: the models, and nothing that is any visitor's own.

    Args:
        options: of the app.
        load: makes pipelines; `SoundPipeline.from_pretrained` by default.
    """

    def __init__(self, options: StudioOptions, load: Callable[..., Any] | None = None) -> None:
        self.options = options
        self.shelf = Shelf(options, load)
        self.stops = Stops()
        self.miniature = Miniature(miniature_folder(options))

    def start(self) -> None:
        """Loads the models that the page starts on, while the page is already there.

        The miniature's encoder is trained first where it is missing.
        """
        if self.first.encoder == MINIATURE:
            self.miniature.start()
        threading.Thread(target=self._warm, daemon=True).start()

    @property
    def first(self) -> Choice:
        """The models that the page starts on."""
        options = self.options
        return Choice(options.base, options.encoder or MINIATURE, options.adapter or NONE)

    def _warm(self) -> None:
        while self.first.encoder == MINIATURE and not self.miniature.ready:
            if self.miniature.failure:
                return  # told to whoever draws
            time.sleep(POLL_S)
        with self.shelf.lock:
            try:
                self.shelf.take(self.first)
            except Exception as error:  # told to whoever draws as well
                print(f"studio: {error}", file=sys.stderr)

    def close(self) -> None:
        """Ends what runs in the background."""
        self.miniature.stop()

    def generate(
        self, sound: str | None, given: dict[str, Any], visitor: str
    ) -> Iterator[tuple[list[Any] | None, dict[str, Any] | None, str]]:
        """Draws, and tells at every step: pictures, settings and status, the first two at the end.

        Args:
            sound: path of the visitor's sound.
            given: what was asked for, by the names of the page's fields.
            visitor: whose drawing it is, for `stop`.

        Raises:
            Refusal: it cannot be drawn, in a sentence.
        """
        try:
            wish = checked(given, self.options)
            heard = hear(sound, self.options)
            with self.stops.event(visitor) as stop:
                if wish.choice.encoder == MINIATURE:
                    yield from self._wait(stop)
                if not stop.is_set():
                    yield from self._draw(str(sound), heard, wish, stop)
        except (AudioError, WishError, ModelError, ValueError) as error:
            raise Refusal(str(error)) from error
        except Refusal:
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            raise Refusal(
                f"Drawing failed here ({type(error).__name__}). Try again with fewer pictures or "
                "other models; the server's log says more."
            ) from error

    def _wait(self, stop: threading.Event) -> Iterator[tuple[None, None, str]]:
        self.miniature.start()
        while not self.miniature.ready:
            if self.miniature.failure:
                raise Refusal(
                    f"The miniature could not learn to hear: {self.miniature.failure}. "
                    "Draw again to try once more, or choose another encoder."
                )
            yield None, None, words.learning(self.miniature.share)
            if stop.wait(POLL_S):
                yield None, None, words.status("Stopped.")
                return

    def _draw(
        self, path: str, heard: Sound, wish: Wish, stop: threading.Event
    ) -> Iterator[tuple[list[Any] | None, dict[str, Any] | None, str]]:
        begin = time.monotonic()
        yield None, None, words.status("Loading the models and listening …")
        for news in draw(lambda tell: self._work(path, wish, tell), stop, self.options.max_draw_s):
            if isinstance(news, Step):
                yield None, None, words.step(news.done, news.of, wish.pictures)
        assert isinstance(news, Outcome)
        if news.error is not None:
            raise news.error
        if news.late:
            raise Refusal(
                f"The drawing took longer than {self.options.max_draw_s:g} s and was stopped: "
                "ask for fewer steps or pictures."
            )
        if news.result.settings.get("stopped"):
            yield None, None, words.status("Stopped.")
            return
        seconds = time.monotonic() - begin
        relation = news.result.relation
        said = words.drawn(wish.pictures, seconds, relation, heard.lost)
        images = [(image, f"seed {wish.seed + i}") for i, image in enumerate(news.result.images)]
        yield images, settings(news.result.settings, wish), said

    def _work(self, path: str, wish: Wish, tell: Any) -> Any:
        with self.shelf.lock:
            return self.shelf.take(wish.choice)(path, callback=tell, **wish.arguments)

    def names(self) -> dict[str, list[str]]:
        """The models that can be chosen by name: bases, encoders, adapters."""
        found = find(self.options)
        return {
            "bases": list(found.base),
            "encoders": list(found.encoder),
            "adapters": list(found.adapter),
        }


def settings(made: dict[str, Any], wish: Wish) -> dict[str, Any]:
    """What made the pictures, for their visitor: models by the names they were chosen by."""
    names = vars(wish.choice)
    left_out = ("sound", "stopped", *names)  # "sound" is the adapter's folder
    given = {name: value for name, value in made.items() if name not in left_out}
    return {name: value for name, value in given.items() if value is not None} | names
