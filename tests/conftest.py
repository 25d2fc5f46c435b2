"""Tiny checkpoints of the real classes in the layout of the Hub, and audio inputs."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
# A temporary cache instead of the one in the home directory.
if "SOUNDPROMPT_CACHE" not in os.environ:
    os.environ["SOUNDPROMPT_CACHE"] = tempfile.mkdtemp(prefix="soundprompt-cache-")
    atexit.register(shutil.rmtree, os.environ["SOUNDPROMPT_CACHE"], ignore_errors=True)

import numpy as np
import pytest
import soundfile
import torch

if TYPE_CHECKING:
    from align.models.encoder import AudioPromptEncoder

ESC10 = Path(
    os.environ.get("SOUNDPROMPT_ESC10", Path(__file__).parents[2] / "shared" / "data" / "esc10")
)
RATE = 24_000
WIDTH = 32  # width of the tiny text embeddings


@pytest.hookimpl(tryfirst=True)  # before -m selects by marker
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use a browser; skip those that need a GPU or the Hub without one."""
    online = os.environ["HF_HUB_OFFLINE"] in ("0", "")
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("hub") and not online:
            item.add_marker(pytest.mark.skip(reason="needs the Hub: set HF_HUB_OFFLINE=0"))


@pytest.fixture(scope="session")
def tiny_clap(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A CLAP model with its feature extractor."""
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    audio = {
        "spec_size": 64, "num_mel_bins": 16, "window_size": 4, "patch_size": 4,
        "patch_stride": [4, 4], "patch_embeds_hidden_size": 8, "hidden_size": 32,
        "depths": [1, 1, 1], "num_attention_heads": [2, 2, 2], "hidden_dropout_prob": 0.0,
        "num_hidden_layers": 3, "drop_path_rate": 0.0,
    }  # fmt: skip
    text = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "vocab_size": 50,
    }  # fmt: skip
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=16)).save_pretrained(
        folder
    )
    ClapFeatureExtractor(
        feature_size=16, sampling_rate=RATE, hop_length=480, max_length_s=2, fft_window_size=1024,
        frequency_min=50, frequency_max=12_000, truncation="rand_trunc", padding="repeatpad",
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


@pytest.fixture(scope="session")
def tiny_w2v_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Wav2Vec2-BERT with its feature extractor."""
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

    folder = tmp_path_factory.mktemp("w2v-bert")
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        feature_projection_input_dim=160, hidden_size=32, output_hidden_size=32,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        conv_depthwise_kernel_size=7,
    )  # fmt: skip
    Wav2Vec2BertModel(config).save_pretrained(folder)
    SeamlessM4TFeatureExtractor().save_pretrained(folder)
    return str(folder)


def _text_encoder(width: int) -> torch.nn.Module:
    from transformers import CLIPTextConfig, CLIPTextModel

    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=699, hidden_size=width, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, bos_token_id=697, eos_token_id=698, pad_token_id=698,
        )
    )  # fmt: skip


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Stable Diffusion pipeline."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )

    from soundprompt.mini.build.clip import new_tokenizer

    folder = tmp_path_factory.mktemp("stable-diffusion")
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8, layers_per_block=1, block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=2, norm_num_groups=8,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(8, 16), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, latent_channels=4, norm_num_groups=8,
    )  # fmt: skip
    StableDiffusionPipeline(
        vae=vae, text_encoder=_text_encoder(WIDTH), tokenizer=new_tokenizer(), unet=unet,
        scheduler=DDIMScheduler(), safety_checker=None, feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)  # fmt: skip
    return str(folder)


def tone(frequency: float, duration_s: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Return a sine tone of shape (N,), float32."""
    t = np.arange(int(duration_s * rate)) / rate
    return (0.4 * np.sin(2 * np.pi * frequency * t)).astype(np.float32)


@pytest.fixture(scope="session")
def sound_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve clips with three labels in three folds, with metadata.csv."""
    folder = tmp_path_factory.mktemp("sounds")
    lines = ["file_name,caption,label,fold"]
    kinds = {"low": (200, "a low hum"), "middle": (900, "a tone"), "high": (4000, "a whistle")}
    for i in range(12):
        label = list(kinds)[i % 3]
        frequency, caption = kinds[label]
        soundfile.write(folder / f"{i}.wav", tone(frequency * (1 + 0.02 * i)), RATE)
        lines.append(f"{i}.wav,{caption},{label},{1 + i // 3 % 3}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def esc10() -> Path:
    """Real clips, next to the project or at $SOUNDPROMPT_ESC10."""
    if not (ESC10 / "metadata.csv").exists():
        pytest.skip(f"no real clips at {ESC10}")
    return ESC10


@pytest.fixture(scope="session")
def tiny_encoder(tiny_base: str, tiny_clap: str) -> AudioPromptEncoder:
    """An untrained encoder of the tiny base's prompt space."""
    from align.models.encoder import AudioPromptEncoder
    from align.preprocessing.text_embeds import CaptionEmbeds
    from align.prompts.embeds import SpaceShape
    from align.prompts.space import PromptSpace

    torch.manual_seed(0)
    space = PromptSpace.from_pretrained(tiny_base)
    shape = SpaceShape(tiny_base, *space.unconditional.embeds.shape[1:])
    sizes = {"adapter_type": "resampler", "width": 16, "depth": 1, "heads": 2, "dropout": 0.0}
    encoder = AudioPromptEncoder.from_backbone(tiny_clap, sizes, {tiny_base: shape})
    table = CaptionEmbeds.encode(space, ["a dog barking", "rain falling", "a fire crackling"])
    encoder.head().set_statistics(table.statistics(), space.unconditional)
    return encoder.eval()


# Fixtures of apps that are served to a browser or through their API, one per module.


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, tiny_base: str, tiny_clap: str) -> Path:
    """A models folder with a base model and an encoder for it, both untrained."""
    from tests.helpers.pages import make_models

    return make_models(tmp_path_factory.mktemp("models"), tiny_base, tiny_clap)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A running browser."""
    from tests.helpers.browsing import chromium

    with chromium() as running:
        yield running


@pytest.fixture()
def visit(browser: Any, served: Any) -> Iterator[Callable[..., Any]]:
    """Open the page of the module in a new browser context."""
    from tests.helpers.browsing import visitors

    with visitors(browser, served.url) as open_page:
        yield open_page


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Audio files with a low and a high tone."""
    folder = tmp_path_factory.mktemp("sounds")
    paths = [folder / f"{hertz}.wav" for hertz in (200, 4000)]
    for path in paths:
        soundfile.write(path, tone(float(path.stem)), RATE)
    return paths


@pytest.fixture(scope="module")
def wav(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An audio file with a tone."""
    path = tmp_path_factory.mktemp("sounds") / "tone.wav"
    soundfile.write(path, tone(440), RATE)
    return path
