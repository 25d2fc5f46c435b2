"""What is installed from the wheel, in an environment of its own and from any folder."""

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

from tests.helpers.launches import SHORT
from tests.helpers.pages import free_port, serves_and_ends

ROOT = Path(__file__).parents[3]
LEFT_OUT = (".git", ".venv", "runs", "build", "dist", ".mypy_cache", ".pytest_cache", ".ruff_cache")


def test_every_package_is_named() -> None:
    """Code at the top is in the wheel, or it is the tests' or the benchmarks'."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    carried = {name.rstrip("*") for name in settings["packages"]["find"]["include"]}
    there = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert {"align", "diffuse", "soundprompt"} <= there
    assert there - {"benchmarks", "tests"} <= carried


@dataclass(frozen=True)
class Built:
    """A copy of the checkout, its source archive, and the wheel built from that archive alone."""

    checkout: Path
    source: Path
    wheel: Path


def test_conda_installs_what_is_tested() -> None:
    """environment.yml pins nothing itself: its packages are those of requirements.txt."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.txt", "-e ."]}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (python,) = (name.removeprefix("python=") for name in conda if name != "pip")
    assert python in SpecifierSet(project["requires-python"])
    assert f"FROM python:{python}." in (ROOT / "Dockerfile").read_text()
    assert environment["name"] == project["name"]


def test_pins_lie_in_the_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    needed = list(map(Requirement, [*project["dependencies"], *extras["app"]]))
    further = [Requirement(line) for lines in extras.values() for line in lines]
    ranges = {stated.name: stated.specifier for stated in [*needed, *further]}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert len(needed) > 20
    assert {stated.name for stated in needed} <= set(pins) <= set(ranges)
    assert [name for name, version in pins.items() if version not in ranges[name]] == []


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("build")
    checkout = folder / "checkout"
    checkout.mkdir()
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, checkout)
        elif path.name not in LEFT_OUT and not path.name.endswith(".egg-info"):
            shutil.copytree(
                path, checkout / path.name, ignore=shutil.ignore_patterns("__pycache__")
            )
    source = _build("sdist", checkout, folder)
    with tarfile.open(source) as archive:
        archive.extractall(folder / "source", filter="data")
    (unpacked,) = (folder / "source").iterdir()
    return Built(checkout, source, _build("wheel", unpacked, folder))


def _build(kind: str, where: Path, folder: Path) -> Path:
    """Builds with the setuptools that is here: nothing is fetched."""
    line = f"from setuptools.build_meta import build_{kind} as b; print(b({str(folder)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", line], cwd=where, capture_output=True, text=True, check=True
    )
    return folder / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def fresh(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment with the wheel; what it depends on is that of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    programs = folder / "bin"
    (site,) = folder.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", programs / "python", "install", "--no-deps"]
    subprocess.run([*pip, "--quiet", built.wheel], check=True)
    # After the installation, so that nothing counts as installed already. A path file within that
    # folder is not followed: a checkout that is installed for the tests stays out of sight.
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    return programs


def _run(program: Path, *line: str, where: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([program, *line], cwd=where, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_both_archives_carry_what_they_need(built: Built) -> None:
    def there(folder: str, pattern: str, at_least: int) -> set[str]:
        found = [p for p in (built.checkout / folder).rglob(pattern) if p.is_file()]
        assert len(found) >= at_least
        return {path.relative_to(built.checkout).as_posix() for path in found}

    rooms = {"align": 70, "diffuse": 40, "soundprompt": 40}
    code = set().union(*(there(room, "*.py", n) for room, n in rooms.items()))
    data = (
        there("align/recipes", "*.yaml", 5)
        | there("diffuse/recipes", "*.yaml", 5)
        | there("soundprompt/mini/weights", "*.*", 10)
        | {"soundprompt/app/page.css"}
    )
    with zipfile.ZipFile(built.wheel) as archive:
        assert code | data <= set(archive.namelist())
    with tarfile.open(built.source) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    beside = {"app.py", "Makefile", "Dockerfile", "environment.yml", "requirements.txt"}
    tests = there("tests", "*.py", 50) | there("notebooks", "*.ipynb", 5) | there("docs", "*.md", 9)
    assert code | data | beside | tests <= source


@pytest.mark.slow
def test_the_wheels_own_code_runs(fresh: Path, tmp_path: Path) -> None:
    code = "import align, diffuse, soundprompt.app; print(align.__file__, soundprompt.app.__file__)"
    done = _run(fresh / "python", "-c", code, where=tmp_path)
    assert done.stdout.count(str(fresh.parent)) == 2, done.stderr


@pytest.mark.slow
def test_an_alignment_is_trained_from_any_folder(
    fresh: Path, sound_folder: Path, tmp_path: Path
) -> None:
    python = fresh / "python"
    said = _run(python, "-m", "align.train", "--help", where=tmp_path)
    assert said.returncode == 0 and "--output_dir" in said.stdout
    line = ("-m", "align.train", "--data", str(sound_folder), *SHORT, "--max_steps", "2")
    done = _run(python, *line, "--output_dir", "own", where=tmp_path)
    assert done.returncode == 0, done.stderr
    story = json.loads((tmp_path / "own/run.json").read_text())
    assert story["options"]["model"]["base"] in ("mini", ["mini"])
    assert "class_accuracy" in json.loads((tmp_path / "own/metrics.json").read_text())


@pytest.mark.slow
def test_the_page_is_served_from_any_folder(fresh: Path, tmp_path: Path) -> None:
    for line in ("soundprompt-app", "python -m soundprompt.app"):
        program, *words = line.split()
        said = _run(fresh / program, *words, "--help", where=tmp_path)
        assert said.returncode == 0 and f"usage: {line}" in said.stdout
    port = free_port()
    # An encoder of one's own: no miniature is trained here.
    options = ("--server_port", str(port), "--encoder", "own/encoder")
    environment = {**os.environ, "PATH": str(fresh)}
    line = [fresh / "soundprompt-app", *options]
    serves_and_ends(line, port, cwd=tmp_path, env=environment)
