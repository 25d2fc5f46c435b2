"""Service behind the page and the API."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from align.audio.files import AudioError
from soundprompt.app import messages
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


POLL_S = 0.5  # between two checks of a running training


class RequestError(Exception):
    """A request failed; the message is shown to the user."""


class AppService:
    """State shared by all users: loaded models and running jobs.

    Args:
        options: Options of the app.
        load: Function that loads a pipeline. Defaults to `SoundPipeline.from_pretrained`.
    """

    def __init__(self, options: AppArguments, load: Callable[..., Any] | None = None) -> None:
        self.options = options
        self.pipelines = PipelineCache(options, load)
        self.jobs = RunningJobs()
        self.mini_encoder = MiniEncoderTraining(mini_encoder_dir(options))

    def start(self) -> None:
        """Load the initially selected models in the background.

        The `mini` encoder is trained first if it is missing.
        """
        if self.default_models.encoder == MINI:
            self.mini_encoder.start()
        threading.Thread(target=self._preload, daemon=True).start()

    @property
    def default_models(self) -> ModelChoice:
        """Initially selected models."""
        options = self.options
        return ModelChoice(
            options.base_model, options.encoder or MINI, options.adapter or NO_ADAPTER
        )

    def _preload(self) -> None:
        while self.default_models.encoder == MINI and not self.mini_encoder.ready:
            if self.mini_encoder.failure:
                return  # reported at the next request
            time.sleep(POLL_S)
        with self.pipelines.lock:
            try:
                self.pipelines.get(self.default_models)
            except Exception as error:  # reported at the next request as well
                print(f"soundprompt.app: {error}", file=sys.stderr)

    def close(self) -> None:
        """Stop background processes."""
        self.mini_encoder.stop()

    def generate(
        self, audio: str | None, given: dict[str, Any], session_id: str
    ) -> Iterator[tuple[list[Any] | None, dict[str, Any] | None, str]]:
        """Generate images and report every step.

        Args:
            audio: Path of the uploaded audio.
            given: Values by the names of the fields of the page.
            session_id: Session that the request belongs to.

        Yields:
            Images, metadata and status; images and metadata are None before the last item.

        Raises:
            RequestError: The request is invalid or failed.
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
                f"Generation failed ({type(error).__name__}). Try again with fewer images or other "
                "models; see the log of the server for details."
            ) from error

    def _wait_for_mini_encoder(
        self, stop_event: threading.Event
    ) -> Iterator[tuple[None, None, str]]:
        self.mini_encoder.start()
        while not self.mini_encoder.ready:
            if self.mini_encoder.failure:
                raise RequestError(
                    f"Training of the mini encoder failed: {self.mini_encoder.failure}. Click "
                    "Generate to try again, or select another encoder."
                )
            yield None, None, messages.training_progress(self.mini_encoder.progress)
            if stop_event.wait(POLL_S):
                yield None, None, messages.status("Stopped.")
                return

    def _run(
        self,
        path: str,
        uploaded: UploadedAudio,
        request: GenerationRequest,
        stop_event: threading.Event,
    ) -> Iterator[tuple[list[Any] | None, dict[str, Any] | None, str]]:
        start = time.monotonic()
        yield None, None, messages.status("Loading the models and encoding the audio …")
        for update in run_job(
            lambda report_step: self._call_pipeline(path, request, report_step),
            stop_event,
            self.options.max_generation_s,
        ):
            if isinstance(update, StepUpdate):
                status = messages.generation_progress(update.done, update.total, request.num_images)
                yield None, None, status
        assert isinstance(update, JobResult)
        if update.error is not None:
            raise update.error
        if update.timed_out:
            raise RequestError(
                f"The generation took longer than {self.options.max_generation_s:g} s and was "
                "stopped: reduce the number of steps or images."
            )
        if update.result.metadata.get("stopped"):
            yield None, None, messages.status("Stopped.")
            return
        seconds = time.monotonic() - start
        relation = update.result.relation
        message = messages.generation_summary(
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
        """List the available models; returns base_models, encoders and adapters."""
        found = find_models(self.options)
        return {
            "base_models": list(found.base_model),
            "encoders": list(found.encoder),
            "adapters": list(found.adapter),
        }


def visible_metadata(metadata: dict[str, Any], request: GenerationRequest) -> dict[str, Any]:
    """Metadata shown to the user, with the selected names of the models instead of paths.

    Args:
        metadata: Metadata of the pipeline output.
        request: Request that the images were generated for.
    """
    names = vars(request.models)
    hidden = ("adapter", "stopped", *names)  # "adapter" is the adapter's folder
    given = {name: value for name, value in metadata.items() if name not in hidden}
    return {name: value for name, value in given.items() if value is not None} | names
