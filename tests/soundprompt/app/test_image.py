"""The container's files agree with each other and with the code; a build needs an engine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
PORT = 7860


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """Instructions and their arguments, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]  # type: ignore[misc]


def of(dockerfile: list[tuple[str, str]], name: str) -> list[str]:
    return [argument for instruction, argument in dockerfile if instruction == name]


def test_what_is_copied_is_there_and_not_ignored(dockerfile: list[tuple[str, str]]):
    sources = [a.replace("--chown=user ", "").split()[0] for a in of(dockerfile, "COPY")]
    packages = {"align", "diffuse", "soundprompt"}
    assert packages | {"app.py"} < {source.split("/")[0] for source in sources}
    kept = {line[1:] for line in _lines(ROOT / ".dockerignore") if line.startswith("!")}
    assert kept == {source.split("/")[0] for source in sources}
    assert "*" in _lines(ROOT / ".dockerignore")
    assert all((ROOT / source).exists() for source in sources)


def _lines(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if line and not line.startswith("#")]


def test_the_base_is_slim_pinned_and_left_for_an_ordinary_user(dockerfile: list[tuple[str, str]]):
    (base,) = of(dockerfile, "FROM")
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert of(dockerfile, "USER") == ["1000"]
    order = [instruction for instruction, _ in dockerfile]
    assert order.index("USER") < order.index("ENTRYPOINT")


def test_every_part_speaks_of_one_port(dockerfile: list[tuple[str, str]]):
    environment = " ".join(of(dockerfile, "ENV"))
    assert of(dockerfile, "EXPOSE") == [str(PORT)]
    assert "GRADIO_SERVER_NAME=0.0.0.0" in environment
    assert f"GRADIO_SERVER_PORT={PORT}" in environment
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    assert services["page"]["ports"] == services["gpu"]["ports"] == [f"{PORT}:{PORT}"]
    space = yaml.safe_load((ROOT / "docs/space/README.md").read_text().split("---")[1])
    assert space["sdk"] == "docker" and space["app_port"] == PORT
    assert f"-p {PORT}:{PORT}" in (ROOT / "docs/docker.md").read_text()


def test_volumes_lie_where_the_app_and_the_hub_look(dockerfile: list[tuple[str, str]]):
    from soundprompt.app.arguments import StudioOptions

    volumes = " ".join(of(dockerfile, "VOLUME"))
    assert f"/app/{StudioOptions().models}" in volumes and ".cache/huggingface" in volumes
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    targets = [volume.split(":")[1] for volume in services["page"]["volumes"]]
    assert all(target in volumes for target in targets) and len(targets) == 2
    assert services["gpu"]["build"]["args"] == {"DEVICE": "cuda"}
