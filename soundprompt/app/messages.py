"""What the page says: sentences, and the little HTML around them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from soundprompt.app.models import MINI

if TYPE_CHECKING:
    from diffuse.pipelines.composition import Relation


IDLE = "Choose a sound, then draw."
MINI_NOTICE = (
    "**This is the miniature**: small models that come with the project. It knows ten everyday "
    "sounds (dog, rain, sea waves, crying baby, clock, sneezing, helicopter, chainsaw, rooster, "
    "fire) and draws them at 64 × 64. For real models, see *Models* below."
)

FULL_SIZE_MODELS = """\
Real pictures come from Stable Diffusion with an encoder trained for it. Where the Hugging Face
hub is in reach, train one (a GPU helps) and start the page on it:

```
python -m align.train --base_model stable-diffusion-v1-5/stable-diffusion-v1-5 \\
    --backbone laion/larger_clap_general --dataset FOLDER --image_classifier none --output_dir models/sd15
python -m soundprompt.app --base_model stable-diffusion-v1-5/stable-diffusion-v1-5 --encoder models/sd15
```

Whatever lies in the models folder can be chosen above. What is loaded is kept: the first picture
takes longest."""


def status(text: str, done: int = 0, total: int = 0, alert: bool = False) -> str:
    """A line of news, with a bar where `of` is known; an alert is read out at once.

    Args:
        text: plain text, escaped here.
        done: steps done.
        of: steps in all; 0 for no bar.
        alert: whether it tells of an error.
    """
    bar = ""
    if total:
        bar = f'<progress value="{done}" max="{total}" aria-label="{escape(text)}"></progress>'
    role = 'role="alert" class="news wrong"' if alert else 'role="status" class="news"'
    return f"<div {role}><span>{escape(text)}</span>{bar}</div>"


def notice(base_model: str) -> str:
    """What the page says above all: what it draws with."""
    if base_model == MINI:
        return MINI_NOTICE
    return f"Drawing with {escape(base_model)}. Others can be chosen under *Models*."


def generation_progress(done: int, total: int, num_images: int) -> str:
    """The status while drawing."""
    what = "a picture" if num_images == 1 else f"{num_images} pictures"
    return status(f"Drawing {what}: step {done} of {total}", done, total)


def training_progress(progress: float) -> str:
    """The status while the miniature's encoder is trained."""
    percent = int(100 * progress)
    return status(
        f"The miniature is learning to hear, once, for about two minutes: {percent}%",
        percent,
        100,
    )


def generation_summary(
    num_images: int, seconds: float, relation: Relation | None, decode_warnings: str
) -> str:
    """The status after a drawing, with how text and sound relate."""
    parts = ["One picture" if num_images == 1 else f"{num_images} pictures", f"in {seconds:.1f} s."]
    if relation is not None:
        parts.append(f"Text and sound are {relation.name}: {relation.description}")
    return status(" ".join([*parts, decode_warnings]).strip())


def audio_summary(duration_s: float, decode_warnings: str) -> str:
    """The status after a sound was looked at."""
    return status(f"Heard: {duration_s:.1f} s. {decode_warnings}".strip())
