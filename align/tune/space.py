"""Search spaces: the options that a study varies, and their ranges.

A search space is a YAML file, or the recipe key `search_space`, with option names and ranges:

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

from align.config.options import ARGUMENTS

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

    from align.config.options import Options


# Optuna distributions by option name.
SearchSpace = dict[str, "BaseDistribution"]
DISTRIBUTIONS = ("log", "linear", "choice")
# Options that the study sets itself, or that make trials incomparable.
FIXED_OPTIONS = (
    "output_dir", "resume_from_checkpoint", "overwrite_output_dir", "num_images",
    "image_classifier", "num_sheet_samples", "base_model", "dataset", "folds", "eval_folds",
    "eval_dataset", "licenses", "cache", "cache_dir", "num_workers",
)  # fmt: skip


def read_search_space(given: str) -> Mapping[str, Any]:
    """Read a search space from a YAML file or a JSON string.

    Args:
        given: Path of the file, or the JSON text of the recipe key.

    Returns:
        Ranges by option name.

    Raises:
        ValueError: If it cannot be read, or is not a mapping of options.
    """
    text = given
    if not given.lstrip().startswith("{"):
        path = Path(given)
        if not path.is_file():
            raise ValueError(f"--search_space {given}: there is no such file")
        text = path.read_text(errors="replace")
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--search_space {given} is not YAML: {error}") from error
    if not isinstance(found, dict) or not found:
        raise ValueError(f"--search_space {given} must have options and their ranges")
    return found


def build_search_space(specs: Mapping[str, Any]) -> SearchSpace:
    """Build the distributions of a search space.

    Args:
        specs: Ranges by option name.

    Raises:
        ValueError: If an option does not exist or cannot be searched, or its range is invalid.
    """
    kinds = _searchable()
    space = {}
    for name, spec in specs.items():
        if name in FIXED_OPTIONS:
            raise ValueError(f"--search_space: {name} is fixed or set by the study")
        if name not in kinds:
            near = difflib.get_close_matches(str(name), kinds, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(
                f"--search_space: align.train has no option {name!r} with one value{hint}"
            )
        space[name] = _distribution(name, kinds[name], spec)
    return space


def default_search_space(options: Options, fixed: Iterable[str]) -> SearchSpace:
    """Return the default search space for a run.

    Args:
        options: Options of the run. Options without an effect are left out.
        fixed: Options that the user has set.
    """
    from align.models.adapters import default_adapter_kwargs

    model, loss = options.model, options.loss
    rate = options.training.learning_rate
    specs: dict[str, Any] = {"learning_rate": {"log": [rate / 5, rate * 5]}}
    if loss.info_nce_weight:
        specs["temperature"] = {"log": [0.03, 0.5]}
        if loss.mse_weight:
            specs["mse_weight"] = {"log": [0.1, 10.0]}
    if model.init_from is None:
        own = {**default_adapter_kwargs(model.adapter), **model.adapter_kwargs()}
        if "width" in own:
            width = own["width"]
            specs["adapter_width"] = {"choice": [width // 2, width, width * 2]}
        if "depth" in own:
            specs["adapter_depth"] = {"linear": [1, own["depth"] + 2]}
    if model.train_backbone != "none":
        specs |= {
            "time_shift": {"choice": [0.0, 0.5, 1.0]},
            "gain_db": {"linear": [0.0, 12.0]},
            "mix_same_label_prob": {"linear": [0.0, 0.6]},
            "time_masks": {"linear": [0, 3]},
            "frequency_masks": {"linear": [0, 3]},
        }
    return build_search_space(
        {name: spec for name, spec in specs.items() if name not in set(fixed)}
    )


def current_values(space: SearchSpace, options: Options) -> dict[str, Any] | None:
    """Return the values of the options as the first trial, if the space contains all of them."""
    from align.models.adapters import default_adapter_kwargs

    sizes = {
        f"adapter_{name}": size
        for name, size in default_adapter_kwargs(options.model.adapter).items()
    }
    own: dict[str, Any] = {}
    for name, distribution in space.items():
        part = next(part for part in vars(options).values() if hasattr(part, name))
        value = getattr(part, name)
        own[name] = value = sizes.get(name) if value is None else getattr(value, "value", value)
        if not _contains(distribution, value):
            return None
    return own


def bounds(distribution: Any) -> tuple[Any, ...]:
    """Return the choices of a distribution, or its bounds."""
    if hasattr(distribution, "choices"):
        return tuple(distribution.choices)
    return distribution.low, distribution.high


def as_flags(values: Mapping[str, Any]) -> list[str]:
    """Return values as flags of a command line."""
    flags = []
    for name, value in values.items():
        flag_value = str(value).lower() if isinstance(value, bool) else str(value)
        flags += [f"--{name}", flag_value]
    return flags


def _searchable() -> dict[str, type]:
    """Return the options of `align.train` that have a single value, with its type."""
    found: dict[str, type] = {}
    for kind in ARGUMENTS:
        for name, hint in get_type_hints(kind).items():
            union = isinstance(hint, types.UnionType) or "Union" in str(hint)
            plain = [part for part in get_args(hint) if part is not type(None)] if union else [hint]
            simple = [part for part in (bool, int, float, str) if part in plain]
            if simple and name in kind.__dataclass_fields__ and name not in FIXED_OPTIONS:
                found[name] = simple[0] if len(plain) == 1 else simple[-1]
    return found


def _distribution(name: str, kind: type, spec: Any) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    names = ", ".join(DISTRIBUTIONS)
    if not isinstance(spec, dict) or len(spec) != 1 or next(iter(spec)) not in DISTRIBUTIONS:
        raise ValueError(f"--search_space: {name} needs one of {names} with a list, not {spec!r}")
    ((distribution, values),) = spec.items()
    if not isinstance(values, list) or len(values) < 2:
        raise ValueError(
            f"--search_space: {name}: {distribution} needs a list of two or more, not {values!r}"
        )
    typed = [_typed(name, kind, value) for value in values]
    if distribution == "choice":
        return CategoricalDistribution(typed)
    if kind not in (int, float) or len(typed) != 2 or not typed[0] < typed[1]:
        raise ValueError(
            f"--search_space: {name}: {distribution} needs a lower and an upper number, "
            f"not {values}"
        )
    if distribution == "log" and typed[0] <= 0:
        raise ValueError(f"--search_space: {name}: log needs numbers above 0, not {values}")
    made: Any = IntDistribution if kind is int else FloatDistribution
    return made(*typed, log=distribution == "log")  # type: ignore[no-any-return]


def _typed(name: str, kind: type, value: Any) -> Any:
    """Convert a value to the type of its option; YAML reads 1e-4 as a string."""
    fits = isinstance(value, bool) == (kind is bool) and not isinstance(value, (list, dict))
    try:
        typed = kind(value) if fits and value is not None else None
    except ValueError:
        typed = None
    if typed is None or (kind is int and typed != float(value)):
        raise ValueError(
            f"--search_space: {name} does not take {value!r} ({kind.__name__} is expected)"
        )
    return typed


def _contains(distribution: BaseDistribution, value: Any) -> bool:
    if hasattr(distribution, "choices"):
        return value in distribution.choices
    low, high = bounds(distribution)
    return value is not None and bool(low <= value <= high)


EMBED_METRICS = ("centered_cosine", "class_accuracy")  # available at every evaluation
OBJECTIVES = (*EMBED_METRICS, "image_accuracy")
