"""The keywords that a pipeline's call takes a prompt by, and the reason where it takes none."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

# The parts of a prompt as most pipelines name them, and what else they are called. LEDITS++ and
# semantic guidance are told an edit, Stable Cascade puts its adjective last.
NAMES = {
    "prompt_embeds": ("prompt_embeds", "editing_prompt_embeds", "editing_prompt_embeddings"),
    "negative_prompt_embeds": ("negative_prompt_embeds",),
    "pooled_prompt_embeds": ("pooled_prompt_embeds", "prompt_embeds_pooled"),
    "negative_pooled_prompt_embeds": (
        "negative_pooled_prompt_embeds", "negative_prompt_embeds_pooled",
    ),
}  # fmt: skip


def keywords_of(pipeline: Any) -> dict[str, str]:
    """Which parts of a prompt a pipeline's call takes, by our names, and its own names for them.

    Raises:
        ValueError: it takes no prompt embeds, or not those of CLIP, or reads the text besides.
    """
    kind = type(pipeline)
    name = kind.__name__
    taken = signature(kind.__call__).parameters
    said = [k for k in taken if "embed" in k or ("prompt" in k and "per_prompt" not in k)]
    if not said and any(p.kind is Parameter.VAR_KEYWORD for p in taken.values()):
        return {ours: ours for ours in NAMES}  # a call that hands on whatever it is given
    found = {ours: k for ours, names in NAMES.items() for k in names if k in taken}
    if "prompt_embeds" not in found:
        listed = ", ".join(said) or "none at all"
        raise ValueError(f"{name} takes no prompt embeds that sound could give, but: {listed}")
    others = not_clip(_text_encoders(kind))
    if others:
        raise ValueError(
            f"{name} reads the embeds of {', '.join(others)}: what is aligned with CLIP gives none"
        )
    if hasattr(pipeline, "_encode_prior_prompt"):
        raise ValueError(f"the prior of this {name} reads the text itself, embeds are not enough")
    if found["prompt_embeds"] != "prompt_embeds":
        # Several edits are of one picture, and so would the negative be: its own is as good.
        return {"prompt_embeds": found["prompt_embeds"]}
    return found


def not_clip(kinds: Sequence[str]) -> list[str]:
    """The text encoders, of a pipeline's by class name, that alone write its prompt embeds.

    Where two CLIPs stand beside another language model, the embeds are theirs as well and the
    other one's share may stay empty, as in Stable Diffusion 3. A single CLIP gives the pooled
    embeds alone, as in Flux.
    """
    others = [kind for kind in kinds if "CLIP" not in kind]
    return others if len(kinds) - len(others) < 2 else []


def _text_encoders(kind: Any) -> list[str]:
    """The classes of a pipeline's text encoders, which need not be loaded."""
    annotated = signature(kind.__init__).parameters.items()
    found = [p.annotation for name, p in annotated if name.startswith("text_encoder")]
    named = [
        a.__name__ if isinstance(a, type) else str(a) for a in found if a is not Parameter.empty
    ]
    # "a.module.Name | None" is a Name.
    return [name.split(" | ")[0].split(".")[-1] for name in named]


def of_those(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments, of those given, that a function takes by name."""
    taken = signature(function).parameters
    return {name: value for name, value in given.items() if name in taken}


def needs_prompt(pipeline: Any) -> bool:
    """Whether a pipeline's call wants `prompt=None` said beside embeds."""
    prompt = signature(type(pipeline).__call__).parameters.get("prompt")
    return prompt is not None and prompt.default is Parameter.empty
