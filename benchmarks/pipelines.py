"""One encoder in the miniature's pipelines, judged: `python -m benchmarks.pipelines --run RUN`.

Draws every test recording by text-to-image, image-to-image, inpainting, ControlNet (and with
image-to-image) and AnimateDiff's class, beside its true caption by the same pipeline and seed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import binary_dilation

from align.evaluation.statistics import Measured
from align.prompts.embeds import Prompts
from soundprompt.mini.outlines import outline
from soundprompt.mini.pictures import SIZE, draw
from soundprompt.mini.world import CLASSES, View, random_view

BATCH = 20
FRAMES = 4
HOLE = (2, 10, 62, 63)  # left, top, right, bottom: where things stand, under the sky
STYLES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "AnimateDiffPipeline",
)


@dataclass(frozen=True)
class Case:
    """What is given beside one prompt.

    Attributes:
        label: what the recording is of.
        other: a drawing of something else, to be redrawn.
        lines: outlines of another drawing of the label's own kind.
    """

    label: str
    other: Image.Image
    lines: Image.Image


def cases_of(labels: Sequence[str]) -> list[Case]:
    """For every label, the drawings that its picture starts from."""
    found = []
    for i, label in enumerate(labels):
        rng = np.random.default_rng([20_260, i])
        others = [name for name in CLASSES if name != label]
        other = random_view(rng, near=others[rng.integers(len(others))], far_share=0.0)
        own = View(label, None, other.scene, random_view(rng, near=label).colour)
        found.append(Case(label, draw(other, rng), outline(draw(own, rng))))
    return found


def hole() -> Image.Image:
    """The mask of inpainting, white where the picture is drawn anew."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    left, top, right, bottom = HOLE
    mask[top:bottom, left:right] = 255
    return Image.fromarray(mask)


def arguments(style: str, cases: Sequence[Case]) -> dict[str, Any]:
    """What a pipeline takes beside the prompts."""
    given: dict[str, Any] = {}
    if "ControlNet" in style:
        name = "control_image" if "Img2Img" in style else "image"
        given[name] = [case.lines for case in cases]
    if "Img2Img" in style or "Inpaint" in style:
        given |= {"image": [case.other for case in cases]}
    if "Img2Img" in style:
        given |= {"strength": 0.85}
    if "Inpaint" in style:
        given |= {"mask_image": [hole()] * len(cases), "strength": 1.0}
    if "Animate" in style:
        given |= {"num_frames": FRAMES, "decode_chunk_size": BATCH * FRAMES}
    return given


def load(style: str, controlnet: str) -> Any:
    """A pipeline of the miniature without text encoders."""
    import diffusers

    from soundprompt.mini.models import STABLE_DIFFUSION

    further: dict[str, Any] = {}
    if "ControlNet" in style:
        further["controlnet"] = diffusers.ControlNetModel.from_pretrained(
            controlnet, dtype=torch.float32
        )
    pipeline = getattr(diffusers, style).from_pretrained(
        STABLE_DIFFUSION,
        text_encoder=None,
        tokenizer=None,
        dtype=torch.float32,
        **(further | ({"motion_adapter": still()} if "Animate" in style else {})),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def still() -> Any:
    """Untrained motion modules that close to nothing: every frame is a drawing of its own."""
    from diffusers import MotionAdapter

    torch.manual_seed(0)
    adapter = MotionAdapter(
        block_out_channels=(64, 128),
        motion_layers_per_block=1,
        motion_mid_block_layers_per_block=1,
        motion_num_attention_heads=4,
        motion_norm_num_groups=16,
        motion_max_seq_length=16,
    )
    with torch.no_grad():
        for name, weight in adapter.named_parameters():
            if "proj_out" in name:
                weight.mul_(0.05)
    return adapter


def drawn(
    pipeline: Any, prompts: Prompts, null: Prompts, cases: Sequence[Case], steps: int
) -> list[list[Image.Image]]:
    """The pictures (frames, for a video) of each prompt; seeds are the prompts' numbers."""
    found: list[list[Image.Image]] = []
    style = type(pipeline).__name__
    for start in range(0, len(cases), BATCH):
        part = slice(start, min(start + BATCH, len(cases)))
        answer = pipeline(
            **prompts.rows(part).arguments(null.rows(part)),
            **arguments(style, cases[part]),
            num_inference_steps=steps,
            guidance_scale=5.0,
            generator=[torch.Generator().manual_seed(i) for i in range(part.start, part.stop)],
        )
        frames = getattr(answer, "frames", None)
        found += frames if frames is not None else [[image] for image in answer.images]
    return found


def traced(picture: Image.Image, lines: Image.Image) -> float:
    """How well a picture keeps to outlines: F1 of its own within one pixel of them."""
    own, given = (np.asarray(i.convert("L")) > 127 for i in (outline(picture), lines))
    near_own, near_given = (binary_dilation(edges, np.ones((3, 3))) for edges in (own, given))
    precision = (own & near_given).sum() / max(1, own.sum())
    recall = (given & near_own).sum() / max(1, given.sum())
    return float(2 * precision * recall / max(1e-9, precision + recall))


def judged(pictures: Sequence[Sequence[Image.Image]], cases: Sequence[Case]) -> Measured:
    """Share of prompts all of whose frames show just what the label says."""
    from soundprompt.mini.image_classifier import judge

    right = []
    for frames, case in zip(pictures, cases, strict=True):
        right.append(all(judge().right(list(frames), [case.label] * len(frames))))
    return Measured.share(right)


def sheet(rows: Sequence[Sequence[Image.Image]], path: Path) -> None:
    """Rows of pictures as one image, twice their size."""
    side = SIZE + 2
    whole = Image.new("RGB", (side * max(map(len, rows)), side * len(rows)))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            whole.paste(image.convert("RGB"), (x * side, y * side))
    whole.resize((whole.width * 2, whole.height * 2), Image.Resampling.NEAREST).save(path)


def measure(style: str, options: argparse.Namespace, heard: Any) -> dict[str, Measured]:
    """Draws by one pipeline, from sound and from text; the pictures go to the folder."""
    cases, ways, null = heard
    pipeline = load(style, options.controlnet)
    figures, rows = {}, []
    if "ControlNet" in style or "Img2Img" in style or "Inpaint" in style:
        given = [case.lines if "ControlNet" in style else case.other for case in cases]
        rows.append(given[:20])
    for way, prompts in ways.items():
        pictures = drawn(pipeline, prompts, null, cases, options.steps)
        figures[way] = judged(pictures, cases)
        rows += [[frames[k] for frames in pictures[:20]] for k in range(len(pictures[0]))]
        fits = [traced(f[0], case.lines) for f, case in zip(pictures, cases, strict=True)]
        figures[f"{way}: outlines kept"] = Measured.mean(torch.tensor(fits))
    sheet(rows, options.out / f"{style}.png")
    return figures


def main(given: Sequence[str] | None = None) -> None:
    """Draws, judges, prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipelines", description=__doc__)
    parser.add_argument("--run", default="runs/align/mini", help="an encoder of the miniature")
    parser.add_argument("--pictures", type=int, default=100, help="prompts a pipeline")
    parser.add_argument("--steps", type=int, default=20, help="denoising steps a picture")
    parser.add_argument("--styles", nargs="+", choices=STYLES, default=list(STYLES))
    parser.add_argument("--controlnet", help="the miniature's own by default")
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks/pipelines"))
    options = parser.parse_args(given)
    from align.data.loading import load_rows
    from align.models.encoder import load_encoder
    from align.prompts.space import PromptSpace
    from soundprompt.mini.models import CONTROLNET

    options.controlnet = options.controlnet or CONTROLNET
    options.out.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(options.run)
    rows = list(load_rows("mini", "test").select(range(options.pictures)))
    sound = encoder.encode([row["recording"] for row in rows])
    text = PromptSpace.from_pretrained("mini").encode([row["caption"] for row in rows])
    cases = cases_of([row["label"] for row in rows])
    heard = cases, {"sound": sound, "text": text}, encoder.head().null(len(rows))
    table = {}
    print(f"{'':<42}{'sound':>24}{'caption':>24}{'outlines kept':>15}")
    for style in options.styles:
        found = measure(style, options, heard)
        table[style] = {k: [m.value, m.low, m.high, m.n] for k, m in found.items()}
        shares = [
            f"{m.value:.1%} [{m.low:.1%}, {m.high:.1%}]" for m in (found["sound"], found["text"])
        ]
        kept = found["sound: outlines kept"].value
        print(f"{style:<42}{shares[0]:>24}{shares[1]:>24}{kept:>15.2f}", flush=True)
    (options.out / "figures.json").write_text(json.dumps(table, indent=1) + "\n")
    print(f"Pictures are in {options.out}.")


if __name__ == "__main__":
    main()
