"""Every adapter in an encoder: the contents of a saved folder, and loading it again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from align.models.adapters import default_adapter_kwargs
from align.models.encoder import AudioPromptEncoder
from align.prompts.embeds import SpaceShape
from tests.align.models.adapters.test_adapters import POOLED, SMALL
from tests.conftest import RATE, tone

# Renaming one of these makes all saved encoders unreadable.
PARTS = {
    "resampler": {"queries", "proj_in", "layers", "norm", "proj_out", "proj_pooled"},
    "linear": {"proj_out", "gain", "offset", "proj_pooled"},
    "mlp": {"hidden", "to_tokens", "norm", "position_mixer"},
    "conv": {"proj_in", "layers", "norm", "position_mixer"},
    "multiscale": {"proj_in", "layers", "norm", "position_mixer"},
    "sonic": {"norm", "convs", "proj_embeds", "blocks", "proj_out", "proj_pooled"},
    "hierarchical": {
        "proj_in", "queries", "level_resamplers", "level_weights", "norm_levels",
        "position_queries", "layers", "norm", "proj_out", "proj_pooled",
    },
}  # fmt: skip
BUFFERS = {
    f"{name}_{what}"
    for name in ("embeds", "pooled")
    for what in ("mean", "std", "constant", "unconditional")
}


def encoder_of(kind: str, backbone: str) -> AudioPromptEncoder:
    torch.manual_seed(0)
    small = {name: value for name, value in SMALL.items() if name in default_adapter_kwargs(kind)}
    made: AudioPromptEncoder = AudioPromptEncoder.from_backbone(
        backbone,
        {"adapter_type": kind, **small},
        {"base": SpaceShape("base", 5, 8, pooled_width=4)},
    )
    made.head().embeds_std.fill_(1.0)  # without statistics, all embeds are equal
    made.head().pooled_std.fill_(1.0)
    return made.eval()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["clap", "w2v"])
@pytest.mark.parametrize("kind", POOLED)
def test_saved_encoder_loads_its_adapter(
    kind: str, backbone: str, tiny_clap: str, tiny_w2v_bert: str, tmp_path: Path
) -> None:
    encoder = encoder_of(kind, {"clap": tiny_clap, "w2v": tiny_w2v_bert}[backbone])
    encoder.save_pretrained(tmp_path)
    kept = load_file(tmp_path / "model.safetensors")
    of_head = {k.removeprefix("heads.base.") for k in kept if k.startswith("heads.base.")}
    of_backbone = {k for k in kept if k.startswith("backbone.")}
    assert len(of_head) + len(of_backbone) == len(kept)
    of_adapter = {k.removeprefix("adapter.") for k in of_head if k.startswith("adapter.")}
    assert of_head - {f"adapter.{k}" for k in of_adapter} == BUFFERS
    assert of_adapter == set(dict(encoder.head().adapter.named_parameters())) != set()
    assert {k.partition(".")[0] for k in of_adapter} == PARTS[kind]
    assert of_backbone == {f"backbone.{k}" for k in encoder.backbone.state_dict()}

    loaded = AudioPromptEncoder.from_pretrained(tmp_path)
    waves = [tone(300), tone(4000, 5.0)]
    first, second = (e.encode(waves, sampling_rate=RATE) for e in (encoder, loaded))
    assert first.embeds.shape == (2, 5, 8) and first.pooled.shape == (2, 4)
    assert first.embeds.std() > 0.05 and first.pooled.std() > 0.05
    assert torch.equal(first.embeds, second.embeds)
    assert torch.equal(first.pooled, second.pooled)
    assert not torch.equal(first.embeds[0], first.embeds[1])
