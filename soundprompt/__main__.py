"""The console command: `soundprompt COMMAND [arguments]`, the same code as `python -m MODULE`."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from soundprompt import __version__


class Command(NamedTuple):
    """A command: the module with its `main`, and what it does."""

    module: str
    help: str


COMMANDS = {
    "train": Command("align.train", "Train an alignment of audio with prompt embeddings."),
    "train-unet": Command("diffuse.train", "Train an audio adapter of a UNet."),
    "tune": Command("align.tune.__main__", "Search hyperparameters of an alignment with Optuna."),
    "generate": Command("diffuse.generate", "Generate images from audio."),
    "edit": Command("diffuse.edit", "Edit an image with audio."),
    "animate": Command("diffuse.animate", "Generate a video that follows audio."),
    "evaluate": Command("align.evaluate", "Evaluate an encoder."),
    "evaluate-unet": Command("diffuse.evaluate", "Evaluate an audio adapter."),
    "encode": Command("align.encode", "Encode audio to prompt embeddings in a safetensors file."),
    "caption": Command("align.caption", "Caption the images of a folder."),
    "convert": Command("align.convert", "Convert an audio2img checkpoint to an encoder."),
    "download": Command("align.download", "Download what a recipe needs from the hub."),
    "collect": Command("diffuse.collect", "Collect audio-image pairs from a source."),
    "push": Command("align.push", "Upload an encoder to the hub."),
    "app": Command("soundprompt.app.__main__", "Serve the Gradio app."),
}
SOURCES = ("audiocaps", "jamendo", "vggsound", "videos")  # of `collect`


def usage() -> str:
    """The text of `soundprompt --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.help}" for name, command in COMMANDS.items()]
    return "\n".join(
        (
            "usage: soundprompt COMMAND [arguments]",
            "",
            "commands:",
            *lines,
            "",
            "examples:",
            "  soundprompt train",
            "  soundprompt generate dog.wav --output_dir images",
            "  soundprompt COMMAND --help",
        )
    )


def _error(message: str) -> SystemExit:
    print(f"soundprompt: {message}", file=sys.stderr)
    return SystemExit(2)


def _unknown(kind: str, name: str, known: Sequence[str]) -> SystemExit:
    near = difflib.get_close_matches(name, known, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are: {', '.join(known)}"
    return _error(f"there is no {kind} {name!r}{hint}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the module of a command with the remaining arguments.

    Args:
        arguments: the command line; that of the process by default.

    Raises:
        SystemExit: with status 2, there is no such command; else as the command's module.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] in ("-h", "--help"):
        print(usage())
        return
    if given[0] == "--version":
        print(__version__)
        return
    name, *rest = given
    if name not in COMMANDS:
        raise _unknown("command", name, list(COMMANDS))
    module = COMMANDS[name].module
    if name == "collect":
        if not rest or rest[0] in ("-h", "--help"):
            print(f"usage: soundprompt collect {{{','.join(SOURCES)}}} [arguments]")
            return
        source, *rest = rest
        if source not in SOURCES:
            raise _unknown("source", source, SOURCES)
        module = f"{module}.{source}"
    if name == "app":
        sys.argv = ["soundprompt app", *rest]
        importlib.import_module(module).run("soundprompt app")
        return
    importlib.import_module(module).main(rest)


if __name__ == "__main__":
    main()
