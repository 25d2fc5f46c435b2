"""Command lines that are refused before any model is loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

import align.encode
import align.evaluate
import diffuse.animate
import diffuse.edit
import diffuse.evaluate
import diffuse.generate

COMMANDS = {
    "align.encode": align.encode.main, "align.evaluate": align.evaluate.main,
    "diffuse.evaluate": diffuse.evaluate.main, "diffuse.generate": diffuse.generate.main,
    "diffuse.edit": diffuse.edit.main, "diffuse.animate": diffuse.animate.main,
}  # fmt: skip


def assert_refused(line: str, expected: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a command line that fails with a one-line message, before loading or writing."""
    loaded: list[str] = []
    monkeypatch.setattr("align.models.encoder.load_encoder", loaded.append)
    for module in ("diffuse.cli", "diffuse.generate"):
        monkeypatch.setattr(f"{module}.load_pipeline", loaded.append)
    name, *words = line.split()
    with pytest.raises(SystemExit) as caught:
        COMMANDS[name](words)
    message = str(caught.value.code)
    assert message.startswith(f"{name}: ") and expected in message, message
    assert "\n" not in message
    assert not loaded
    assert not (folder / "a").exists()
