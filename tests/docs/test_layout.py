"""The packages' layout: imports go one way, and no module takes part in a circle of imports.

Every import counts, also those under `TYPE_CHECKING` and inside functions: a type or a lazy import
ties two modules together as firmly as any other for whoever reads or changes them.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("align", "diffuse", "soundprompt", "benchmarks")
COMMANDS = "(commands)"

# Folders from the top to the ground. A module imports from its own folder and from lower ones.
ORDER = {
    "align": (
        {COMMANDS, "tune"},
        {"training"},
        {"losses", "evaluation"},
        {"preprocessing"},
        {"models"},
        {"data", "hub", "cli"},
        {"config", "prompts"},
        {"registry", "audio"},
    ),
    "diffuse": (
        {COMMANDS},
        {"training"},
        {"evaluation"},
        {"pipelines"},
        {"data"},
        {"models", "config", "collect"},
    ),
}


@cache
def modules() -> dict[str, Path]:
    """Every module of the packages by its dotted name."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }


@cache
def imports() -> dict[str, frozenset[str]]:
    """The project's modules that each module imports, wherever the statement is."""
    known = modules()
    found = {}
    for name, path in known.items():
        targets = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                targets |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                inner = {f"{node.module}.{alias.name}" for alias in node.names}
                targets |= (inner & known.keys()) or {node.module}
        found[name] = frozenset(targets & known.keys() - {name})
    return found


def circle() -> list[str]:
    """The modules of one import circle in order, or nothing."""
    graph, done = imports(), set()
    for start in graph:
        path: list[str] = []
        waiting = [iter([start])]
        while waiting:
            module = next(waiting[-1], None)
            if module is None:
                waiting.pop()
                if path:
                    done.add(path.pop())
            elif module in path:
                return [*path[path.index(module) :], module]
            elif module not in done:
                path.append(module)
                waiting.append(iter(sorted(graph[module])))
    return []


def folder(module: str) -> str:
    """What `ORDER` calls the place of a module: its folder, or the group of the flat files."""
    package, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    return first if any(first in names for names in ORDER[package]) else COMMANDS


def test_no_import_circle() -> None:
    assert len(modules()) > 100
    found = circle()
    assert not found, " -> ".join(found)


@pytest.mark.parametrize("package", ORDER)
def test_folders_import_downwards(package: str) -> None:
    floors = {name: floor for floor, names in enumerate(ORDER[package]) for name in names}
    upwards = [
        f"{module} imports {target}"
        for module, targets in imports().items()
        for target in targets
        if module.startswith(f"{package}.") and target.startswith(f"{package}.")
        if (above := folder(module)) != (below := folder(target))
        if floors[above] >= floors[below]
    ]
    assert not upwards, "\n".join(sorted(upwards))


def test_packages_import_downwards() -> None:
    wrong = []
    for module, targets in imports().items():
        for target in targets:
            top, other = module.partition(".")[0], target.partition(".")[0]
            if top == "align" and other == "diffuse":
                wrong.append(f"{module} imports {target}")
            app = target.startswith("soundprompt.app")
            if app and not module.startswith("soundprompt.app"):
                wrong.append(f"{module} imports the app: {target}")
            if other == "benchmarks" and top != "benchmarks":
                wrong.append(f"{module} imports a benchmark: {target}")
    assert not wrong, "\n".join(sorted(wrong))


def test_few_files_are_flat() -> None:
    for package, most in ("align", 10), ("diffuse", 8):
        flat = sorted(path.name for path in (ROOT / package).glob("*.py"))
        assert len(flat) <= most, flat
