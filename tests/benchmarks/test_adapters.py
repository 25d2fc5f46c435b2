"""The adapter benchmark: completeness and its table."""

from __future__ import annotations

import yaml

from align.config.parser import recipe_folder
from align.models.adapters import ADAPTERS, default_adapter_kwargs
from align.registry import BACKBONES, UNTRAINED_BACKBONES
from benchmarks.adapters import BACKBONES as COMPARED
from benchmarks.adapters import KINDS, MINI_SIZES, POOLED, RECIPES, SMALLER, as_table


def test_all_adapters_and_backbones_are_compared() -> None:
    assert {*KINDS, "direct"} == set(ADAPTERS)  # direct has no parameters besides the backbone
    assert {*COMPARED, *UNTRAINED_BACKBONES} == set(BACKBONES)
    for kind, flags in SMALLER.items():
        assert {flag.removeprefix("--adapter_") for flag in flags[::2]} <= set(
            default_adapter_kwargs(kind)
        )


def test_pooled_adapters_are_those_of_the_recipes() -> None:
    recipes = [yaml.safe_load(path.read_text()) for path in recipe_folder("align").glob("*.yaml")]
    pooled = {own["adapter"] for own in recipes if own.get("audio_tokens") == "pooled"}
    assert pooled == set(POOLED)


def test_recipes_have_the_adapter_and_replaced_sizes() -> None:
    for kind, recipe in RECIPES.items():
        own = yaml.safe_load((recipe_folder("align") / f"{recipe}.yaml").read_text())
        assert own.get("adapter", "resampler") == kind
        sizes = {name for name in own if name.startswith("adapter_")} - {"adapter_tokens"}
        assert {flag.removeprefix("--") for flag in MINI_SIZES.get(kind, ())[::2]} == sizes
        assert all(value.isdigit() for value in MINI_SIZES.get(kind, ())[1::2])


def test_as_table_has_all_metrics() -> None:
    run = {
        "backbone": "mini-clap", "adapter": "mlp", "parameters": 1234567, "cpu_s": 12.4,
        "class_accuracy": [0.9, 0.8, 0.95], "centered_cosine": 0.8765,
        "centered_cosine_oracle": 0.996, "image_accuracy": [0.5, 0.25, 0.75],
    }  # fmt: skip
    lines = as_table([run], [1.0, 0.9, 1.0]).splitlines()
    assert lines[2] == (
        "| mini-clap | mlp | 1,234,567 | 12 | 90.0% [80.0, 95.0] | 0.876 | 50.0% [25.0, 75.0] |"
    )
    assert lines[3].startswith("| | oracle |") and "| 0.996 |" in lines[3]
    assert lines[4] == "| | ground-truth captions | | | | | 100.0% [90.0, 100.0] |"
    assert {line.count("|") for line in lines} == {8}
    del run["image_accuracy"]
    assert as_table([run], []).splitlines()[2].endswith("| 0.876 |  |")
