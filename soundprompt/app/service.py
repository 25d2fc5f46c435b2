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
from soundprompt.app.arguments import AppArguments
from soundprompt.app.audio_input import UploadedAudio, read_upload
from soundprompt.app.bootstrap import MiniEncoderTraining
from soundprompt.app.jobs import JobResult, RunningJobs, StepUpdate, run_job
from soundprompt.app.models import (
    MINI,
    NO_ADAPTER,
    ModelChoice,
    ModelError,
    PipelineCache,
    find_models,
    mini_encoder_dir,
)
from soundprompt.app.validation import GenerationRequest, InvalidRequestError, validate_request

if TYPE_CHECKING:
    from collections.abc import Callable


POLL_S = 0.5  # between two looks at a training that is waited for


class RequestError(Exception):
    """A drawing that cannot be had, in a sentence for the visitor."""


class AppService:
    """Holds what all visitors share: the models, and nothing that is any visitor's own.

    Args:
        options: of the app.
        load: makes pipelines; `SoundPipeline.from_pretrained` by default.
    """

    def __init__(self, options: AppArguments, load: Callable[..., Any] | None = None) -> None:
        self.options = options
        self.pipelines = PipelineCache(options, load)
        self.jobs = RunningJobs()
        self.mini_encoder = MiniEncoderTraining(mini_encoder_dir(options))

    def start(self) -> None:
        """Loads the models that the page starts on, while the page is already there.

        The miniature's encoder is trained first where it is missing.
        """
        if self.default_models.encoder == MINI:
            self.mini_encoder.start()
        threading.Thread(target=self._preload, daemon=True).start()

    @property
    def default_models(self) -> ModelChoice:
        """The models that the page starts on."""
        options = self.options
        return ModelChoice(
            options.base_model, options.encoder or MINI, options.adapter or NO_ADAPTER
        )

    def _preload(self) -> None:
        while self.default_models.encoder == MINI and not self.mini_encoder.ready:
            if self.mini_encoder.failure:
                return  # told to whoever draws
            time.sleep(POLL_S)
        with self.pipelines.lock:
            try:
                self.pipelines.get(self.default_models)
            except Exception as error:  # told to whoever draws as well
                print(f"studio: {error}", file=sys.stderr)

    def close(self) -> None:
        """Ends what runs in the background."""
        self.mini_encoder.stop()

    def generate(
        self, audio: str | None, given: dict[str, Any], session_id: str
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
            request = validate_request(given, self.options)
            uploaded = read_upload(audio, self.options)
            with self.jobs.register(session_id) as stop_event:
                if request.models.encoder == MINI:
                    yield from self._wait_for_mini_encoder(stop_event)
                if not stop_event.is_set():
                    yield from self._run(str(audio), uploaded, request, stop_event)
        except (AudioError, InvalidRequestError, ModelError, ValueError) as error:
            raise RequestError(str(error)) from error
        except RequestError:
            raise
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            raise RequestError(
                f"Drawing failed here ({type(error).__name__}). Try again with fewer pictures or "
                "other models; the server's log says more."
            ) from error

    def _wait_for_mini_encoder(
        self, stop_event: threading.Event
    ) -> Iterator[tuple[None, None, str]]:
        self.mini_encoder.start()
        while not self.mini_encoder.ready:
            if self.mini_encoder.failure:
                raise RequestError(
                    f"The miniature could not learn to hear: {self.mini_encoder.failure}. "
                    "Draw again to try once more, or choose another encoder."
                )
            yield None, None, words.training_progress(self.mini_encoder.progress)
            if stop_event.wait(POLL_S):
                yield None, None, words.status("Stopped.")
                return

    def _run(
        self,
        path: str,
        uploaded: UploadedAudio,
        request: GenerationRequest,
        stop_event: threading.Event,
    ) -> Iterator[tuple[list[Any] | None, dict[str, Any] | None, str]]:
        start = time.monotonic()
        yield None, None, words.status("Loading the models and listening …")
        for update in run_job(
            lambda report_step: self._call_pipeline(path, request, report_step),
            stop_event,
            self.options.max_generation_s,
        ):
            if isinstance(update, StepUpdate):
                yield (
                    None,
                    None,
                    words.generation_progress(update.done, update.total, request.num_images),
                )
        assert isinstance(update, JobResult)
        if update.error is not None:
            raise update.error
        if update.timed_out:
            raise RequestError(
                f"The drawing took longer than {self.options.max_generation_s:g} s and was stopped: "
                "ask for fewer steps or pictures."
            )
        if update.result.metadata.get("stopped"):
            yield None, None, words.status("Stopped.")
            return
        seconds = time.monotonic() - start
        relation = update.result.relation
        message = words.generation_summary(
            request.num_images, seconds, relation, uploaded.decode_warnings
        )
        images = [
            (image, f"seed {request.seed + i}") for i, image in enumerate(update.result.images)
        ]
        yield images, visible_metadata(update.result.metadata, request), message

    def _call_pipeline(self, path: str, request: GenerationRequest, report_step: Any) -> Any:
        with self.pipelines.lock:
            return self.pipelines.get(request.models)(
                path, callback=report_step, **request.pipeline_kwargs
            )

    def model_names(self) -> dict[str, list[str]]:
        """The models that can be chosen by name: bases, encoders, adapters."""
        found = find_models(self.options)
        return {
            "base_models": list(found.base_model),
            "encoders": list(found.encoder),
            "adapters": list(found.adapter),
        }


def visible_metadata(metadata: dict[str, Any], request: GenerationRequest) -> dict[str, Any]:
    """What made the pictures, for their visitor: models by the names they were chosen by."""
    names = vars(request.models)
    hidden = ("adapter", "stopped", *names)  # "adapter" is the adapter's folder
    given = {name: value for name, value in metadata.items() if name not in hidden}
    return {name: value for name, value in given.items() if value is not None} | names
