"""Texts of the app and their HTML."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from soundprompt.app.models import MINI

if TYPE_CHECKING:
    from diffuse.pipelines.composition import Relation


IDLE = "Select audio, then click Generate."
MINI_NOTICE = (
    "**The app uses the `mini` models**: toy models that ship with the package. They support ten "
    "classes of everyday sounds (dog, rain, sea waves, crying baby, clock, sneezing, helicopter, "
    "chainsaw, rooster, fire) and generate 64 × 64 images. For full-size models, see *Models* "
    "below."
)

FULL_SIZE_MODELS = """\
Full-size images need Stable Diffusion and an encoder trained for it. With access to the Hugging
Face Hub, train an encoder (a GPU is recommended) and start the app with it:

```
python -m align.train --base_model stable-diffusion-v1-5/stable-diffusion-v1-5 \\
    --backbone laion/larger_clap_general --dataset FOLDER --image_classifier none \\
    --output_dir models/sd15
python -m soundprompt.app --base_model stable-diffusion-v1-5/stable-diffusion-v1-5 \\
    --encoder models/sd15
```

The menus above list the models in the models folder. Loaded models stay in memory, so the first
image takes longest."""


def status(text: str, done: int = 0, total: int = 0, alert: bool = False) -> str:
    """Format the status line, with a progress bar if `total` is given.

    Args:
        text: Plain text; escaped here.
        done: Number of finished steps.
        total: Number of all steps; 0 for no progress bar.
        alert: Whether the text is an error, which screen readers announce immediately.
    """
    bar = ""
    if total:
        bar = f'<progress value="{done}" max="{total}" aria-label="{escape(text)}"></progress>'
    role = 'role="alert" class="news wrong"' if alert else 'role="status" class="news"'
    return f"<div {role}><span>{escape(text)}</span>{bar}</div>"


def notice(base_model: str) -> str:
    """Format the notice at the top of the page.

    Args:
        base_model: Name of the selected base model.
    """
    if base_model == MINI:
        return MINI_NOTICE
    return f"Base model: {escape(base_model)}. Select another one under *Models*."


def generation_progress(done: int, total: int, num_images: int) -> str:
    """Format the status line during generation.

    Args:
        done: Number of finished denoising steps.
        total: Number of all denoising steps.
        num_images: Number of images.
    """
    what = "an image" if num_images == 1 else f"{num_images} images"
    return status(f"Generating {what}: step {done} of {total}", done, total)


def training_progress(progress: float) -> str:
    """Format the status line while the `mini` encoder is trained.

    Args:
        progress: Finished fraction of the training.
    """
    percent = int(100 * progress)
    return status(f"Training the mini encoder (once, about two minutes): {percent}%", percent, 100)


def generation_summary(
    num_images: int, seconds: float, relation: Relation | None, decode_warnings: str
) -> str:
    """Format the status line after generation.

    Args:
        num_images: Number of images.
        seconds: Duration of the generation.
        relation: Relation of prompt and audio, if there is a prompt.
        decode_warnings: Warnings about the uploaded audio.
    """
    parts = ["1 image" if num_images == 1 else f"{num_images} images", f"in {seconds:.1f} s."]
    if relation is not None:
        parts.append(f"Relation of prompt and audio: {relation.name}. {relation.description}")
    return status(" ".join([*parts, decode_warnings]).strip())


def audio_summary(duration_s: float, decode_warnings: str) -> str:
    """Format the status line after an upload.

    Args:
        duration_s: Duration of the audio in seconds.
        decode_warnings: Warnings about the uploaded audio.
    """
    return status(f"Audio loaded: {duration_s:.1f} s. {decode_warnings}".strip())
