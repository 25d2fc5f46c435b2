"""The page: `python app.py [--option value ...]`; `--help` lists the options."""

from __future__ import annotations

import os
from collections.abc import Sequence

from align.recipes import parse
from studio.options import StudioOptions


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and serves the page until it is interrupted."""
    (options,) = parse((StudioOptions,), "app", "python app.py", arguments)
    # Gradio counts its users unless it is told not to; nothing here is to call outside.
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # Whatever is heavy is imported after the options are known to be right.
    from studio.page import build, launch_options
    from studio.service import Service

    service = Service(options)
    service.start()
    try:
        build(service).launch(**launch_options(service))
    except OSError as error:
        raise SystemExit(f"app.py: {error}") from error
    finally:
        service.close()


if __name__ == "__main__":
    main()
