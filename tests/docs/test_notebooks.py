"""The notebooks run from top to bottom with the mini models, each on what the others wrote."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"
NAMES = sorted(path.name for path in FOLDER.glob("*.ipynb"))
MAX_BYTES = 400_000  # so that outputs do not fill the history


def read(name: str) -> Any:
    return nbformat.read(FOLDER / name, 4)


def run(name: str, monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> str:
    """Runs a notebook with other parameters and returns its standard output."""
    book = read(name)
    (cell,) = (c for c in book.cells if "parameters" in c.metadata.get("tags", []))
    known = {target.id for line in ast.parse(cell.source).body for target in line.targets}
    assert set(parameters) <= known
    cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
    NotebookClient(book, timeout=600, resources={"metadata": {"path": str(FOLDER)}}).execute()
    outputs = [out for c in book.cells for out in c.get("outputs", [])]
    assert any("image/png" in out.get("data", {}) for out in outputs)
    return "".join(out.get("text", "") for out in outputs if out.get("name") == "stdout")


def test_notebooks_are_numbered_from_one_to_five() -> None:
    assert [name[:2] for name in NAMES] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("name", NAMES)
def test_notebook_has_small_outputs_and_no_definitions(name: str) -> None:
    book = read(name)
    code = [cell for cell in book.cells if cell.cell_type == "code"]
    tree = ast.parse("\n".join(cell.source for cell in code))
    defined = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    assert not [node for node in ast.walk(tree) if isinstance(node, defined)]
    assert "At the end" in book.cells[0].source
    assert any(out.get("data", {}).get("image/png") for cell in code for out in cell.outputs)
    assert not [out for cell in code for out in cell.outputs if out.output_type == "error"]
    assert (FOLDER / name).stat().st_size < MAX_BYTES


@pytest.mark.slow
def test_notebooks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, adapter = tmp_path / "own", tmp_path / "adapter"
    options = [
        *("--num_train_epochs", "2", "--num_images", "4"),
        *("--num_sheet_samples", "3", "--num_inference_steps", "3"),
    ]
    printed = run(
        NAMES[1],
        monkeypatch,
        FOLDER=str(tmp_path / "clips"),
        RUN=str(own),
        NUM_CLIPS=30,
        OPTIONS=options,
    )
    assert "class_accuracy" in printed
    run(NAMES[0], monkeypatch, RUN=str(own))
    run(NAMES[2], monkeypatch, RUN=str(own), STEPS=3)
    stage = ["--stages", "audio_attention", "--max_steps", "2", "--save_strategy", "no"]
    printed = run(
        NAMES[3],
        monkeypatch,
        RUN=str(own),
        ADAPTER=str(adapter),
        OPTIONS=[*stage, *options[2:]],
    )
    assert "object_accuracy" in printed
    printed = run(NAMES[4], monkeypatch, RUN=str(own), NUM_IMAGES=4)
    assert "image_accuracy_text" in printed
