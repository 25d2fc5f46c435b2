"""What hearing costs at Stable Diffusion 1.5's full size: `python -m benchmarks.attention`.

Random weights. Parameters and floating point operations are counted, times measured: each form's
cross-attentions in turn with the stock ones, so that whatever else the machine does falls on all
alike; the added time is the median of the paired differences with a bootstrap interval.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

# Where SD1.5's cross-attention stands: positions at 64x64 latents, width, blocks of that size.
BLOCKS = ((4096, 320, 5), (1024, 640, 5), (256, 1280, 5), (64, 1280, 1))
HEADS, TEXT_TOKENS, TEXT_WIDTH = 8, 77, 768
ATTENTION_TYPES = ("shared", "ip-adapter", "sonic")


@dataclass(frozen=True)
class Cost:
    """What a form adds to the stock UNet.

    Attributes:
        parameters: without the projector.
        flops: of one row at one step.
        seconds: by round, over all blocks.
    """

    parameters: int
    flops: int
    seconds: list[float]


def full_unet() -> Any:
    """SD1.5's UNet with its own sizes and no weights that take memory."""
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        return UNet2DConditionModel(
            sample_size=64, cross_attention_dim=TEXT_WIDTH, attention_head_dim=HEADS
        )


def added_parameters(unet: Any, attention_type: str) -> int:
    """The weights that a form adds in all blocks."""
    from diffuse.models.configuration import ATTENTION_TYPES as ATTENTION_TYPES
    from diffuse.models.unet import cross_attentions

    widths = [a.to_k.out_features for a in cross_attentions(unet).values()]
    if attention_type == "ip-adapter":
        return sum(2 * TEXT_WIDTH * width for width in widths)
    with torch.device("meta"):
        layers = [ATTENTION_TYPES[attention_type](TEXT_WIDTH, width) for width in widths]
    return sum(p.numel() for layer in layers for p in layer.parameters())


def new_block(width: int, dtype: torch.dtype) -> Any:
    """One of the UNet's transformer blocks."""
    from diffusers.models.attention import BasicTransformerBlock

    torch.manual_seed(0)
    block = BasicTransformerBlock(width, HEADS, width // HEADS, cross_attention_dim=TEXT_WIDTH)
    return block.to(dtype).eval()


def with_attention_type(
    block: Any, attention_type: str, tokens: int
) -> tuple[Any, dict[str, Any], Any]:
    """Puts a form on a block: what its call takes beside text, and what becomes of the text."""
    from diffusers.models.attention_processor import IPAdapterAttnProcessor2_0

    from diffuse.models.attention_processor import (
        CROSS_ATTENTION_KWARG,
        AudioAttnProcessor,
        SonicAttnProcessor,
    )
    from diffuse.models.configuration import ATTENTION_TYPES as ATTENTION_TYPES

    dtype, width = block.attn2.to_q.weight.dtype, block.attn2.to_q.in_features
    audio_tokens = torch.randn(1, tokens, TEXT_WIDTH, dtype=dtype)
    if attention_type == "ip-adapter":
        ours = IPAdapterAttnProcessor2_0(width, TEXT_WIDTH, num_tokens=(tokens,)).to(dtype)
        block.attn2.set_processor(ours)
        return block, {}, lambda text: (text, [audio_tokens[:, None].flatten(1, 2)])
    layer = ATTENTION_TYPES[attention_type](TEXT_WIDTH, width).to(dtype)
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
    """A call of one block's cross-attention and its norm, by form, "stock" among them.

    The rest of the block, self-attention and feed-forward network, is the same for all.
    """
    hidden = torch.randn(1, positions, width, dtype=dtype)
    text = torch.randn(1, TEXT_TOKENS, TEXT_WIDTH, dtype=dtype)
    found: dict[str, Callable[[], Any]] = {}
    for form in ("stock", *ATTENTION_TYPES):
        made: Any = new_block(width, dtype), {}, lambda text: text
        if form != "stock":
            made = with_attention_type(made[0], form, tokens)

        def call(made: Any = made) -> Any:
            block, extra, change = made
            return block.attn2(block.norm2(hidden), encoder_hidden_states=change(text), **extra)

        found[form] = call
    return found


def count_flops(call: Callable[[], Any]) -> int:
    """Operations of a call, a multiplication and an addition counted as two."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    # The fused CPU kernel is not counted; the plain formula of the same attention is.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        call()
    return int(counter.get_total_flops())


def timed(call: Callable[[], Any]) -> float:
    """Seconds of processor time: other processes' share of the machine is not in it."""
    begun = time.process_time()
    call()
    return time.process_time() - begun


@torch.no_grad()
def measure_costs(tokens: int, rounds: int, dtype: torch.dtype) -> dict[str, Cost]:
    """Every form's cost, and that of the stock cross-attention (key "stock")."""
    unet, names = full_unet(), ["stock", *ATTENTION_TYPES]
    flops = dict.fromkeys(names, 0)
    seconds = {form: [0.0] * rounds for form in names}
    for positions, width, blocks in BLOCKS:
        by_form = calls(positions, width, tokens, dtype)
        for form in names:
            flops[form] += blocks * count_flops(by_form[form])
            by_form[form]()  # warm
        for i in range(rounds):
            turn = i % len(names)  # nobody is always the first
            for form in names[turn:] + names[:turn]:
                seconds[form][i] += blocks * timed(by_form[form])
    stock = seconds["stock"]
    costs = {"stock": Cost(0, flops["stock"], stock)}
    for form in ATTENTION_TYPES:
        added = [own - plain for own, plain in zip(seconds[form], stock, strict=True)]
        extra = flops[form] - flops["stock"]
        costs[form] = Cost(added_parameters(unet, form), extra, added)
    return costs


@torch.no_grad()
def step_flops() -> int:
    """Operations of one row's step of the whole stock UNet."""
    unet = full_unet()
    with torch.device("meta"):
        latents, text = torch.empty(1, 4, 64, 64), torch.empty(1, TEXT_TOKENS, TEXT_WIDTH)
        return count_flops(lambda: unet(latents, torch.empty(1), text))


@torch.no_grad()
def real_steps(tokens: int) -> dict[str, float]:
    """Seconds of processor time of a real step at full size in bfloat16, stock and hearing."""
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
    begun = time.process_time()
    for name, attention in cross_attentions(unet).items():
        layer = AudioAttentionLayer(TEXT_WIDTH, attention.to_k.out_features)
        layer.init_from_attention(attention)
        torch.nn.init.ones_(layer.gate)
        key_values = layer(audio_tokens, torch.ones(tokens), torch.ones(1, 1, 1))
        audio[name] = [key_values.to(torch.device("cpu"), torch.bfloat16)]
        attention.set_processor(AudioAttnProcessor(name, attention.processor))
    found["keys and values, once a picture"] = time.process_time() - begun
    extra = {CROSS_ATTENTION_KWARG: audio}
    found["hearing"] = timed(lambda: unet(latents, time_step, text, cross_attention_kwargs=extra))
    return found


def interval(values: Sequence[float], num_resamples: int = 2000) -> tuple[float, float, float]:
    """The median and a 95% bootstrap interval of it."""
    rows = torch.tensor(values)
    index = torch.randint(
        len(rows), (num_resamples, len(rows)), generator=torch.Generator().manual_seed(0)
    )
    medians = rows[index].quantile(0.5, 1)
    low, high = medians.quantile(torch.tensor([0.025, 0.975])).tolist()
    return rows.quantile(0.5).item(), low, high


def report(costs: dict[str, Cost], whole_flops: int) -> str:
    """The cost table."""
    lines = [
        "| form | parameters | FLOPs a step | added time, all blocks | of SonicDiffusion's |",
        "|---|---|---|---|---|",
    ]
    sonic = costs["sonic"].seconds
    for form in ATTENTION_TYPES:
        cost = costs[form]
        time_s = "{:.3f} s ({:.3f} to {:.3f})".format(*interval(cost.seconds))
        ratios = [own / other for own, other in zip(cost.seconds, sonic, strict=True)]
        share = "{:.2f} ({:.2f} to {:.2f})".format(*interval(ratios))
        lines.append(
            f"| {form} | {cost.parameters / 1e6:.2f} M | {cost.flops / whole_flops:+.3%} "
            f"| {time_s} | {share} |"
        )
    stock = interval(costs["stock"].seconds)[0]
    lines.append(f"\nStock cross-attention of all blocks: {stock:.3f} s.")
    lines.append(f"Stock UNet: {whole_flops / 1e9:.1f} GFLOPs a step and row.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the cost table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention", description=__doc__)
    parser.add_argument("--tokens", type=int, default=10, help="audio tokens")
    parser.add_argument("--rounds", type=int, default=15, help="times each form is measured")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--step", action="store_true", help="a real step of the whole UNet too")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    print(report(measure_costs(options.tokens, options.rounds, getattr(torch, options.dtype)),
                 step_flops()))  # fmt: skip
    if options.step:
        for name, seconds in real_steps(options.tokens).items():
            print(f"{name}: {seconds:.2f} s")


if __name__ == "__main__":
    main()
