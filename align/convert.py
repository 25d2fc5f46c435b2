"""Imports audio2img's checkpoints: `python -m align.convert SOURCE --base_model BASE --out FOLDER`."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import check_output_dir

if TYPE_CHECKING:
    from align.models.encoder import AudioPromptEncoder
    from align.models.heads import Head
    from align.prompts.embeds import SpaceShape
    from align.prompts.space import PromptSpace


AUDIO2IMG_WINDOW_S = 3.75  # seconds that audio2img hears: 47 tokens


def convert_w2v_bert(
    source: str, base_model: str, window_s: float = AUDIO2IMG_WINDOW_S
) -> AudioPromptEncoder:
    """An encoder whose prompt embeds are a Wav2Vec2-BERT's own output.

    audio2img's result, `youzarsif/wav2vec2bert_2_diffusion`, is such a model: its adapter layers
    end in the text encoder's width, and what they give was put in the prompt's place. Here token
    number l is the prompt's position number l; behind the last one stand the base's own
    unconditional embeds, of which audio2img had none: its prompts ended there. Of a longer
    recording the first window is heard, as there.

    Args:
        source: folder or hub id of a Wav2Vec2BertModel with adapter layers. Where it has no
            feature extractor, facebook/w2v-bert-2.0's settings are used, as it was trained with.
        base: the pipeline it was trained for: a short name, a folder or a hub id.
        window_s: seconds heard of a recording.

    Raises:
        OSError: there is no such checkpoint or pipeline.
        ValueError: it is of another kind or width, or the window gives more tokens than fit.
    """
    from align.models.configuration import AudioPromptConfig
    from align.models.encoder import AudioPromptEncoder
    from align.prompts.space import PromptSpace

    config = _load_config(source)
    space = PromptSpace.from_pretrained(base_model)
    shape = space.shape
    _check_shapes(source, config, window_s, shape)
    encoder = AudioPromptEncoder(
        AudioPromptConfig(
            config.to_dict(), {"adapter_type": "direct"}, {base_model: asdict(shape)}, max_windows=1
        )
    )
    encoder.backbone.load(source, config)
    encoder.feature_extractor = _load_feature_extractor(source)
    encoder.feature_extractor.window_s = window_s
    _set_identity_statistics(encoder.head(), space)
    return encoder.eval()


def _load_config(source: str) -> Any:
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(source)
    if config.model_type != "wav2vec2-bert" or not config.add_adapter:
        raise ValueError(
            f"{source} is no Wav2Vec2-BERT with adapter layers but {config.model_type}: "
            "give one that audio2img trained, or use it as --backbone of align.train"
        )
    # Of use in training alone; as `align.models.backbones` sets them for every Wav2Vec2-BERT.
    config.apply_spec_augment, config.layerdrop = False, 0.0
    return config


def _check_shapes(source: str, config: Any, window_s: float, shape: SpaceShape) -> None:
    if shape.pooled_width:
        raise ValueError(
            f"{shape.base_model} takes pooled embeds, which a Wav2Vec2-BERT does not give"
        )
    if config.output_hidden_size != shape.width:
        raise ValueError(
            f"{source} gives tokens {config.output_hidden_size} wide and the prompts of "
            f"{shape.base_model} are {shape.width} wide: give the base that it was trained for"
        )
    if not window_s < math.inf:
        raise ValueError(f"--window_s is a number of seconds, not {window_s}")
    frames = 1 + (round(16_000 * window_s) - 400) // 160  # of 25 ms, every 10 ms
    tokens = -(-frames // 2)
    for _ in range(config.num_adapter_layers):
        padded = tokens + 2 * (config.adapter_stride // 2)
        tokens = (padded - config.adapter_kernel_size) // config.adapter_stride + 1
    if not 0 < tokens <= shape.length:
        raise ValueError(
            f"{window_s:g} s of sound are {tokens} tokens of {source}, and a prompt has room for 1 "
            f"to {shape.length}: give another --window_s"
        )


def _load_feature_extractor(source: str) -> Any:
    from transformers import AutoFeatureExtractor, SeamlessM4TFeatureExtractor

    try:
        return AutoFeatureExtractor.from_pretrained(source)
    except (OSError, ValueError):
        print(f"{source} has no feature extractor: facebook/w2v-bert-2.0's settings are used")
        return SeamlessM4TFeatureExtractor()


def _set_identity_statistics(head: Head, space: PromptSpace) -> None:
    """Statistics that change nothing: nothing was standardised in its training."""
    import torch

    from align.prompts.embeds import EmbedStatistics

    unconditional = space.unconditional
    zero = torch.zeros_like(unconditional.embeds[0])
    no_constant = torch.zeros_like(zero, dtype=torch.bool)
    head.set_statistics({"embeds": EmbedStatistics(zero, zero + 1, no_constant)}, unconditional)
    with torch.no_grad():
        head.adapter.get_parameter("padding").copy_(unconditional.embeds[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Imports a checkpoint and says where the encoder is."""
    parser = argparse.ArgumentParser(
        prog="python -m align.convert", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("source", help="folder or hub id of a Wav2Vec2-BERT with adapter layers")
    parser.add_argument("--base_model", required=True, help="the pipeline it was trained for")
    parser.add_argument("--out", required=True, help="folder for the encoder")
    parser.add_argument(
        "--window_s", type=float, default=AUDIO2IMG_WINDOW_S, help="seconds heard of a recording"
    )
    options = parser.parse_args(arguments)
    try:
        check_output_dir(Path(options.output_dir))
        encoder = convert_w2v_bert(options.source, options.base_model, options.window_s)
    except (OSError, ValueError) as error:
        raise SystemExit(f"align.convert: {error}") from error
    encoder.save_pretrained(options.output_dir)
    print(
        f"The encoder is in {options.output_dir}: it hears {options.window_s:g} s of a recording."
    )


if __name__ == "__main__":
    main()
