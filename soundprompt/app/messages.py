"""What the page says: sentences, and the little HTML around them."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from soundprompt.app.models import MINIATURE

if TYPE_CHECKING:
    from diffuse.pipelines.composition import Relation


BEGIN = "Choose a sound, then draw."
MINIATURE_NOTICE = (
    "**This is the miniature**: small models that come with the project. It knows ten everyday "
    "sounds (dog, rain, sea waves, crying baby, clock, sneezing, helicopter, chainsaw, rooster, "
    "fire) and draws them at 64 × 64. For real models, see *Models* below."
)

REAL_MODELS = """\
Real pictures come from Stable Diffusion with an encoder trained for it. Where the Hugging Face
hub is in reach, train one (a GPU helps) and start the page on it:

```
python -m align.train --base stable-diffusion-v1-5/stable-diffusion-v1-5 \\
    --backbone laion/larger_clap_general --data FOLDER --judge none --output_dir models/sd15
python -m soundprompt.app --base stable-diffusion-v1-5/stable-diffusion-v1-5 --encoder models/sd15
```

Whatever lies in the models folder can be chosen above. What is loaded is kept: the first picture
takes longest."""


def status(text: str, done: int = 0, of: int = 0, alert: bool = False) -> str:
    """A line of news, with a bar where `of` is known; an alert is read out at once.

    Args:
        text: plain text, escaped here.
        done: steps done.
        of: steps in all; 0 for no bar.
        alert: whether it tells of an error.
    """
    bar = ""
    if of:
        bar = f'<progress value="{done}" max="{of}" aria-label="{escape(text)}"></progress>'
    role = 'role="alert" class="news wrong"' if alert else 'role="status" class="news"'
    return f"<div {role}><span>{escape(text)}</span>{bar}</div>"


def notice(base: str) -> str:
    """What the page says above all: what it draws with."""
    if base == MINIATURE:
        return MINIATURE_NOTICE
    return f"Drawing with {escape(base)}. Others can be chosen under *Models*."


def step(done: int, of: int, pictures: int) -> str:
    """The status while drawing."""
    what = "a picture" if pictures == 1 else f"{pictures} pictures"
    return status(f"Drawing {what}: step {done} of {of}", done, of)


def learning(share: float) -> str:
    """The status while the miniature's encoder is trained."""
    percent = int(100 * share)
    return status(
        f"The miniature is learning to hear, once, for about two minutes: {percent}%",
        percent,
        100,
    )


def drawn(pictures: int, seconds: float, relation: Relation | None, lost: str) -> str:
    """The status after a drawing, with how text and sound relate."""
    parts = ["One picture" if pictures == 1 else f"{pictures} pictures", f"in {seconds:.1f} s."]
    if relation is not None:
        parts.append(f"Text and sound are {relation.name}: {relation.words}")
    return status(" ".join([*parts, lost]).strip())


def heard(duration_s: float, lost: str) -> str:
    """The status after a sound was looked at."""
    return status(f"Heard: {duration_s:.1f} s. {lost}".strip())
