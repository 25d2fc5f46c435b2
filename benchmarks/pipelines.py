"""Evaluate one encoder in several pipelines: `python -m benchmarks.pipelines --encoder RUN`.

Generates images from the test clips with text-to-image, image-to-image, inpainting, ControlNet
(also with image-to-image) and AnimateDiff pipelines, and from their ground-truth captions with the
same pipelines and seeds.
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

from align.cli import CommandParser
from align.evaluation.statistics import Estimate
from align.prompts.embeds import PromptEmbeds
from soundprompt.mini.outlines import outline
from soundprompt.mini.pictures import SIZE, render
from soundprompt.mini.world import CLASSES, View, random_view

BATCH = 20
FRAMES = 4
MASK_BOX = (2, 10, 62, 63)  # left, top, right, bottom: the objects, below the sky
PIPELINES = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "AnimateDiffPipeline",
)


@dataclass(frozen=True)
class Case:
    """Inputs of the pipelines besides the prompt.

    Attributes:
        label: Class of the clip.
        init_image: Rendered image of another class, for image-to-image and inpainting.
        control_image: Outlines of a rendered image of the same class, for ControlNet.
    """

    label: str
    init_image: Image.Image
    control_image: Image.Image


def cases_of(labels: Sequence[str]) -> list[Case]:
    """Create the input images of each label.

    Args:
        labels: Classes of the clips.
    """
    found = []
    for i, label in enumerate(labels):
        rng = np.random.default_rng([20_260, i])
        others = [name for name in CLASSES if name != label]
        other = random_view(rng, near=others[rng.integers(len(others))], far_prob=0.0)
        own = View(label, None, other.scene, random_view(rng, near=label).color)
        found.append(Case(label, render(other, rng), outline(render(own, rng))))
    return found


def inpainting_mask() -> Image.Image:
    """Create the inpainting mask, white where the image is replaced."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    left, top, right, bottom = MASK_BOX
    mask[top:bottom, left:right] = 255
    return Image.fromarray(mask)


def pipeline_kwargs(pipeline_class: str, cases: Sequence[Case]) -> dict[str, Any]:
    """Create the arguments of a pipeline besides the prompts.

    Args:
        pipeline_class: Name of the pipeline class.
        cases: Input images.
    """
    given: dict[str, Any] = {}
    if "ControlNet" in pipeline_class:
        name = "control_image" if "Img2Img" in pipeline_class else "image"
        given[name] = [case.control_image for case in cases]
    if "Img2Img" in pipeline_class or "Inpaint" in pipeline_class:
        given |= {"image": [case.init_image for case in cases]}
    if "Img2Img" in pipeline_class:
        given |= {"strength": 0.85}
    if "Inpaint" in pipeline_class:
        given |= {"mask_image": [inpainting_mask()] * len(cases), "strength": 1.0}
    if "Animate" in pipeline_class:
        given |= {"num_frames": FRAMES, "decode_chunk_size": BATCH * FRAMES}
    return given


def load(pipeline_class: str, controlnet: str) -> Any:
    """Load a pipeline of the `mini` models without text encoders.

    Args:
        pipeline_class: Name of the pipeline class.
        controlnet: ControlNet to load.
    """
    import diffusers

    from soundprompt.mini.models import STABLE_DIFFUSION

    further: dict[str, Any] = {}
    if "ControlNet" in pipeline_class:
        further["controlnet"] = diffusers.ControlNetModel.from_pretrained(
            controlnet, dtype=torch.float32
        )
    if "Animate" in pipeline_class:
        further["motion_adapter"] = static_motion_adapter()
    pipeline = getattr(diffusers, pipeline_class).from_pretrained(
        STABLE_DIFFUSION, text_encoder=None, tokenizer=None, dtype=torch.float32, **further
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def static_motion_adapter() -> Any:
    """Create untrained motion modules with little effect, so that frames are independent."""
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


def generate(
    pipeline: Any,
    prompts: PromptEmbeds,
    unconditional: PromptEmbeds,
    cases: Sequence[Case],
    steps: int,
) -> list[list[Image.Image]]:
    """Generate images (for videos, frames) from prompt embeds; seeds are the row numbers.

    Args:
        pipeline: Pipeline.
        prompts: Prompt embeds.
        unconditional: Unconditional embeds.
        cases: Input images.
        steps: Number of denoising steps.

    Returns:
        The frames of each row; a single one for images.
    """
    found: list[list[Image.Image]] = []
    pipeline_class = type(pipeline).__name__
    for start in range(0, len(cases), BATCH):
        part = slice(start, min(start + BATCH, len(cases)))
        output = pipeline(
            **prompts.select(part).pipeline_kwargs(unconditional.select(part)),
            **pipeline_kwargs(pipeline_class, cases[part]),
            num_inference_steps=steps,
            guidance_scale=5.0,
            generator=[torch.Generator().manual_seed(i) for i in range(part.start, part.stop)],
        )
        frames = getattr(output, "frames", None)
        found += frames if frames is not None else [[image] for image in output.images]
    return found


def outline_f1(image: Image.Image, control_image: Image.Image) -> float:
    """Compute the F1 score of an image's outlines with a tolerance of one pixel.

    Args:
        image: Generated image.
        control_image: Expected outlines.
    """
    own, given = (np.asarray(i.convert("L")) > 127 for i in (outline(image), control_image))
    near_own, near_given = (binary_dilation(edges, np.ones((3, 3))) for edges in (own, given))
    precision = (own & near_given).sum() / max(1, own.sum())
    recall = (given & near_own).sum() / max(1, given.sum())
    return float(2 * precision * recall / max(1e-9, precision + recall))


def accuracy(images: Sequence[Sequence[Image.Image]], cases: Sequence[Case]) -> Estimate:
    """Compute the image accuracy; all frames of a row must be correct.

    Args:
        images: Frames of each row.
        cases: Input images with the labels.
    """
    from soundprompt.mini.image_classifier import load_image_classifier

    correct = []
    for frames, case in zip(images, cases, strict=True):
        labels = [case.label] * len(frames)
        correct.append(all(load_image_classifier().is_correct(list(frames), labels)))
    return Estimate.proportion(correct)


def save_grid(rows: Sequence[Sequence[Image.Image]], path: Path) -> None:
    """Save rows of images as one image, twice as large.

    Args:
        rows: Rows of images.
        path: Output file.
    """
    side = SIZE + 2
    whole = Image.new("RGB", (side * max(map(len, rows)), side * len(rows)))
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            whole.paste(image.convert("RGB"), (x * side, y * side))
    whole.resize((whole.width * 2, whole.height * 2), Image.Resampling.NEAREST).save(path)


def measure(pipeline_class: str, options: argparse.Namespace, inputs: Any) -> dict[str, Estimate]:
    """Generate images with one pipeline from audio and from captions, and save them.

    Args:
        pipeline_class: Name of the pipeline class.
        options: Command-line options.
        inputs: Cases, prompt embeds by source, and unconditional embeds.
    """
    cases, sources, unconditional = inputs
    pipeline = load(pipeline_class, options.controlnet)
    figures, rows = {}, []
    if "ControlNet" in pipeline_class or "Img2Img" in pipeline_class or "Inpaint" in pipeline_class:
        given = [
            case.control_image if "ControlNet" in pipeline_class else case.init_image
            for case in cases
        ]
        rows.append(given[:20])
    for source, prompts in sources.items():
        generated = generate(pipeline, prompts, unconditional, cases, options.num_inference_steps)
        figures[source] = accuracy(generated, cases)
        rows += [[frames[k] for frames in generated[:20]] for k in range(len(generated[0]))]
        fits = [
            outline_f1(f[0], case.control_image) for f, case in zip(generated, cases, strict=True)
        ]
        figures[f"{source}_outline_f1"] = Estimate.mean(torch.tensor(fits))
    save_grid(rows, options.output_dir / f"{pipeline_class}.png")
    return figures


def main(given: Sequence[str] | None = None) -> None:
    """Generate and evaluate the images and print the table."""
    parser = CommandParser("python -m benchmarks.pipelines", description=__doc__)
    parser.add_argument("--encoder", default="runs/align/mini", help="Trained mini encoder.")
    parser.add_argument(
        "--num_images", type=int, default=100, help="Number of images per pipeline."
    )
    parser.add_argument(
        "--num_inference_steps", type=int, default=20, help="Number of denoising steps per image."
    )
    parser.add_argument(
        "--pipelines", nargs="+", choices=PIPELINES, default=list(PIPELINES), help="Pipelines."
    )
    parser.add_argument("--controlnet", help="ControlNet. Defaults to that of the mini models.")
    parser.add_argument(
        "--output_dir", type=Path, default=Path("runs/benchmarks/pipelines"),
        help="Output directory.",
    )  # fmt: skip
    options = parser.parse_args(given)
    from align.data.loading import load_rows
    from align.models.encoder import load_encoder
    from align.prompts.space import PromptSpace
    from soundprompt.mini.models import CONTROLNET

    options.controlnet = options.controlnet or CONTROLNET
    options.output_dir.mkdir(parents=True, exist_ok=True)
    encoder = load_encoder(options.encoder)
    rows = list(load_rows("mini", "test").select(range(options.num_images)))
    audio = encoder.encode([row["audio"] for row in rows])
    text = PromptSpace.from_pretrained("mini").encode([row["caption"] for row in rows])
    cases = cases_of([row["label"] for row in rows])
    inputs = cases, {"audio": audio, "text": text}, encoder.head().unconditional(len(rows))
    table = {}
    print(f"{'':<42}{'audio':>24}{'caption':>24}{'outline F1':>15}")
    for name in options.pipelines:
        found = measure(name, options, inputs)
        table[name] = {k: [m.value, m.low, m.high, m.n] for k, m in found.items()}
        shares = [
            f"{m.value:.1%} [{m.low:.1%}, {m.high:.1%}]" for m in (found["audio"], found["text"])
        ]
        outline_score = found["audio_outline_f1"].value
        print(f"{name:<42}{shares[0]:>24}{shares[1]:>24}{outline_score:>15.2f}", flush=True)
    (options.output_dir / "figures.json").write_text(json.dumps(table, indent=1) + "\n")
    print(f"Images: {options.output_dir}")


if __name__ == "__main__":
    main()
