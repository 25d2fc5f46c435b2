"""The wheel, installed in a separate environment and used from any folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import soundprompt
from tests.helpers.launches import SHORT
from tests.helpers.pages import free_port, serves_and_ends

ROOT = Path(__file__).parents[3]
EXCLUDED = (".git", ".venv", "runs", "build", "dist", ".mypy_cache", ".pytest_cache", ".ruff_cache")


def test_every_package_is_in_the_wheel() -> None:
    """A package at the top level is named in pyproject.toml, tests and benchmarks aside."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    carried = {name.rstrip("*") for name in settings["packages"]["find"]["include"]}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {"align", "diffuse", "soundprompt"} <= packages
    assert packages - {"benchmarks", "tests"} <= carried


@dataclass(frozen=True)
class Built:
    """A copy of the checkout, its source archive, and the wheel built from that archive."""

    checkout: Path
    source: Path
    wheel: Path


def test_conda_environment_installs_the_tested_versions() -> None:
    """environment.yml has no pins of its own: its packages are those of requirements.txt."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.txt", "-e ."]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (python,) = (name.removeprefix("python=") for name in conda if name != "pip")
    assert python in SpecifierSet(project["requires-python"])
    assert f"FROM python:{python}." in (ROOT / "Dockerfile").read_text()
    assert environment["name"] == project["name"]


def _pins(file: str) -> dict[str, str]:
    lines = (ROOT / file).read_text().splitlines()
    pins = [Requirement(line) for line in lines if "==" in line]
    return {pin.name: str(pin.specifier).removeprefix("==") for pin in pins}


def test_pins_are_within_the_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    groups = {"": project["dependencies"]} | extras
    ranges = {
        name: {r.name: r.specifier for r in map(Requirement, lines) if r.name != "soundprompt"}
        for name, lines in groups.items()
    }
    docs, track = ranges.pop("docs"), ranges.pop("track")
    needed = {name: range_ for group in ranges.values() for name, range_ in group.items()}
    pins, tools = _pins("requirements.txt"), _pins("requirements-dev.txt")
    assert len(needed) > 20 and set(pins) == set(needed)
    assert [name for name, version in pins.items() if version not in needed[name]] == []
    assert docs and all(tools[name] in range_ for name, range_ in docs.items())
    assert track and all(str(range_).startswith(">=") for range_ in track.values())


def _version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def test_version_is_the_same_everywhere() -> None:
    assert soundprompt.__version__ == _version()
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == _version()


def test_python_versions_agree() -> None:
    """Classifiers, the workflow's matrix, ruff and mypy name the same Python versions."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    classifiers = settings["project"]["classifiers"]
    prefix = "Programming Language :: Python :: 3."
    tried = [line.rpartition(" ")[2] for line in classifiers if line.startswith(prefix)]
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert set(tried) <= set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"])
    lowest = settings["project"]["requires-python"].removeprefix(">=")
    assert lowest == tried[0] == settings["tool"]["mypy"]["python_version"]
    assert settings["tool"]["ruff"]["target-version"] == f"py{lowest.replace('.', '')}"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("build")
    checkout = folder / "checkout"
    checkout.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, checkout)
        elif path.name not in EXCLUDED and not path.name.endswith(".egg-info"):
            shutil.copytree(
                path, checkout / path.name, ignore=shutil.ignore_patterns("__pycache__")
            )
    source = _build("sdist", checkout, folder)
    with tarfile.open(source) as archive:
        archive.extractall(folder / "source", filter="data")
    (unpacked,) = (folder / "source").iterdir()
    return Built(checkout, source, _build("wheel", unpacked, folder))


def _build(kind: str, cwd: Path, folder: Path) -> Path:
    """Builds with the installed setuptools, without downloads."""
    line = f"from setuptools.build_meta import build_{kind} as b; print(b({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", line], cwd=cwd, capture_output=True, text=True, check=True
    )
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def fresh(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of an environment with the wheel; dependencies are those of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    programs = folder / "bin"
    (site,) = folder.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--no-deps"]
    subprocess.run([*pip, "--quiet", built.wheel], check=True)
    # Written after the installation, or pip would find the requirements satisfied. Path files in
    # the added folder are not read, so an editable install of the checkout is not visible.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return programs


def _run(program: Path, *line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *line], cwd=cwd, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_archives_contain_code_and_data(built: Built) -> None:
    def files(folder: str, pattern: str, at_least: int) -> set[str]:
        found = [p for p in (built.checkout / folder).rglob(pattern) if p.is_file()]
        assert len(found) >= at_least
        return {path.relative_to(built.checkout).as_posix() for path in found}

    minimum = {"align": 70, "diffuse": 40, "soundprompt": 40}
    code = set().union(*(files(name, "*.py", n) for name, n in minimum.items()))
    data = (
        files("align/recipes", "*.yaml", 5)
        | files("diffuse/recipes", "*.yaml", 5)
        | files("soundprompt/mini/weights", "*.*", 10)
        | {"soundprompt/app/page.css"}
        | {f"{name}/py.typed" for name in minimum}
    )
    with zipfile.ZipFile(built.wheel) as archive:
        assert code | data <= set(archive.namelist())
    with tarfile.open(built.source) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    beside = {"app.py", "Makefile", "Dockerfile", "environment.yml", "requirements.txt"}
    tests = files("tests", "*.py", 50) | files("notebooks", "*.ipynb", 5) | files("docs", "*.md", 9)
    assert code | data | beside | tests <= source


@pytest.mark.slow
def test_wheel_code_is_imported(fresh: Path, tmp_path: Path) -> None:
    code = "import align, diffuse, soundprompt.app as app; print(align.__file__, app.__file__)"
    done = _run(fresh / "python", "-c", code, cwd=tmp_path)
    assert done.stdout.count(str(fresh.parent)) == 2, done.stderr
    code = "import soundprompt; print(soundprompt.__version__)"
    done = _run(fresh / "python", "-c", code, cwd=tmp_path)
    assert done.stdout.strip() == _version(), done.stderr
    done = _run(fresh / "soundprompt", "--version", cwd=tmp_path)
    assert done.stdout.strip() == _version(), done.stderr


@pytest.mark.slow
def test_train_runs_from_any_folder(fresh: Path, sound_folder: Path, tmp_path: Path) -> None:
    python = fresh / "python"
    shown = _run(python, "-m", "align.train", "--help", cwd=tmp_path)
    assert shown.returncode == 0 and "--output_dir" in shown.stdout
    line = ("-m", "align.train", "--dataset", str(sound_folder), *SHORT, "--max_steps", "2")
    done = _run(python, *line, "--output_dir", "own", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "own/run.json").read_text())
    assert run["options"]["model"]["base_model"] in ("mini", ["mini"])
    assert "class_accuracy" in json.loads((tmp_path / "own/metrics.json").read_text())


@pytest.mark.slow
def test_app_is_served_from_any_folder(fresh: Path, tmp_path: Path) -> None:
    for line in ("soundprompt app", "python -m soundprompt.app"):
        program, *rest = line.split()
        shown = _run(fresh / program, *rest, "--help", cwd=tmp_path)
        assert shown.returncode == 0 and f"usage: {line}" in shown.stdout
    port = free_port()
    # With an encoder given, the app does not train the demo encoder.
    options = ("--server_port", str(port), "--encoder", "own/encoder")
    environment = {**os.environ, "PATH": str(fresh)}
    line = [fresh / "soundprompt", "app", *options]
    serves_and_ends(line, port, cwd=tmp_path, env=environment)
