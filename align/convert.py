"""Convert a Wav2Vec2-BERT checkpoint of audio2img to an encoder.

The checkpoint's own output becomes the prompt embeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.cli import CommandParser, argument_group, check_output_dir

if TYPE_CHECKING:
    from align.models.encoder import AudioPromptEncoder
    from align.models.heads import Head
    from align.prompts.embeds import SpaceShape
    from align.prompts.space import PromptSpace

COMMAND = "python -m align.convert"
EXAMPLES = (f"{COMMAND} youzarsif/wav2vec2bert_2_diffusion --base_model BASE --output_dir FOLDER",)
AUDIO2IMG_WINDOW_S = 3.75  # window of audio2img in seconds: 47 tokens


def convert_w2v_bert(
    source: str, base_model: str, window_s: float = AUDIO2IMG_WINDOW_S
) -> AudioPromptEncoder:
    """Convert a Wav2Vec2-BERT to an encoder whose prompt embeds are the model's own output.

    audio2img's checkpoint, `youzarsif/wav2vec2bert_2_diffusion`, is such a model: its adapter
    layers project to the width of the text encoder, and their output replaces the prompt embeds.
    Token i of the model is position i of the prompt. The remaining positions are the unconditional
    embeds of the base model; audio2img ended the prompt after the last token instead. As in
    audio2img, only the first window of a clip is encoded.

    Args:
        source: Folder or Hub id of a `Wav2Vec2BertModel` with adapter layers. If it has no
            feature extractor, the settings of facebook/w2v-bert-2.0 are used.
        base_model: Pipeline the checkpoint was trained for: short name, folder or Hub id.
        window_s: Length of the audio window in seconds.

    Returns:
        The encoder, in evaluation mode.

    Raises:
        OSError: If the checkpoint or the pipeline does not exist.
        ValueError: If the checkpoint has another architecture or width, or the window gives more
            tokens than a prompt has positions.
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
            f"{source} is not a Wav2Vec2-BERT with adapter layers but {config.model_type}: "
            "give one that audio2img trained, or use it as --backbone of align.train"
        )
    # Both matter in training only; `align.models.backbones` sets them in the same way.
    config.apply_spec_augment, config.layerdrop = False, 0.0
    return config


def _check_shapes(source: str, config: Any, window_s: float, shape: SpaceShape) -> None:
    if shape.pooled_width:
        raise ValueError(
            f"{shape.base_model} needs pooled embeds, which a Wav2Vec2-BERT does not have"
        )
    if config.output_hidden_size != shape.width:
        raise ValueError(
            f"{source} has tokens of width {config.output_hidden_size} and the prompts of "
            f"{shape.base_model} have width {shape.width}: give the base model it was trained for"
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
            f"{window_s:g} s of audio are {tokens} tokens of {source}, and a prompt has 1 to "
            f"{shape.length}: give another --window_s"
        )


def _load_feature_extractor(source: str) -> Any:
    from transformers import AutoFeatureExtractor, SeamlessM4TFeatureExtractor

    try:
        return AutoFeatureExtractor.from_pretrained(source)
    except (OSError, ValueError):
        print(f"{source} has no feature extractor: facebook/w2v-bert-2.0's settings are used")
        return SeamlessM4TFeatureExtractor()


def _set_identity_statistics(head: Head, space: PromptSpace) -> None:
    """Set statistics that change nothing: the checkpoint was trained without standardization."""
    import torch

    from align.prompts.embeds import EmbedStatistics

    unconditional = space.unconditional
    zero = torch.zeros_like(unconditional.embeds[0])
    no_constant = torch.zeros_like(zero, dtype=torch.bool)
    head.set_statistics({"embeds": EmbedStatistics(zero, zero + 1, no_constant)}, unconditional)
    with torch.no_grad():
        head.adapter.get_parameter("padding").copy_(unconditional.embeds[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert a checkpoint and print where the encoder is."""
    parser = CommandParser(COMMAND, EXAMPLES, description=__doc__)
    model, data = argument_group(parser, "model"), argument_group(parser, "data")
    output = argument_group(parser, "output")
    model.add_argument(
        "source", help="Wav2Vec2-BERT checkpoint with adapter layers: folder or Hub id."
    )
    model.add_argument(
        "--base_model", required=True,
        help="Pipeline the checkpoint was trained for: short name, folder or Hub id.",
    )  # fmt: skip
    data.add_argument(
        "--window_s", type=float, default=AUDIO2IMG_WINDOW_S,
        help="Length of the audio window in seconds.",
    )  # fmt: skip
    output.add_argument(
        "--output_dir", required=True, help="Output directory of the converted encoder."
    )
    options = parser.parse_args(arguments)
    try:
        check_output_dir(Path(options.output_dir))
        encoder = convert_w2v_bert(options.source, options.base_model, options.window_s)
    except (OSError, ValueError) as error:
        raise SystemExit(f"align.convert: {error}") from error
    encoder.save_pretrained(options.output_dir)
    print(
        f"The encoder is in {options.output_dir}: it encodes the first {options.window_s:g} s of "
        "a clip."
    )


if __name__ == "__main__":
    main()
