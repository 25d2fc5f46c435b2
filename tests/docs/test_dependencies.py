"""Every third-party import is declared, and the base install is enough to generate."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.helpers.pages import make_models

ROOT = Path(__file__).parents[2]
PACKAGES = ("align", "diffuse", "soundprompt")
OWN = {*PACKAGES, "benchmarks", "tests", "app"}
# Import names that differ from the distribution's name.
DISTRIBUTIONS = {"PIL": "pillow", "yaml": "pyyaml"}
# Declared without an import of their own: diffusers and peft use accelerate, transformers the
# trackers. The rest are tools.
NOT_IMPORTED = {"accelerate", "tensorboard", "trackio", "wandb"}
# Libraries of the extras that no base dependency requires.
EXTRAS_ONLY = {
    "datasets", "evaluate", "gradio", "matplotlib", "optuna", "pandas", "pyarrow",
    "threadpoolctl", "torchmetrics",
}  # fmt: skip


@cache
def declared() -> dict[str, set[str]]:
    """Distributions by extra; "" is the base install."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"]} | project["optional-dependencies"]
    return {name: set(_expanded(groups, lines)) for name, lines in groups.items()}


def _expanded(groups: dict[str, list[str]], lines: list[str]) -> Iterator[str]:
    for requirement in map(Requirement, lines):
        if requirement.name == "soundprompt":
            for extra in requirement.extras:
                yield from _expanded(groups, groups[extra])
        else:
            yield canonicalize_name(requirement.name)


def imported(*folders: str) -> dict[str, list[str]]:
    """Third-party distributions that modules import, in any statement, with the places."""
    found: dict[str, list[str]] = {}
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    assert len(paths) > 5
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for top in {name.partition(".")[0] for name in names}:
                if top not in sys.stdlib_module_names and top not in OWN:
                    name = canonicalize_name(DISTRIBUTIONS.get(top, top))
                    place = f"{path.relative_to(ROOT)}:{node.lineno}"
                    found.setdefault(name, []).append(place)
    return found


def test_imports_of_the_packages_are_declared() -> None:
    known = declared()[""] | declared()["all"]
    missing = {name: at for name, at in imported(*PACKAGES).items() if name not in known}
    assert not missing, missing


def test_declared_dependencies_are_imported() -> None:
    unused = (declared()[""] | declared()["all"]) - imported(*PACKAGES).keys() - NOT_IMPORTED
    assert not unused


def test_imports_of_benchmarks_and_tests_are_declared() -> None:
    lines = [*_pins("requirements.txt"), *_pins("requirements-dev.txt")]
    # gradio-client comes with gradio, packaging with pytest.
    known = {name for name, _ in lines} | {"gradio-client", "packaging"}
    missing = {n: at for n, at in imported("benchmarks", "tests").items() if n not in known}
    assert not missing, missing


def _pins(file: str) -> list[tuple[str, str]]:
    lines = [line for line in (ROOT / file).read_text().splitlines() if "==" in line]
    found = [Requirement(line) for line in lines]
    return [(canonicalize_name(r.name), str(r.specifier).removeprefix("==")) for r in found]


def test_all_has_every_extra_but_docs() -> None:
    extras = {name: group for name, group in declared().items() if name not in ("", "docs")}
    assert declared()["all"] == set().union(*extras.values())
    assert declared()[""].isdisjoint(declared()["all"])
    assert extras["eval"] <= extras["train"] <= extras["app"] & extras["tune"]


def test_pre_commit_uses_the_pinned_versions() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    revisions = {repo["repo"].rpartition("/")[2]: repo["rev"] for repo in config["repos"]}
    pins = dict(_pins("requirements-dev.txt"))
    assert revisions == {
        "ruff-pre-commit": f"v{pins['ruff']}",
        "mirrors-mypy": f"v{pins['mypy']}",
        "pre-commit-hooks": f"v{pins['pre-commit-hooks']}",
        "check-jsonschema": pins["check-jsonschema"],
    }


def test_extras_only_libraries_are_those_that_the_extras_add() -> None:
    brought = {"requests", "filelock"}  # required by diffusers and huggingface_hub
    extras = declared()["all"] - declared()["track"]
    assert extras - brought == EXTRAS_ONLY


# Runs commands as if the libraries of the extras were not installed.
WITHOUT_EXTRAS = """
import json, runpy, sys

class Hidden:
    def __init__(self, finder, hidden):
        self.finder, self.hidden = finder, hidden

    def find_spec(self, name, path=None, target=None):
        hidden = name.partition(".")[0] in self.hidden
        return None if hidden else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

hidden, commands = map(json.loads, sys.argv[1:])
sys.meta_path[:] = [Hidden(finder, hidden) for finder in sys.meta_path]
for command, *arguments in commands:
    sys.argv = [command, *arguments]
    runpy.run_module(command, run_name="__main__", alter_sys=True)
assert not {name.partition(".")[0] for name in sys.modules} & set(hidden)
"""


def run_without_extras(*commands: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    given = [json.dumps(sorted(EXTRAS_ONLY)), json.dumps(commands)]
    line = [sys.executable, "-c", WITHOUT_EXTRAS, *given]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with an audio file and the `mini` models, the encoder's adapter untrained."""
    weights = ROOT / "soundprompt" / "mini" / "weights"
    make_models(tmp_path / "models", str(weights / "stable-diffusion"), str(weights / "clap"))
    t = np.arange(24_000) / 24_000
    soundfile.write(tmp_path / "tone.wav", 0.4 * np.sin(2 * np.pi * 440 * t), 24_000)
    return tmp_path


@pytest.mark.slow
def test_base_install_encodes_generates_and_edits(folder: Path) -> None:
    models = ["--base_model", "models/base", "--encoder", "models/encoder"]
    done = run_without_extras(
        ["align.encode", "models/encoder", "tone.wav", "--output_file", "tone.safetensors"],
        ["diffuse.generate", "tone.wav", *models, "--output_dir", "images"],
        ["diffuse.edit", "images/seed-0.png", "tone.wav", *models, "--output_dir", "edited"],
        ["diffuse.animate", "tone.wav", *models, "--output_file", "tone.mp4"],
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    for name in ("tone.safetensors", "images/seed-0.png", "edited/seed-0.png", "tone.mp4"):
        assert (folder / name).stat().st_size > 1000


@pytest.mark.slow
def test_hidden_extras_cannot_be_imported(tmp_path: Path) -> None:
    """The check itself: a module that needs an extra cannot be imported."""
    done = run_without_extras(["align.preprocessing.fingerprint"], cwd=tmp_path)
    assert done.returncode != 0
    assert "No module named 'pyarrow'" in done.stderr or "No module named 'datasets'" in done.stderr
