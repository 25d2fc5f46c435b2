"""Recipes and flags: a recipe states what differs from the defaults, a flag overrides both."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import yaml

if TYPE_CHECKING:
    from transformers import HfArgumentParser


def recipe_folder(package: str) -> Path:
    """The folder of a package's recipes."""
    return Path(str(resources.files(package))) / "recipes"


class Gathered(argparse.Action):
    """An option that may be given several times: `--base A --base B` is `--base A B`."""

    _given = False

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Replaces the default with what is given first, and adds to that what comes later."""
        before = getattr(namespace, self.dest) if self._given else []
        self._given = True
        setattr(namespace, self.dest, [*before, *values])


def find_recipe(name: str, room: str) -> Path | None:
    """The file of a recipe given by path, or by its name in recipes/ROOM."""
    folder = recipe_folder(room)
    for path in (Path(name), folder / f"{name}.yaml", folder / name):
        if path.is_file():
            return path
    return None


def _read(parser: Any, name: str, room: str) -> dict[str, Any]:
    path = find_recipe(name, room)
    if path is None:
        there = ", ".join(sorted(p.stem for p in recipe_folder(room).glob("*.yaml")))
        parser.error(f"there is no recipe {name!r}: neither a file nor one of: {there}")
    assert path is not None  # error() ends the process
    try:
        recipe = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        parser.error(f"{path} is not YAML: {error}")
    if not isinstance(recipe, dict):
        parser.error(f"{path} must hold keys and values, not a {type(recipe).__name__}")
    known = {action.dest for action in parser._actions} - {"help"}
    if room == "align" and "space" not in known:
        recipe.pop("space", None)  # what align.tune searches, of a run of its own
    for key in recipe:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            parser.error(f"{path}: there is no option {key!r}{hint}")
    return recipe


def _checked(parser: HfArgumentParser, recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe's values, each passed through its option's own type."""
    actions = {a.dest: a for a in parser._actions if a.const is not False}  # not the --no_ twins
    hints = (item for kind in parser.dataclass_types for item in get_type_hints(kind).items())
    optional = {name for name, hint in hints if type(None) in get_args(hint)}
    for key, value in recipe.items():
        if value is None and key in optional:
            continue
        try:
            recipe[key] = _typed(actions[key], value)
        except (ValueError, TypeError, argparse.ArgumentTypeError) as error:
            parser.error(f"recipe key {key}: {value!r} is not accepted ({error})")
    return recipe


def _typed(action: argparse.Action, value: Any) -> Any:
    """A recipe's value as the command line would have made it."""
    several = action.nargs in ("+", "*")
    if several and isinstance(value, str):
        value = [value]
    if several != isinstance(value, list):
        raise ValueError("it must be a list" if several else "it must be one value")
    values = value if several else [value]
    truths = action.nargs == "?"  # HfArgumentParser's mark of a boolean option
    if any(isinstance(v, bool) for v in values) and not truths:
        raise ValueError("YAML reads yes, no, on and off as truth values: put it in quotes")
    if any(v is None for v in values):
        raise ValueError("it has no value")
    convert = action.type if callable(action.type) else str
    typed = [convert(json.dumps(v) if isinstance(v, dict) else str(v)) for v in values]
    if action.choices is not None and not set(typed) <= set(action.choices):
        raise ValueError(f"choose from: {', '.join(map(str, action.choices))}")
    return typed if several else typed[0]


def parse(
    kinds: Sequence[Any],
    room: str,
    command: str,
    arguments: Sequence[str] | None = None,
    check: Callable[..., None] | None = None,
) -> tuple[Any, ...]:
    """The options of a command line `[RECIPE] [--flags]`, one dataclass each.

    Args:
        kinds: the dataclasses whose fields are options.
        room: the folder below recipes/ in which names are looked up.
        command: what the user called, for the usage line.
        arguments: the command line; that of the process by default.
        check: is called with the dataclasses; a ValueError of it is an error of the command line.

    Raises:
        SystemExit: an option, a recipe or a recipe's key does not exist or has a wrong value;
            the message names it.
    """
    from transformers import HfArgumentParser

    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = HfArgumentParser(
        kinds,
        prog=command,
        usage=f"{command} [RECIPE] [--option value ...]",
        allow_abbrev=False,
    )
    if given and not given[0].startswith("-"):
        parser.set_defaults(**_checked(parser, _read(parser, given.pop(0), room)))
    try:
        *options, rest = parser.parse_args_into_dataclasses(
            given, return_remaining_strings=True, look_for_args_file=False
        )
        if check is not None and not rest:
            check(*options)
    except (ValueError, ImportError) as error:  # what a dataclass does not accept
        parser.error(str(error))
    if rest:
        known = [s for action in parser._actions for s in action.option_strings]
        near = difflib.get_close_matches(rest[0].split("=")[0], known, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        parser.error(f"there is no option {rest[0]!r}{hint}")
    return tuple(options)
