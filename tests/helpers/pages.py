"""Pages to test: the real service on tiny models, served on this machine."""

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
    """A models folder with a base and an encoder that answers in its prompts, both untrained."""
    import torch

    from align.models.encoder import AudioPromptEncoder
    from align.preprocessing.text_embeds import CaptionEmbeds
    from align.prompts.embeds import SpaceShape
    from align.prompts.space import PromptSpace

    shutil.copytree(base, folder / "base")
    where = str(folder / "base")
    space = PromptSpace.from_pretrained(where)
    width = space.unconditional.embeds.shape[-1]
    torch.manual_seed(0)
    encoder = AudioPromptEncoder.from_backbone(
        backbone, ADAPTER, {where: SpaceShape(where, 77, width)}
    )
    table = CaptionEmbeds.encode(space, CAPTIONS)
    encoder.head(where).set_statistics(table.statistics(), space.unconditional)
    encoder.save_pretrained(folder / "encoder")
    return folder


def save_adapter(models: Path, name: str, gate: float) -> str:
    """Saves a sound adapter of the base and encoder in a models folder; its own folder."""
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
    """A page that is being served: its address, and the service behind it."""

    url: str
    service: Any


@contextmanager
def serve(models: Path, **changes: Any) -> Iterator[Served]:
    """Serves a page on the models of a folder made by `make_models`; changes are options."""
    from soundprompt.app.arguments import AppArguments
    from soundprompt.app.page import build_app, launch_kwargs
    from soundprompt.app.service import AppService

    given = {"models": str(models), "runs": str(models / "no runs")} | changes
    given.setdefault("base", str(models / "base"))
    given.setdefault("encoder", str(models / "encoder"))
    service = AppService(AppArguments(**given))
    page = build_app(service)
    how = launch_kwargs(service) | {"quiet": True, "prevent_thread_lock": True}
    try:
        _, url, _ = page.launch(**how | {"server_name": "127.0.0.1"})
        yield Served(url, service)
    finally:
        page.close()
        service.close()


def free_port() -> int:
    """A port of this machine that nothing listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def serves_and_ends(line: list[Any], port: int, **how: Any) -> None:
    """Starts a page by its command, and ends it once it answers at a port of this machine."""
    page = subprocess.Popen(line, **how)
    try:
        assert b"SoundPrompt" in answered(f"http://127.0.0.1:{port}", page)
        page.terminate()
        assert page.wait(60) == 0
    finally:
        page.kill()


def answered(url: str, page: subprocess.Popen[bytes], patience_s: float = 240.0) -> bytes:
    """What a page that is being started answers, once it does."""
    end = time.monotonic() + patience_s
    while page.poll() is None and time.monotonic() < end:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return answer.read()
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no answer from {url}; the page's status is {page.poll()}")


def connect(served: Served) -> Any:
    """A visitor by `gradio_client`."""
    from gradio_client import Client

    return Client(served.url, verbose=False)


def generate(client: Any, sound: Path, **more: Any) -> tuple[list[Any], dict[str, Any], str]:
    """Pictures as arrays, settings and status."""
    import numpy as np
    from gradio_client import handle_file
    from PIL import Image

    more = {"num_inference_steps": 2, "images": 1} | more
    pictures, made, said = client.predict(handle_file(sound), **more, api_name="/generate")
    seeds = [f"seed {made['seed'] + i}" for i in range(len(pictures))]
    assert [row["caption"] for row in pictures] == seeds
    return [np.asarray(Image.open(row["image"])) for row in pictures], made, said
