"""Full-size checkpoints with random weights, in the layout and with the keys of the Hub's files.

Older formats are reproduced: position_ids among the weights, the prefix text_model., the
autoencoder's attention as query, key, value and proj_attn, CLAP as a pytorch_model.bin. Weights are
in float16 to halve the disk space. The safety checker and the UNets and autoencoders of 2.1 and
SDXL are listed in model_index.json but missing, because the package must not load them.
"""

from __future__ import annotations

import itertools
import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

CLIP_L = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "hidden_act": "quick_gelu", "projection_dim": 768,
    "vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 1,
}  # fmt: skip
CLIP_G = CLIP_L | {
    "hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32,
    "num_attention_heads": 20, "hidden_act": "gelu", "projection_dim": 1280,
}  # fmt: skip
CLIP_H = CLIP_L | {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23,
    "num_attention_heads": 16, "hidden_act": "gelu", "projection_dim": 512,
}  # fmt: skip
SD_PARTS = {
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def build(folder: Path) -> None:
    """Write the missing checkpoints.

    Args:
        folder: Output directory.
    """
    made = {
        "stable-diffusion-v1-5": save_sd15,
        "stable-diffusion-2-1": save_sd21_text,
        "stable-diffusion-xl-base-1.0": save_sdxl_text,
        "larger_clap_music_and_speech": save_clap,
        "w2v-bert-2.0": save_w2v_bert,
    }
    for name, save in made.items():
        if not (folder / name / "done").exists():
            (folder / name).mkdir(parents=True, exist_ok=True)
            save(folder / name)
            (folder / name / "done").touch()


def save_sd15(folder: Path) -> None:
    """Write Stable Diffusion 1.5.

    Args:
        folder: Output directory.
    """
    from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel

    _write_clip(folder, "text_encoder", CLIP_L)
    _write_tokenizer(folder / "tokenizer")
    unet = _empty(
        UNet2DConditionModel, sample_size=64, cross_attention_dim=768, attention_head_dim=8
    )
    _write(folder / "unet", unet, "diffusion_pytorch_model.safetensors")
    vae = _empty(
        AutoencoderKL, block_out_channels=(128, 256, 512, 512), layers_per_block=2,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        sample_size=512,
    )  # fmt: skip
    _write(folder / "vae", vae, "diffusion_pytorch_model.safetensors", _old_attention)
    PNDMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", skip_prk_steps=True,
        steps_offset=1, set_alpha_to_one=False,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    _index(folder, "StableDiffusionPipeline", SD_PARTS | {
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "scheduler": ["diffusers", "PNDMScheduler"],
    })  # fmt: skip


def save_sd21_text(folder: Path) -> None:
    """Write the text encoder of Stable Diffusion 2.1.

    Args:
        folder: Output directory.
    """
    from diffusers import DDIMScheduler

    _write_clip(folder, "text_encoder", CLIP_H)
    _write_tokenizer(folder / "tokenizer", pad="!")
    DDIMScheduler().save_pretrained(folder / "scheduler")
    _index(folder, "StableDiffusionPipeline", SD_PARTS | {
        "requires_safety_checker": False,
        "safety_checker": [None, None],
        "scheduler": ["diffusers", "DDIMScheduler"],
    })  # fmt: skip


def save_sdxl_text(folder: Path) -> None:
    """Write the text encoders of SDXL.

    Args:
        folder: Output directory.
    """
    from diffusers import EulerDiscreteScheduler

    _write_clip(folder, "text_encoder", CLIP_L)
    _write_clip(folder, "text_encoder_2", CLIP_G)
    _write_tokenizer(folder / "tokenizer")
    _write_tokenizer(folder / "tokenizer_2", pad="!")
    EulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    _index(folder, "StableDiffusionXLPipeline", {
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })  # fmt: skip


def save_clap(folder: Path) -> None:
    """Write laion/larger_clap_music_and_speech.

    Args:
        folder: Output directory.
    """
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    audio = {
        "depths": [2, 2, 12, 2], "num_attention_heads": [4, 8, 16, 32], "hidden_size": 1024,
        "patch_embeds_hidden_size": 128, "enable_fusion": False, "window_size": 8,
        "num_mel_bins": 64, "spec_size": 256, "projection_dim": 512,
    }  # fmt: skip
    # Not on the meta device, because its integer buffers are computed.
    model = ClapModel(ClapConfig(audio_config=audio, projection_dim=512)).half()
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    ClapFeatureExtractor(
        feature_size=64, sampling_rate=48_000, hop_length=480, max_length_s=10,
        fft_window_size=1024, frequency_min=50, frequency_max=14_000, truncation="rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)  # fmt: skip


def save_w2v_bert(folder: Path) -> None:
    """Write facebook/w2v-bert-2.0.

    Args:
        folder: Output directory.
    """
    from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

    config = Wav2Vec2BertConfig(position_embeddings_type="relative_key", layerdrop=0.0)
    with torch.device("meta"):
        model = Wav2Vec2BertModel(config)
    _write(folder, model, "model.safetensors")
    SeamlessM4TFeatureExtractor(padding_value=1).save_pretrained(folder)


def _empty(kind: Any, **config: Any) -> Any:
    with torch.device("meta"):
        return kind(**config)


def _random(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Create a random state of a model on the meta device that preserves the signal variance.

    Every tensor repeats one block of random numbers, because sampling billions takes minutes.
    """
    block = torch.randn(1_000_003, generator=torch.Generator().manual_seed(0))
    state = {}
    for name, value in model.state_dict().items():
        whole = torch.zeros(value.shape, dtype=torch.float16)
        if value.ndim > 1:
            scaled = (block * 0.7 / max(1, value[0].numel()) ** 0.5).half()
            flat = whole.view(-1)
            for start in range(0, len(flat), len(block)):
                flat[start : start + len(block)] = scaled[: len(flat) - start]
        elif name.endswith(("weight", "running_var")):
            whole.fill_(1)
        state[name] = whole
    return state


def _write(
    folder: Path,
    model: Any,
    file: str,
    rename: Callable[[str], str] = str,
    more: dict[str, torch.Tensor] | None = None,
) -> None:
    state = {rename(name): value for name, value in _random(model).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state | (more or {}), folder / file, metadata={"format": "pt"})
    if hasattr(model, "save_config"):
        model.save_config(folder)
    else:
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)


def _write_clip(folder: Path, part: str, sizes: dict[str, Any]) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModelWithProjection if part.endswith("2") else CLIPTextModel
    model = _empty(kind, config=CLIPTextConfig(**sizes))
    ids = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    _write(folder / part, model, "model.safetensors", _old_text, ids)


def _old_text(name: str) -> str:
    return name if name.startswith("text_") else f"text_model.{name}"


def _old_attention(name: str) -> str:
    if "attentions" not in name:
        return name
    for new, old in OLD_ATTENTION.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


def _write_tokenizer(folder: Path, pad: str = "<|endoftext|>") -> None:
    """Write a tokenizer with the size and layout of CLIP's and 48,894 artificial merges."""
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    tokens = letters + [f"{letter}</w>" for letter in letters]
    merges: list[tuple[str, str]] = []
    known = list(string.ascii_lowercase)
    while len(merges) < 49408 - 512 - 2:
        pairs = itertools.product(known, [*string.ascii_lowercase])
        merges += [(a, b + end) for a, b in pairs for end in ("", "</w>")]
        known = [a + b for a, b in itertools.product(known, string.ascii_lowercase)]
    merges = merges[: 49408 - 512 - 2]
    tokens += ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": pad}
    kept = special | {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77}
    kept |= {"unk_token": "<|endoftext|>", "errors": "replace", "do_lower_case": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))


def _index(folder: Path, kind: str, parts: dict[str, Any]) -> None:
    head = {"_class_name": kind, "_diffusers_version": "0.6.0"}
    (folder / "model_index.json").write_text(json.dumps(head | parts, indent=2))
