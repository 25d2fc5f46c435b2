"""Command line of the web app: `python -m soundprompt.app [--option value ...]`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib.util import find_spec

from align.config.parser import parse
from soundprompt.app.arguments import AppArguments

COMMAND = "python -m soundprompt.app"


def main(arguments: Sequence[str] | None = None, command: str = COMMAND) -> None:
    """Parse the command line and serve the app until it is interrupted.

    Args:
        arguments: Command-line arguments. Defaults to those of the process.
        command: Name of the command in `--help` and in error messages.
    """
    (options,) = parse((AppArguments,), "app", command, arguments)
    if find_spec("gradio") is None:
        raise SystemExit(f'{command}: the app needs Gradio: pip install "soundprompt[app]"')
    # Gradio sends usage statistics by default; the app contacts no other host.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # Treat termination as an interrupt so that background processes are stopped as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    serve(options, command)


def serve(options: AppArguments, command: str) -> None:
    """Serve the app until it is interrupted.

    Args:
        options: Options of the app.
        command: Name of the command in error messages.
    """
    # Heavy imports come after the options are validated.
    from soundprompt.app.page import build_app, launch_kwargs
    from soundprompt.app.service import AppService

    service = AppService(options)
    page = build_app(service)
    try:
        page.launch(**launch_kwargs(service), prevent_thread_lock=True)
        service.start()  # models are loaded, or trained, while the page is already served
        page.block_thread()
    except KeyboardInterrupt:
        print(f"{command}: interrupted")
    except OSError as error:
        raise SystemExit(f"{command}: {error}") from error
    finally:
        service.close()


def run(command: str) -> None:
    """Serve the app like `main`, then exit the process immediately.

    Threads that load models or generate images cannot be stopped, and some libraries abort the
    process if the interpreter shuts down while they run.

    Args:
        command: Name of the command in `--help` and in error messages.
    """
    main(command=command)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    run(COMMAND)
