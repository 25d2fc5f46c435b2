"""The page: `python app.py [--option value ...]`; `--help` lists the options."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence

from align.recipes import parse
from studio.options import StudioOptions


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and serves the page until it is interrupted."""
    (options,) = parse((StudioOptions,), "app", "python app.py", arguments)
    # Gradio counts its users unless it is told not to; nothing here is to call outside.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # To be ended is to be interrupted: what runs in the background ends as well.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Whatever is heavy is imported after the options are known to be right.
    from studio.page import build, launch_options
    from studio.service import Service

    service = Service(options)
    page = build(service)
    try:
        page.launch(**launch_options(service), prevent_thread_lock=True)
        service.start()  # models are loaded, or trained, while the page is there
        page.block_thread()
    except KeyboardInterrupt:
        print("app.py: interrupted")
    except OSError as error:
        raise SystemExit(f"app.py: {error}") from error
    finally:
        service.close()


if __name__ == "__main__":
    main()
