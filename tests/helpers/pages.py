"""The app with tiny models, served on localhost."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

ADAPTER = {"adapter_type": "resampler", "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}
CAPTIONS = ["a low hum", "a tone", "a whistle"]


def make_models(folder: Path, base: str, backbone: str) -> Path:
    """Create a models folder with a base model and an encoder for it, both untrained."""
    import torch

    from align.models.encoder import AudioPromptEncoder
    from align.preprocessing.text_embeds import CaptionEmbeds
    from align.prompts.embeds import SpaceShape
    from align.prompts.space import PromptSpace

    shutil.copytree(base, folder / "base")
    base_dir = str(folder / "base")
    space = PromptSpace.from_pretrained(base_dir)
    width = space.unconditional.embeds.shape[-1]
    torch.manual_seed(0)
    encoder = AudioPromptEncoder.from_backbone(
        backbone, ADAPTER, {base_dir: SpaceShape(base_dir, 77, width)}
    )
    table = CaptionEmbeds.encode(space, CAPTIONS)
    encoder.head(base_dir).set_statistics(table.statistics(), space.unconditional)
    encoder.save_pretrained(folder / "encoder")
    return folder


def save_adapter(models: Path, name: str, gate: float) -> str:
    """Save an audio adapter for the models of `make_models`; returns its folder."""
    import torch
    from diffusers import UNet2DConditionModel

    from align.models.encoder import AudioPromptEncoder
    from diffuse.models.adapter import SoundAdapter
    from diffuse.models.configuration import AdapterConfig
    from diffuse.models.saving import save_adapter

    unet = UNet2DConditionModel.from_pretrained(models / "base", subfolder="unet")
    encoder = AudioPromptEncoder.from_pretrained(models / "encoder")
    torch.manual_seed(1)
    adapter = SoundAdapter.from_unet(
        unet, encoder, AdapterConfig(base_model="tiny", width=16, heads=2)
    )
    for weight in adapter.parameter_groups["gates"]:
        torch.nn.init.constant_(weight, gate)
    save_adapter(adapter, models / name)
    return str(models / name)


@dataclass
class Served:
    """URL of a served app and the service behind it."""

    url: str
    service: Any


@contextmanager
def serve(models: Path, **changes: Any) -> Iterator[Served]:
    """Serve the app with the models of `make_models`; `changes` are options of the app."""
    from soundprompt.app.arguments import AppArguments
    from soundprompt.app.page import build_app, launch_kwargs
    from soundprompt.app.service import AppService

    given = {"models_dir": str(models), "runs_dir": str(models / "no runs")} | changes
    given.setdefault("base_model", str(models / "base"))
    given.setdefault("encoder", str(models / "encoder"))
    service = AppService(AppArguments(**given))
    page = build_app(service)
    kwargs = launch_kwargs(service) | {"quiet": True, "prevent_thread_lock": True}
    try:
        _, url, _ = page.launch(**kwargs | {"server_name": "127.0.0.1"})
        yield Served(url, service)
    finally:
        page.close()
        service.close()


def free_port() -> int:
    """Find a free port on localhost."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def serves_and_ends(line: list[Any], port: int, **kwargs: Any) -> None:
    """Start the app with a command, wait until it serves on a port, and terminate it."""
    page = subprocess.Popen(line, **kwargs)
    try:
        assert b"SoundPrompt" in wait_for_page(f"http://127.0.0.1:{port}", page)
        page.terminate()
        assert page.wait(60) == 0
    finally:
        page.kill()


def wait_for_page(url: str, page: subprocess.Popen[bytes], timeout_s: float = 240.0) -> bytes:
    """Return the HTML of an app that is being started."""
    end = time.monotonic() + timeout_s
    while page.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                return response.read()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no response from {url}; exit status of the app: {page.poll()}")


def connect(served: Served) -> Any:
    """Connect an API client."""
    from gradio_client import Client

    return Client(served.url, verbose=False)


def generate(client: Any, audio: Path, **kwargs: Any) -> tuple[list[Any], dict[str, Any], str]:
    """Generate through the API; returns images as arrays, metadata and status."""
    import numpy as np
    from gradio_client import handle_file
    from PIL import Image

    kwargs = {"num_inference_steps": 2, "num_images": 1} | kwargs
    rows, metadata, status = client.predict(handle_file(audio), **kwargs, api_name="/generate")
    seeds = [f"seed {metadata['seed'] + i}" for i in range(len(rows))]
    assert [row["caption"] for row in rows] == seeds
    return [np.asarray(Image.open(row["image"])) for row in rows], metadata, status
