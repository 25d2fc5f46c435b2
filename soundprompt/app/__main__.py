"""The app: `python -m soundprompt.app [--option value ...]`."""

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
    """Parses the command line and serves the page until it is interrupted.

    Args:
        arguments: the command line; that of the process by default.
        command: what the user called.
    """
    (options,) = parse((AppArguments,), "app", command, arguments)
    if find_spec("gradio") is None:
        raise SystemExit(f'{command}: the page needs Gradio: pip install "soundprompt[app]"')
    # Gradio counts its users unless it is told not to; nothing here is to call outside.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # To be ended is to be interrupted: what runs in the background ends as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    serve(options, command)


def serve(options: AppArguments, command: str) -> None:
    """Serves the page until it is interrupted."""
    # Whatever is heavy is imported after the options are known to be right.
    from soundprompt.app.page import build_app, launch_kwargs
    from soundprompt.app.service import AppService

    service = AppService(options)
    page = build_app(service)
    try:
        page.launch(**launch_kwargs(service), prevent_thread_lock=True)
        service.start()  # models are loaded, or trained, while the page is there
        page.block_thread()
    except KeyboardInterrupt:
        print(f"{command}: interrupted")
    except OSError as error:
        raise SystemExit(f"{command}: {error}") from error
    finally:
        service.close()


def run(command: str) -> None:
    """Serves the page as `main` does, and ends this process.

    It ends at once: threads that load or draw cannot be stopped, and some libraries abort the
    process where the interpreter ends below them.
    """
    main(command=command)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def console_entry() -> None:
    """What `soundprompt-app` calls."""
    run("soundprompt-app")


if __name__ == "__main__":
    run(COMMAND)
