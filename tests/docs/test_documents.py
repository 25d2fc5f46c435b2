"""The documents' links, commands and recipes exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMAND = re.compile(r"python -m ([a-z_]+(?:\.[a-z_0-9]+)+)")


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_exist(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text())
    relative = [link for link in links if "://" not in link]
    assert not [link for link in relative if not (page.parent / link).exists()]


def test_every_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    pages = set(re.findall(r"[\w/-]+\.md$", text.partition("\nnav:")[2], re.M))
    excluded = yaml.safe_load(re.search(r"^exclude_docs:.*$", text, re.M)[0])["exclude_docs"]
    written = {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")}
    assert len(pages) > 15
    assert pages == {page for page in written if not page.startswith(excluded)}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_are_modules(page: Path) -> None:
    for name in COMMAND.findall(page.read_text()):
        path = ROOT / name.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), name


def test_recipes_exist() -> None:
    text = "".join(page.read_text() for page in PAGES)
    assert "python -m align.train esc10" in text
    for package in ("align", "diffuse"):
        named = set(re.findall(rf"python -m {package}\.train ([a-z0-9][\w-]*)(?![\w./-])", text))
        assert named <= {path.stem for path in (ROOT / package / "recipes").glob("*.yaml")}
