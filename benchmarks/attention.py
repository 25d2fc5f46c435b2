"""Cost of audio attention at the size of Stable Diffusion 1.5: `python -m benchmarks.attention`.

Uses random weights. Counts parameters and floating point operations, and measures times: the
attention types and the stock cross-attention alternate, so that other load on the machine affects
all of them; the added time is the median of the paired differences with a bootstrap interval.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from align.cli import CommandParser

# SD1.5's cross-attentions at 64x64 latents: positions, width, number of blocks.
BLOCKS = ((4096, 320, 5), (1024, 640, 5), (256, 1280, 5), (64, 1280, 1))
HEADS, TEXT_TOKENS, TEXT_WIDTH = 8, 77, 768
ATTENTION_TYPES = ("shared", "ip-adapter", "sonic")


@dataclass(frozen=True)
class Cost:
    """Cost that an attention type adds to the stock UNet.

    Attributes:
        parameters: Number of parameters without the level projector.
        flops: Floating point operations of one step and row.
        seconds: Processor time of all blocks in each round.
    """

    parameters: int
    flops: int
    seconds: list[float]


def full_unet() -> Any:
    """Create SD1.5's UNet on the meta device, which allocates no weights."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=64, cross_attention_dim=TEXT_WIDTH, attention_head_dim=HEADS
        )


def added_parameters(unet: Any, attention_type: str) -> int:
    """Count the parameters that an attention type adds in all blocks.

    Args:
        unet: Stock UNet.
        attention_type: One of `ATTENTION_TYPES`.
    """
    from diffuse.models.configuration import ATTENTION_TYPES as LAYER_CLASSES
    from diffuse.models.unet import cross_attentions

    widths = [a.to_k.out_features for a in cross_attentions(unet).values()]
    if attention_type == "ip-adapter":
        return sum(2 * TEXT_WIDTH * width for width in widths)
    with torch.device("meta"):
        layers = [LAYER_CLASSES[attention_type](TEXT_WIDTH, width) for width in widths]
    return sum(p.numel() for layer in layers for p in layer.parameters())


def new_block(width: int, dtype: torch.dtype) -> Any:
    """Create a transformer block of the UNet.

    Args:
        width: Hidden size.
        dtype: Data type of the weights.
    """
    from diffusers.models.attention import BasicTransformerBlock

    torch.manual_seed(0)
    block = BasicTransformerBlock(width, HEADS, width // HEADS, cross_attention_dim=TEXT_WIDTH)
    return block.to(dtype).eval()


def with_attention_type(
    block: Any, attention_type: str, tokens: int
) -> tuple[Any, dict[str, Any], Any]:
    """Add an attention type to a block.

    Args:
        block: Transformer block, changed in place.
        attention_type: One of `ATTENTION_TYPES`.
        tokens: Number of audio tokens.

    Returns:
        The block, the additional arguments of its cross-attention, and a function that converts
        the text embeds to its input.
    """
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    from diffuse.models.attention_processor import (
        CROSS_ATTENTION_KWARG,
        AudioAttnProcessor,
        SonicAttnProcessor,
    )
    from diffuse.models.configuration import ATTENTION_TYPES as LAYER_CLASSES

    dtype, width = block.attn2.to_q.weight.dtype, block.attn2.to_q.in_features
    audio_tokens = torch.randn(1, tokens, TEXT_WIDTH, dtype=dtype)
    if attention_type == "ip-adapter":
        ours = IPAdapterAttnProcessor2_0(width, TEXT_WIDTH, num_tokens=(tokens,)).to(dtype)
        block.attn2.set_processor(ours)
        return block, {}, lambda text: (text, [audio_tokens[:, None].flatten(1, 2)])
    layer = LAYER_CLASSES[attention_type](TEXT_WIDTH, width).to(dtype)
    torch.nn.init.ones_(layer.gate)
    old = block.attn2.processor
    made = (
        AudioAttnProcessor("x", old)
        if attention_type == "shared"
        else SonicAttnProcessor("x", old, block.norm2)
    )
    block.attn2.set_processor(made)
    one = torch.ones(1, 1, 1, dtype=dtype)
    key_values = layer(audio_tokens, torch.ones(tokens, dtype=dtype), one)
    return block, {CROSS_ATTENTION_KWARG: {"x": [key_values]}}, lambda text: text


def calls(
    positions: int, width: int, tokens: int, dtype: torch.dtype
) -> dict[str, Callable[[], Any]]:
    """Create calls of one block's cross-attention and its norm by attention type.

    The self-attention and the feed-forward network are the same for all.

    Args:
        positions: Number of positions.
        width: Hidden size.
        tokens: Number of audio tokens.
        dtype: Data type.

    Returns:
        Calls by attention type, including "stock".
    """
    hidden = torch.randn(1, positions, width, dtype=dtype)
    text = torch.randn(1, TEXT_TOKENS, TEXT_WIDTH, dtype=dtype)
    found: dict[str, Callable[[], Any]] = {}
    for attention_type in ("stock", *ATTENTION_TYPES):
        made: Any = new_block(width, dtype), {}, lambda text: text
        if attention_type != "stock":
            made = with_attention_type(made[0], attention_type, tokens)

        def call(made: Any = made) -> Any:
            block, extra, change = made
            return block.attn2(block.norm2(hidden), encoder_hidden_states=change(text), **extra)

        found[attention_type] = call
    return found


def count_flops(call: Callable[[], Any]) -> int:
    """Count the floating point operations of a call; a multiply-add counts as two.

    Args:
        call: Function to measure.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The counter does not support the fused CPU kernel.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return int(counter.get_total_flops())


def timed(call: Callable[[], Any]) -> float:
    """Measure the processor time of a call in seconds, which excludes other processes.

    Args:
        call: Function to measure.
    """
    start = time.process_time()
    call()
    return time.process_time() - start


@torch.no_grad()
def measure_costs(tokens: int, rounds: int, dtype: torch.dtype) -> dict[str, Cost]:
    """Measure the costs of all attention types, and of the stock cross-attention ("stock").

    Args:
        tokens: Number of audio tokens.
        rounds: Number of measurements.
        dtype: Data type.
    """
    unet, names = full_unet(), ["stock", *ATTENTION_TYPES]
    flops = dict.fromkeys(names, 0)
    seconds = {attention_type: [0.0] * rounds for attention_type in names}
    for positions, width, blocks in BLOCKS:
        by_type = calls(positions, width, tokens, dtype)
        for attention_type in names:
            flops[attention_type] += blocks * count_flops(by_type[attention_type])
            by_type[attention_type]()  # warm-up
        for i in range(rounds):
            turn = i % len(names)  # rotate the order
            for attention_type in names[turn:] + names[:turn]:
                seconds[attention_type][i] += blocks * timed(by_type[attention_type])
    stock = seconds["stock"]
    costs = {"stock": Cost(0, flops["stock"], stock)}
    for attention_type in ATTENTION_TYPES:
        added = [own - plain for own, plain in zip(seconds[attention_type], stock, strict=True)]
        extra = flops[attention_type] - flops["stock"]
        costs[attention_type] = Cost(added_parameters(unet, attention_type), extra, added)
    return costs


@torch.no_grad()
def step_flops() -> int:
    """Count the floating point operations of one step and row of the stock UNet."""
    unet = full_unet()
    with torch.device("meta"):
        latents, text = torch.empty(1, 4, 64, 64), torch.empty(1, TEXT_TOKENS, TEXT_WIDTH)
        return count_flops(lambda: unet(latents, torch.empty(1), text))


@torch.no_grad()
def real_steps(tokens: int) -> dict[str, float]:
    """Measure the processor time of a real step in bfloat16, without and with audio attention.

    Args:
        tokens: Number of audio tokens.
    """
    from diffuse.models.attention_processor import (
        CROSS_ATTENTION_KWARG,
        AudioAttentionLayer,
        AudioAttnProcessor,
    )
    from diffuse.models.unet import cross_attentions

    unet = full_unet().to(torch.bfloat16).to_empty(device="cpu").eval()
    for parameter in unet.parameters():
        parameter.normal_(std=0.02)
    latents = torch.randn(1, 4, 64, 64, dtype=torch.bfloat16)
    text, time_step = torch.randn(1, TEXT_TOKENS, TEXT_WIDTH).bfloat16(), torch.tensor(500)
    audio, audio_tokens = {}, torch.randn(1, tokens, TEXT_WIDTH)
    found = {"stock": timed(lambda: unet(latents, time_step, text))}
    start = time.process_time()
    for name, attention in cross_attentions(unet).items():
        layer = AudioAttentionLayer(TEXT_WIDTH, attention.to_k.out_features)
        layer.init_from_attention(attention)
        torch.nn.init.ones_(layer.gate)
        key_values = layer(audio_tokens, torch.ones(tokens), torch.ones(1, 1, 1))
        audio[name] = [key_values.to(torch.device("cpu"), torch.bfloat16)]
        attention.set_processor(AudioAttnProcessor(name, attention.processor))
    found["keys and values, once per image"] = time.process_time() - start
    extra = {CROSS_ATTENTION_KWARG: audio}
    found["with audio"] = timed(
        lambda: unet(latents, time_step, text, cross_attention_kwargs=extra)
    )
    return found


def interval(values: Sequence[float], num_resamples: int = 2000) -> tuple[float, float, float]:
    """Compute the median and its 95% bootstrap interval.

    Args:
        values: Measurements.
        num_resamples: Number of bootstrap resamples.
    """
    rows = torch.tensor(values)
    index = torch.randint(
        len(rows), (num_resamples, len(rows)), generator=torch.Generator().manual_seed(0)
    )
    medians = rows[index].quantile(0.5, 1)
    low, high = medians.quantile(torch.tensor([0.025, 0.975])).tolist()
    return rows.quantile(0.5).item(), low, high


def report(costs: dict[str, Cost], whole_flops: int) -> str:
    """Format the costs as a Markdown table.

    Args:
        costs: Costs by attention type.
        whole_flops: Floating point operations of a step of the stock UNet.
    """
    lines = [
        "| attention | parameters | FLOPs per step | added time, all blocks | relative to sonic |",
        "|---|---|---|---|---|",
    ]
    sonic = costs["sonic"].seconds
    for attention_type in ATTENTION_TYPES:
        cost = costs[attention_type]
        time_s = "{:.3f} s ({:.3f} to {:.3f})".format(*interval(cost.seconds))
        ratios = [own / other for own, other in zip(cost.seconds, sonic, strict=True)]
        share = "{:.2f} ({:.2f} to {:.2f})".format(*interval(ratios))
        lines.append(
            f"| {attention_type} | {cost.parameters / 1e6:.2f} M | {cost.flops / whole_flops:+.3%} "
            f"| {time_s} | {share} |"
        )
    stock = interval(costs["stock"].seconds)[0]
    lines.append(f"\nStock cross-attention, all blocks: {stock:.3f} s.")
    lines.append(f"Stock UNet: {whole_flops / 1e9:.1f} GFLOPs per step and row.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the cost table."""
    parser = CommandParser("python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--tokens", type=int, default=10, help="Number of audio tokens.")
    parser.add_argument("--rounds", type=int, default=15, help="Number of measurements.")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="Data type."
    )
    parser.add_argument(
        "--step", action="store_true", help="Measure a step of the whole UNet as well."
    )
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    print(report(measure_costs(options.tokens, options.rounds, getattr(torch, options.dtype)),
                 step_flops()))  # fmt: skip
    if options.step:
        for name, seconds in real_steps(options.tokens).items():
            print(f"{name}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
