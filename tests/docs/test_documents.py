"""What the documents point at is there: links, files of the tree, commands and their options."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PACKAGES = ("align", "diffuse", "studio", "mini", "benchmarks")
COMMAND = re.compile(r"python -m ([a-z_]+(?:\.[a-z_0-9]+)+)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    inside = [link for link in links if "://" not in link]
    assert not [link for link in inside if not (page.parent / link).exists()]


def test_the_readme_names_every_module() -> None:
    told = (ROOT / "README.md").read_text()
    listed = subprocess.run(
        ["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    modules = [Path(name) for name in listed if name.endswith(".py")]
    missing = [str(m) for m in modules if not m.name.startswith("__") and m.name not in told]
    assert len(modules) > 100
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_modules(page: Path) -> None:
    for name in COMMAND.findall(page.read_text()):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


def test_recipes_that_are_named_exist() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert "python -m align.train esc10" in text
    for room in ("align", "diffuse"):
        named = set(re.findall(rf"python -m {room}\.train ([a-z0-9][\w-]*)(?![\w/-])", text))
        there = {path.stem for path in (ROOT / room / "recipes").glob("*.yaml")}
        assert named <= there
