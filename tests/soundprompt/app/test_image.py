"""Consistency of the container files with each other and the code; no image is built."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PORT = 7860

Instructions = list[tuple[str, str]]


@pytest.fixture(scope="module")
def dockerfile() -> Instructions:
    """Instructions and their arguments, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]  # type: ignore[misc]


def arguments(dockerfile: Instructions, name: str) -> list[str]:
    """The arguments of every instruction of a name."""
    return [argument for instruction, argument in dockerfile if instruction == name]


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_copied_files_exist_and_are_not_ignored(dockerfile: Instructions) -> None:
    copies = arguments(dockerfile, "COPY")
    sources = [copy.replace("--chown=user ", "").split()[0] for copy in copies]
    assert {"align", "diffuse", "soundprompt", "app.py"} <= set(sources)
    kept = {line[1:] for line in _lines(ROOT / ".dockerignore") if line.startswith("!")}
    assert kept == {source.split("/")[0] for source in sources}
    assert "*" in _lines(ROOT / ".dockerignore")
    assert all((ROOT / source).exists() for source in sources)


def test_base_image_is_slim_and_pinned_and_the_user_is_not_root(dockerfile: Instructions) -> None:
    (base,) = arguments(dockerfile, "FROM")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert arguments(dockerfile, "USER") == ["1000"]
    order = [instruction for instruction, _ in dockerfile]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_port_is_the_same_everywhere(dockerfile: Instructions) -> None:
    environment = " ".join(arguments(dockerfile, "ENV"))
    assert arguments(dockerfile, "EXPOSE") == [str(PORT)]
    assert "GRADIO_SERVER_NAME=0.0.0.0" in environment
    assert f"GRADIO_SERVER_PORT={PORT}" in environment
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert services["page"]["ports"] == services["gpu"]["ports"] == [f"{PORT}:{PORT}"]
    space = yaml.safe_load((ROOT / "docs/space/README.md").read_text().split("---")[1])
    assert space["sdk"] == "docker" and space["app_port"] == PORT
    (guide,) = (ROOT / "docs").rglob("docker.md")
    assert f"-p {PORT}:{PORT}" in guide.read_text()


def test_volumes_are_where_the_app_and_the_hub_look(dockerfile: Instructions) -> None:
    from soundprompt.app.arguments import AppArguments

    volumes = " ".join(arguments(dockerfile, "VOLUME"))
    assert f"/app/{AppArguments().models_dir}" in volumes and ".cache/huggingface" in volumes
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    targets = [volume.split(":")[1] for volume in services["page"]["volumes"]]
    assert all(target in volumes for target in targets) and len(targets) == 2
    assert services["gpu"]["build"]["args"] == {"DEVICE": "cuda"}


def test_options_of_the_training_command_exist(dockerfile: Instructions) -> None:
    from align.config.options import ARGUMENTS
    from align.config.parser import parse

    commands = [run for run in arguments(dockerfile, "RUN") if "align.train" in run]
    (line,) = re.findall(r"-m align\.train (.*?) &&", commands[0])
    assert parse(ARGUMENTS, "align", "align.train", line.split())
