"""Search spaces: which options a study varies, and in which ranges.

A space is a YAML file, or a recipe's key `space`, of options' names and their ranges:

    learning_rate: {log: [1.0e-4, 3.0e-3]}
    mse_weight: {linear: [0.2, 2.0]}
    adapter_width: {choice: [128, 256, 512]}
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import yaml

from align.config.options import KINDS

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from align.config.options import Options


# Distributions by the option's name, as optuna asks them.
Space = dict[str, "BaseDistribution"]
WAYS = ("log", "linear", "choice")
# What a study sets itself, and what decides by which figures its trials are compared.
NOT_SEARCHED = (
    "output_dir", "resume_from_checkpoint", "overwrite_output_dir", "pictures",
    "judge", "samples", "base", "data", "folds", "eval_folds",
    "eval_data", "licences", "cache", "cache_dir", "workers",
)  # fmt: skip


def read_space(given: str) -> Mapping[str, Any]:
    """What a space says, from a YAML file, or from the text that a recipe's key comes as.

    Raises:
        ValueError: it cannot be read, or is no table of options.
    """
    text = given
    if not given.lstrip().startswith("{"):
        path = Path(given)
        if not path.is_file():
            raise ValueError(f"--space {given}: there is no such file")
        text = path.read_text(errors="replace")
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--space {given} is not YAML: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"--space {given} must hold options and their ranges")
    return found


def new_space(said: Mapping[str, Any]) -> Space:
    """The distributions of what a space says.

    Raises:
        ValueError: an option does not exist or is not searched, or its range is none.
    """
    kinds = _searchable()
    space = {}
    for name, ranged in said.items():
        if name in NOT_SEARCHED:
            raise ValueError(f"--space: {name} is the study's own and is not searched")
        if name not in kinds:
            near = difflib.get_close_matches(str(name), kinds, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"--space: align.train has no option {name!r} of one value{hint}")
        space[name] = _distribution(name, kinds[name], ranged)
    return space


def default_space(options: Options, fixed: Iterable[str]) -> Space:
    """What is worth a search for a run with these options.

    Args:
        options: of the run; what does nothing in it is not searched.
        fixed: options that the user decided.
    """
    from align.models.adapters import sizes_of

    model, loss = options.model, options.loss
    rate = options.training.learning_rate
    said: dict[str, Any] = {"learning_rate": {"log": [rate / 5, rate * 5]}}
    if loss.info_nce_weight:
        said["temperature"] = {"log": [0.03, 0.5]}
        if loss.mse_weight:
            said["mse_weight"] = {"log": [0.1, 10.0]}
    if model.start is None:
        own = {**sizes_of(model.adapter), **model.adapter_sizes()}
        if "width" in own:
            width = own["width"]
            said["adapter_width"] = {"choice": [width // 2, width, width * 2]}
        if "depth" in own:
            said["adapter_depth"] = {"linear": [1, own["depth"] + 2]}
    if model.train_backbone != "none":
        said |= {
            "time_shift": {"choice": [0.0, 0.5, 1.0]},
            "gain_db": {"linear": [0.0, 12.0]},
            "mix_same": {"linear": [0.0, 0.6]},
            "time_masks": {"linear": [0, 3]},
            "frequency_masks": {"linear": [0, 3]},
        }
    return new_space({name: ranged for name, ranged in said.items() if name not in set(fixed)})


def own_values(space: Space, options: Options) -> dict[str, Any] | None:
    """The options' own values where the space holds them all: a trial to compare with."""
    from align.models.adapters import sizes_of

    sizes = {f"adapter_{name}": size for name, size in sizes_of(options.model.adapter).items()}
    own: dict[str, Any] = {}
    for name, distribution in space.items():
        part = next(part for part in vars(options).values() if hasattr(part, name))
        value = getattr(part, name)
        own[name] = value = sizes.get(name) if value is None else getattr(value, "value", value)
        if not _holds(distribution, value):
            return None
    return own


def ends(distribution: Any) -> tuple[Any, ...]:
    """The choices of a distribution, or its lowest and highest value."""
    if hasattr(distribution, "choices"):
        return tuple(distribution.choices)
    return distribution.low, distribution.high


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """Values as a command line has them."""
    flags = []
    for name, value in values.items():
        said = str(value).lower() if isinstance(value, bool) else str(value)
        flags += [f"--{name}", said]
    return flags


def _searchable() -> dict[str, type]:
    """The options of one value that align.train has, with the type of it."""
    found: dict[str, type] = {}
    for kind in KINDS:
        for name, hint in get_type_hints(kind).items():
            union = isinstance(hint, types.UnionType) or "Union" in str(hint)
            plain = [part for part in get_args(hint) if part is not type(None)] if union else [hint]
            simple = [part for part in (bool, int, float, str) if part in plain]
            if simple and name in kind.__dataclass_fields__ and name not in NOT_SEARCHED:
                found[name] = simple[0] if len(plain) == 1 else simple[-1]
    return found


def _distribution(name: str, kind: type, ranged: Any) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    ways = ", ".join(WAYS)
    if not isinstance(ranged, dict) or len(ranged) != 1 or next(iter(ranged)) not in WAYS:
        raise ValueError(f"--space: {name} needs one of {ways} with a list, not {ranged!r}")
    ((way, values),) = ranged.items()
    if not isinstance(values, list) or len(values) < 2:
        raise ValueError(f"--space: {name}: {way} needs a list of two or more, not {values!r}")
    typed = [_typed(name, kind, value) for value in values]
    if way == "choice":
        return CategoricalDistribution(typed)
    if kind not in (int, float) or len(typed) != 2 or not typed[0] < typed[1]:
        raise ValueError(f"--space: {name}: {way} needs a lower and an upper number, not {values}")
    if way == "log" and typed[0] <= 0:
        raise ValueError(f"--space: {name}: log needs numbers above 0, not {values}")
    made: Any = IntDistribution if kind is int else FloatDistribution
    return made(*typed, log=way == "log")  # type: ignore[no-any-return]


def _typed(name: str, kind: type, value: Any) -> Any:
    """A value as its option has it; YAML reads 1e-4 as text."""
    fits = isinstance(value, bool) == (kind is bool) and not isinstance(value, (list, dict))
    try:
        typed = kind(value) if fits and value is not None else None
    except ValueError:
        typed = None
    if typed is None or (kind is int and typed != float(value)):
        raise ValueError(f"--space: {name} does not take {value!r} ({kind.__name__} is expected)")
    return typed


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    if hasattr(distribution, "choices"):
        return value in distribution.choices
    low, high = ends(distribution)
    return value is not None and bool(low <= value <= high)


EMBEDS = ("centred_cosine", "class_accuracy")  # what every evaluation of a training can measure
OBJECTIVES = (*EMBEDS, "right_pictures")
