"""Command line parser for option dataclasses: `COMMAND [RECIPE] [--option value ...]`.

A recipe is a YAML file with the options that differ from the defaults; flags override it. Option
names are checked and `--help` is printed from plain dataclasses, before transformers is imported.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, get_args, get_type_hints

import yaml

from align.config.trainer_options import TRAINER_OPTIONS

if TYPE_CHECKING:
    from transformers import HfArgumentParser

BOOL_OR_STR = ("resume_from_checkpoint",)  # options that take true, false or a string
# Groups of `--help`, in their order. Classes that are not listed here are named after themselves.
GROUPS = {
    "ModelArguments": "model", "MemoryArguments": "model", "DataArguments": "data",
    "AugmentArguments": "data", "LossArguments": "loss", "EvaluationArguments": "evaluation",
}  # fmt: skip
OUTPUT = (
    "output_dir", "overwrite_output_dir", "verbose", "resume_from_checkpoint", "logging_steps",
    "save_strategy", "save_total_limit", "report_to", "sample_every_eval",
)  # fmt: skip
GROUP_ORDER = ("model", "data", "loss", "training", "evaluation", "output")


class AccumulateAction(argparse.Action):
    """Collect the values of a repeated option.

    `--base_model A --base_model B` is the same as `--base_model A B`.
    """

    _given = False

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        """Replace the default by the first values, and append later ones."""
        before = getattr(namespace, self.dest) if self._given else []
        self._given = True
        setattr(namespace, self.dest, [*before, *values])


def recipe_folder(package: str) -> Path:
    """Return the folder with the recipes of a package."""
    return Path(str(resources.files(package))) / "recipes"


def find_recipe(name: str, package: str) -> Path | None:
    """Return the file of a recipe, given by path or by name, or None if there is none."""
    folder = recipe_folder(package)
    for path in (Path(name), folder / f"{name}.yaml", folder / name):
        if path.is_file():
            return path
    return None


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a hint with the most similar known name, or "" if no name is similar."""
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""


def parse(
    kinds: Sequence[Any],
    package: str,
    command: str,
    arguments: Sequence[str] | None = None,
    *,
    check: Callable[..., None] | None = None,
    replace: Mapping[Any, str] | None = None,
    examples: Sequence[str] = (),
) -> tuple[Any, ...]:
    """Parse a command line `[RECIPE] [--option value ...]` into dataclasses.

    Args:
        kinds: Plain dataclasses whose fields are the options.
        package: Package whose recipes can be given by name.
        command: Name of the command, for the usage line.
        arguments: Command line. Defaults to that of the process.
        check: Function that is called with the dataclasses; its `ValueError` is reported as an
            error of the command line.
        replace: "module:class" of the dataclass to build instead of one of `kinds`, with all
            options of the Trainer.
        examples: Command lines for `--help`.

    Returns:
        One instance of each dataclass.

    Raises:
        SystemExit: If an option, a recipe or a key of a recipe does not exist or has an invalid
            value, and after `--help`.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    usage = f"{command} [RECIPE] [--option value ...]"
    if {"-h", "--help", "--help-all"} & set(given):
        _help(kinds, command, usage, examples, replace, "--help-all" in given).print_help()
        raise SystemExit(0)
    if not replace:
        trainers: Collection[str] = ()
    else:
        trainers = TRAINER_OPTIONS
    _check_names(given, {field.name for kind in kinds for field in fields(kind)}, trainers, command)
    from transformers import HfArgumentParser

    full = [_imported((replace or {}).get(kind)) or kind for kind in kinds]
    parser = HfArgumentParser(full, prog=command, usage=usage, allow_abbrev=False)
    if given and not given[0].startswith("-"):
        parser.set_defaults(**_convert_recipe(parser, _read(parser, given.pop(0), package)))
    try:
        *options, rest = parser.parse_args_into_dataclasses(
            given, return_remaining_strings=True, look_for_args_file=False
        )
        if check is not None and not rest:
            check(*options)
    except (ValueError, ImportError) as error:  # from a dataclass
        parser.error(str(error))
    if rest:
        known = [s for action in parser._actions for s in action.option_strings]
        name = rest[0].split("=")[0]
        parser.error(f"there is no option {rest[0]!r}{did_you_mean(name, known)}")
    return tuple(options)


def _imported(name: str | None) -> Any:
    if name is None:
        return None
    module, attribute = name.split(":")
    return getattr(importlib.import_module(module), attribute)


def _check_names(
    given: Sequence[str], own: set[str], trainers: Collection[str], command: str
) -> None:
    """Report unknown flags before slow imports.

    A flag that resembles no known one is left to the installed Trainer, which may be newer than
    the list of its options.
    """
    known = own | set(trainers)
    for word in given:
        flag, _, _ = word.partition("=")
        name = flag[2:].replace("-", "_")
        if not flag.startswith("--") or name in known or name.removeprefix("no_") in known:
            continue
        hint = did_you_mean(flag, [f"--{one}" for one in known])
        if hint or not trainers:
            _error(command, f"there is no option {word!r}{hint}")


def _error(command: str, message: str) -> NoReturn:
    usage = f"{command} [RECIPE] [--option value ...]"
    argparse.ArgumentParser(prog=command, usage=usage).error(message)


def _help(
    kinds: Sequence[Any],
    command: str,
    usage: str,
    examples: Sequence[str],
    replace: Mapping[Any, str] | None,
    everything: bool,
) -> argparse.ArgumentParser:
    """Build a parser for `--help`: options in groups, with their defaults."""
    parser = argparse.ArgumentParser(
        prog=command, usage=usage, add_help=False, formatter_class=argparse.RawTextHelpFormatter,
        epilog="\n".join(("examples:", *(f"  {line}" for line in examples))) if examples else None,
    )  # fmt: skip
    groups: dict[str, Any] = {}
    titled = [(_group(kind, field.name), field) for kind in kinds for field in fields(kind)]
    found = {title for title, _ in titled}
    for title in (*(t for t in GROUP_ORDER if t in found), *sorted(found - {*GROUP_ORDER})):
        groups[title] = parser.add_argument_group(title)

    def add(title: str, field: Field[Any]) -> None:
        group = groups.get(title) or parser.add_argument_group(title)
        groups[title] = group
        made = field.default_factory
        default = field.default if made is MISSING else made()
        names = [f"--{field.name}"]
        if default is True:
            names.append(f"--no_{field.name}")
        text = str(field.metadata.get("help", "")).replace("\n", " ")
        if default not in (None, False, [], ""):
            shown = " ".join(map(str, default)) if isinstance(default, list) else default
            text = f"{text} (default: {shown})"
        group.add_argument(*names, metavar="VALUE", help=_folded(text))

    for title, field in titled:
        add(title, field)
    other = parser.add_argument_group("other")
    other.add_argument("-h", "--help", action="store_true", help="Show these options and exit.")
    if replace:
        other.add_argument(
            "--help-all", action="store_true", help="Show all options of the Trainer as well."
        )
    if everything:
        own = {field.name for kind in kinds for field in fields(kind)}
        for name in (replace or {}).values():
            for field in fields(_imported(name)):
                if field.name not in own and field.init:
                    add("options of transformers.TrainingArguments", field)
    return parser


def _group(kind: Any, option: str) -> str:
    """Return the group of an option in `--help`."""
    if option in OUTPUT:
        return "output"
    own = kind.__name__.removesuffix("Arguments").removesuffix("Options").lower()
    return GROUPS.get(kind.__name__, "training" if own.endswith("training") else own)


def _folded(text: str, width: int = 76) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, width)).replace("%", "%%")


def _read(parser: Any, name: str, package: str) -> dict[str, Any]:
    path = find_recipe(name, package)
    if path is None:
        there = ", ".join(sorted(p.stem for p in recipe_folder(package).glob("*.yaml")))
        parser.error(f"there is no recipe {name!r}: neither a file nor one of: {there}")
    assert path is not None  # parser.error() exits
    try:
        recipe = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        parser.error(f"{path} is not YAML: {error}")
    if not isinstance(recipe, dict):
        parser.error(f"{path} must hold keys and values, not a {type(recipe).__name__}")
    known = {action.dest for action in parser._actions} - {"help"}
    if package == "align" and "search_space" not in known:
        recipe.pop("search_space", None)  # for align.tune
    for key in recipe:
        if key not in known:
            parser.error(f"{path}: there is no option {key!r}{did_you_mean(str(key), known)}")
    return recipe


def _convert_recipe(parser: HfArgumentParser, recipe: dict[str, Any]) -> dict[str, Any]:
    """Convert the values of a recipe to the types of their options."""
    # Without the --no_ flags.
    actions = {a.dest: a for a in parser._actions if a.const is not False}
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
    """Convert a value of a recipe as the command line would."""
    several = action.nargs in ("+", "*")
    if several and isinstance(value, str):
        value = [value]
    if several != isinstance(value, list):
        raise ValueError("it must be a list" if several else "it must be one value")
    if action.dest in BOOL_OR_STR and isinstance(value, bool):
        return str(value).lower()
    values = value if several else [value]
    boolean = action.nargs == "?"  # how HfArgumentParser marks boolean options
    if any(isinstance(v, bool) for v in values) and not boolean:
        raise ValueError("YAML reads yes, no, on and off as booleans: put it in quotes")
    if any(v is None for v in values):
        raise ValueError("it has no value")
    convert = action.type if callable(action.type) else str
    typed = [convert(json.dumps(v) if isinstance(v, dict) else str(v)) for v in values]
    if action.choices is not None and not set(typed) <= set(action.choices):
        raise ValueError(f"choose from: {', '.join(map(str, action.choices))}")
    return typed if several else typed[0]
