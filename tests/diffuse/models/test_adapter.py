"""Audio adapters: saving, base models, attaching several to one UNet."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from align.models.encoder import AudioPromptEncoder
from diffuse.models import saving
from diffuse.models.adapter import SoundAdapter
from diffuse.models.attach import AttachedAdapters, attach
from diffuse.models.conditioning import AudioConditioning, encode_audio
from diffuse.models.configuration import AdapterConfig
from diffuse.models.lora import lora_parameters

GROUPS = ("projector", "level_projections", "attention", "gates", "level_weights")


@pytest.fixture(scope="module")
def base(tiny_base: str) -> StableDiffusionPipeline:
    return StableDiffusionPipeline.from_pretrained(tiny_base)


@pytest.fixture
def unet(base: StableDiffusionPipeline) -> UNet2DConditionModel:
    return copy.deepcopy(base.unet)


def new_adapter(
    unet: Any, encoder: AudioPromptEncoder, seed: int = 1, **choices: Any
) -> SoundAdapter:
    """Return an adapter with random weights everywhere, as after training."""
    torch.manual_seed(seed)
    config = AdapterConfig(base_model="tiny", width=16, heads=2, **choices)
    adapter = SoundAdapter.from_unet(unet, encoder, config)
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return adapter


def random_lora(unet: Any, name: str = "adapter") -> None:
    for parameter in lora_parameters(unet, name).values():
        torch.nn.init.normal_(parameter, std=0.3)


def some_audio(seed: int = 0) -> AudioConditioning:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(1, 6, dtype=torch.bool)
    tokens, embeds = (torch.randn(1, n, 32, generator=generator) for n in (6, 77))
    return AudioConditioning(tokens, mask, embeds)


@torch.no_grad()
def predict(unet: Any, timestep: int = 500) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 8, 8, generator=generator)
    text = torch.randn(1, 77, 32, generator=generator)
    noise_pred: torch.Tensor = unet(latents, timestep, text).sample
    return noise_pred


def attach_with_audio(
    unet: Any, adapter: Any, name: str = "adapter", seed: int = 0
) -> AttachedAdapters:
    attached = attach(unet, adapter, name)
    attached.play(some_audio(seed))
    return attached


@pytest.mark.parametrize(("attention_type", "rank"), [("shared", 2), ("sonic", 0)])
def test_saved_adapter_predicts_the_same(
    base: Any,
    unet: Any,
    tiny_encoder: AudioPromptEncoder,
    tmp_path: Path,
    attention_type: str,
    rank: int,
) -> None:
    adapter = new_adapter(
        unet, tiny_encoder, attention_type=attention_type, lora_rank=rank, routing="hierarchy"
    )
    adapter.set_temperature(0.7)
    attached = attach_with_audio(unet, adapter)
    random_lora(unet)
    with_audio = predict(unet)
    attached.save(tmp_path)
    again = copy.deepcopy(base.unet)
    loaded = saving.load_adapter(tmp_path)
    before, after = adapter.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert loaded.config == adapter.config
    attach_with_audio(again, loaded)
    assert torch.equal(predict(again), with_audio)


def test_save_writes_expected_files_and_keys(
    unet: Any, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    adapter = new_adapter(unet, tiny_encoder, lora_rank=2, blocks=("mid",))
    attach(unet, adapter).save(tmp_path)
    layer = "layers.mid_block/attentions/0/transformer_blocks/0/attn2"
    keys = {path.name: set(load_file(path)) for path in tmp_path.glob("*.safetensors")}
    assert keys["attention.safetensors"] == {f"{layer}.to_k.weight", f"{layer}.to_v.weight"}
    assert keys["gates.safetensors"] == {f"{layer}.gate", "level_logits", "temperature"}
    assert {name.split(".")[1] for name in keys["projector.safetensors"]} == {
        "mixture", "norm_tokens", "null_tokens", "level_projections", "resampler", "std",
    }  # fmt: skip
    assert all(name.startswith("unet.") for name in keys["pytorch_lora_weights.safetensors"])
    assert {path.name for path in tmp_path.iterdir()} == {*keys, "config.json", "README.md"}
    card = (tmp_path / "README.md").read_text()
    assert "base_model: tiny" in card and "LoRA of rank 2" in card


def test_load_lora_weights_reads_saved_lora(
    base: Any, unet: Any, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    attached = attach(unet, new_adapter(unet, tiny_encoder, lora_rank=2, lora_alpha=6))
    random_lora(unet)
    attached.save(tmp_path)
    attached.clear_audio()
    stock = StableDiffusionPipeline(**{**base.components, "unet": copy.deepcopy(base.unet)})
    plain = predict(stock.unet)
    stock.load_lora_weights(tmp_path)
    assert not torch.equal(plain, predict(stock.unet))
    torch.testing.assert_close(predict(stock.unet), predict(unet))


def test_detach_keeps_other_lora(base: Any, unet: Any, tiny_encoder: AudioPromptEncoder) -> None:
    from peft import LoraConfig

    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), adapter_name="style")
    random_lora(unet, "style")
    styled = predict(unet)
    attached = attach_with_audio(unet, new_adapter(unet, tiny_encoder, lora_rank=2))
    random_lora(unet)
    assert not torch.equal(predict(unet), styled)
    attached.clear_audio()
    attached.set_lora_scale(0.0)
    assert torch.equal(predict(unet), styled)
    attached.detach()
    assert torch.equal(predict(unet), styled)
    assert not torch.equal(styled, predict(base.unet))


def test_attach_to_other_base_model_raises(
    unet: Any, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    adapter = new_adapter(unet, tiny_encoder)
    fine_tuned = copy.deepcopy(unet)
    torch.nn.init.normal_(fine_tuned.conv_in.weight)
    with pytest.raises(ValueError, match=r"for 'tiny', not for '.*stable-diffusion0'.*mismatch"):
        attach(fine_tuned, adapter)
    attach(fine_tuned, adapter, ignore_base_model_mismatch=True).detach()
    other = UNet2DConditionModel(**{**unet.config, "cross_attention_dim": 16})
    with pytest.raises(ValueError, match="trained for 'tiny', not for") as refused:
        attach(other, adapter, ignore_base_model_mismatch=True)
    assert "mismatch" not in str(refused.value)
    with pytest.raises(ValueError, match="32 wide and 'tiny' expects 16"):
        new_adapter(other, tiny_encoder)


def test_fingerprint_matches_in_half_precision(unet: Any, tiny_encoder: AudioPromptEncoder) -> None:
    adapter = new_adapter(unet, tiny_encoder)
    for dtype in (torch.float16, torch.bfloat16):
        attach(copy.deepcopy(unet).to(dtype), adapter).detach()


def test_load_incomplete_folder_raises(
    unet: Any, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="there is no sound adapter in"):
        saving.load_adapter(tmp_path)
    adapter = new_adapter(unet, tiny_encoder, lora_rank=2)
    with pytest.raises(ValueError, match="LoRA is in its UNet"):
        saving.save_adapter(adapter, tmp_path)
    attach(unet, adapter).save(tmp_path)
    for name in ("gates.safetensors", "pytorch_lora_weights.safetensors"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).unlink()
        with pytest.raises(ValueError, match=f"incomplete: {name} is missing"):
            saving.load_adapter(tmp_path)
        (tmp_path / name).write_bytes(content)
    weights = load_file(tmp_path / "attention.safetensors")
    save_file(dict(list(weights.items())[1:]), tmp_path / "attention.safetensors")
    with pytest.raises(ValueError, match=r"does not match its config\.json: layers"):
        saving.load_adapter(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "color": "red"}))
    with pytest.raises(ValueError, match="unknown keys: color"):
        saving.load_adapter(tmp_path)


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"attention_type": "round"}, "no 'round'; the choices are: shared, sonic"),
        ({"routing": "random"}, "no 'random'; the choices are: all, hierarchy, reverse"),
        ({"lora_rank": -1}, "lora_rank must be 0"),
        ({"blocks": ("top",)}, "blocks are down, mid, up, not 'top'"),
    ],
)
def test_invalid_config_raises(
    unet: Any, tiny_encoder: AudioPromptEncoder, choices: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        new_adapter(unet, tiny_encoder, **choices)


def test_blocks_limit_audio_attention(unet: Any, tiny_encoder: AudioPromptEncoder) -> None:
    up = new_adapter(unet, tiny_encoder, blocks=("up",))
    assert up.config.layers and all(name.startswith("up_") for name in up.config.layers)
    attach(unet, up)
    names = [n for n, p in unet.attn_processors.items() if type(p).__name__ == "AudioAttnProcessor"]
    assert sorted(names) == sorted(f"{name}.processor" for name in up.config.layers)


def test_routing_selects_levels_per_block(unet: Any, tiny_encoder: AudioPromptEncoder) -> None:
    adapter = new_adapter(unet, tiny_encoder, routing="hierarchy")
    tokens = torch.randn(1, 10, 32)
    other = tokens.clone()
    other[:, :5] += 1  # another foreground
    for name, (audio,) in adapter.compute_key_values(tokens).items():
        (changed,) = adapter.compute_key_values(other)[name]
        assert audio.keys.shape[1] == {"down": 5, "mid": 10, "up": 2}[name.split("_")[0]]
        assert torch.equal(audio.keys, changed.keys) == name.startswith("up_")


def test_adapter_weights_combine_two_adapters(
    base: Any, unet: Any, tiny_encoder: AudioPromptEncoder
) -> None:
    without_audio = predict(unet)
    first, second = (new_adapter(unet, tiny_encoder, seed, lora_rank=2) for seed in (1, 2))
    alone = {}
    for name, adapter in (("rain", first), ("dogs", second)):
        single = copy.deepcopy(base.unet)
        attach_with_audio(single, copy.deepcopy(adapter), name)
        alone[name] = predict(single)
    attached = attach_with_audio(unet, first, "rain")
    attached = attach_with_audio(unet, second, "dogs")
    assert list(attached.adapters) == ["rain", "dogs"]
    attached.play(some_audio())
    both = predict(unet)
    assert not torch.equal(both, alone["rain"]) and not torch.equal(both, alone["dogs"])
    attached.set_adapter_weights({"rain": 1.0, "dogs": 0.0})
    assert torch.equal(predict(unet), alone["rain"])
    attached.set_adapter_weights({"rain": 0.0, "dogs": 1.0})
    assert torch.equal(predict(unet), alone["dogs"])
    attached.detach("dogs")
    attached.set_adapter_weights({"rain": 1.0})
    attached.play(some_audio())
    assert torch.equal(predict(unet), alone["rain"])
    with pytest.raises(ValueError, match="as 'dogs'; attached are: rain"):
        attached.set_audio_scale(1.0, name="dogs")
    attached.detach()
    assert torch.equal(predict(unet), without_audio)


def test_attach_other_attention_type_raises(unet: Any, tiny_encoder: AudioPromptEncoder) -> None:
    sonic = new_adapter(unet, tiny_encoder, attention_type="sonic")
    attach(unet, new_adapter(unet, tiny_encoder))
    with pytest.raises(ValueError, match="types sonic and shared cannot be combined"):
        attach(unet, sonic, "sonic")


def test_gates_are_saved_and_loaded_separately(
    unet: Any, tiny_encoder: AudioPromptEncoder, tmp_path: Path
) -> None:
    adapter = new_adapter(unet, tiny_encoder)
    attached, file = attach_with_audio(unet, adapter), tmp_path / "domains" / "nature.safetensors"
    with_audio, gates = predict(unet), adapter.gates()
    saving.save_gates(adapter, file)
    for gate in [*adapter.parameter_groups["gates"], adapter.level_logits]:
        torch.nn.init.zeros_(gate)
    attached.play(some_audio())
    assert not torch.equal(predict(unet), with_audio) and not any(adapter.gates().values())
    saving.load_gates(adapter, file)
    attached.play(some_audio())
    assert torch.equal(predict(unet), with_audio) and adapter.gates() == gates
    other = new_adapter(unet, tiny_encoder, blocks=("mid",))
    with pytest.raises(ValueError, match="gates of other layers"):
        saving.load_gates(other, file)


def test_audio_interval_limits_audio(unet: Any, tiny_encoder: AudioPromptEncoder) -> None:
    without_audio = {timestep: predict(unet, timestep) for timestep in (900, 100)}
    attached = attach_with_audio(unet, new_adapter(unet, tiny_encoder))
    attached.set_audio_scale(1.0, audio_interval=(0.0, 0.5))
    assert not torch.equal(predict(unet, 900), without_audio[900])
    assert torch.equal(predict(unet, 100), without_audio[100])
    attached.set_audio_scale(1.0, audio_interval=(0.5, 1.0))
    assert torch.equal(predict(unet, 900), without_audio[900])
    assert not torch.equal(predict(unet, 100), without_audio[100])
    with pytest.raises(ValueError, match="must be a range within 0"):
        attached.set_audio_scale(1.0, audio_interval=(0.5, 0.2))


def test_audio_scale_and_level_scales(unet: Any, tiny_encoder: AudioPromptEncoder) -> None:
    without_audio = predict(unet)
    attached = attach_with_audio(unet, new_adapter(unet, tiny_encoder))
    with_audio = predict(unet)
    attached.set_audio_scale(2.0)
    louder = predict(unet)
    attached.set_audio_scale(1.0, level_scales={"foreground": 0.5})
    assert len({t.sum().item() for t in (without_audio, with_audio, louder, predict(unet))}) == 4
    attached.set_audio_scale(
        1.0, level_scales=dict.fromkeys(("foreground", "background", "ambience"), 0)
    )
    assert torch.equal(predict(unet), without_audio)
    attached.set_audio_scale(1.0)
    assert torch.equal(predict(unet), with_audio)


@pytest.mark.parametrize("chosen", [("gates", "level_weights"), ("projector",), ("lora",)])
def test_train_only_freezes_other_groups(
    unet: Any, tiny_encoder: AudioPromptEncoder, chosen: tuple[str, ...]
) -> None:
    adapter = new_adapter(unet, tiny_encoder, lora_rank=2)
    attached = attach(unet, adapter)
    weights = attached.train_only(*chosen)
    on = {id(p) for p in [*adapter.parameters(), *unet.parameters()] if p.requires_grad}
    assert on == set(map(id, weights)) and weights
    for part in (*GROUPS, "lora"):
        assert all(p.requires_grad == (part in chosen) for p in attached.group_parameters(part))
    count = sum(len(attached.group_parameters(part)) for part in GROUPS)
    assert count == len(list(adapter.parameters())), "every parameter is in exactly one group"


def test_train_only_missing_group_raises(unet: Any, tiny_encoder: AudioPromptEncoder) -> None:
    attached = attach(unet, new_adapter(unet, tiny_encoder))
    with pytest.raises(ValueError, match="has no lora to train"):
        attached.train_only("lora")
    with pytest.raises(ValueError, match="no parameter group 'audio'; the groups are: projector"):
        attached.train_only("audio")


def test_encode_audio_is_independent_of_batch(
    tiny_encoder: AudioPromptEncoder, sound_folder: Path
) -> None:
    files = [sound_folder / "0.wav", sound_folder / "1.wav"]
    both, alone = encode_audio(tiny_encoder, files), encode_audio(tiny_encoder, files[1:])
    assert torch.equal(both.tokens[1:], alone.tokens)
    assert torch.equal(both.embeds[1:], alone.embeds)
    embeds = tiny_encoder.encode_prompt(files)["prompt_embeds"]
    assert torch.equal(both.embeds, embeds)
    with pytest.raises(ValueError, match="no audio to encode"):
        encode_audio(tiny_encoder, [])
