"""Model cards: what an encoder is, what it was made from, what it reached, filled from its run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from align.hub.provenance import OURS, UNSTATED, Origin, origin
from align.registry import BASES

CARD, TOLD, FIGURES, SHEET = "README.md", "run.json", "metrics.json", "samples.png"


def write_card(folder: Path, name: str | None = None) -> None:
    """Writes the card of a saved encoder into its folder, from what lies there.

    Args:
        folder: with config.json, and run.json and metrics.json where a run left them.
        name: the encoder's, such as its id on the hub; the folder's own by default.
    """
    text = card(folder, name or folder.resolve().name, name or str(folder))
    (folder / CARD).write_text(text, "utf-8")


def card(folder: Path, name: str, where: str) -> str:
    """The card's text; `write_card` says from what.

    Args:
        folder: see there.
        name: the encoder's.
        where: what it is loaded by.

    Raises:
        OSError: there is no config.json.
    """
    config = json.loads((folder / "config.json").read_text())
    run, figures = _read(folder / TOLD), _read(folder / FIGURES)
    options = run.get("options", {})
    origins = _origins(config, options)
    parts = [
        _front(name, origins, figures),
        f"# {name}",
        _what(config),
        _sheet(folder),
        _use(config, where),
        _made_from(origins, run.get("licences", {})),
        _settings(config, run.get("recipe", {})),
        _reached(figures),
        "## Limits\n\nIt knows the kinds of sounds that it was trained on. What a pipeline draws "
        "from its embeds is what the base draws: its terms, and what it does badly, apply.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _origins(
    config: dict[str, Any], options: dict[str, Any], seen: frozenset[Path] = frozenset()
) -> dict[str, Origin]:
    """Every part by its part in the run; a backbone or data that no run tells of is left out.

    Args:
        config: the encoder's.
        options: its run's.
        seen: folders of encoders whose own parts are told already.
    """
    bases = dict.fromkeys(space["base"] for space in config["spaces"].values())
    found = {f"base {i + 1}" if i else "base": origin("base", b) for i, b in enumerate(bases)}
    if options:
        start = options["model"].get("start")
        if start is None:
            found["backbone"] = origin("backbone", options["model"]["backbone"])
        else:
            found["encoder it started from"] = origin("backbone", start)
            folder = Path(start).expanduser().resolve()
            before = {} if folder in seen else _read(folder / TOLD).get("options", {})
            earlier = _origins({"spaces": {}}, before, seen | {folder})
            found |= {f"{part}, before that": one for part, one in earlier.items()}
        found["data"] = origin("data", options["data"]["data"])
        if options["data"].get("extra_data"):
            found["more data"] = origin("data", options["data"]["extra_data"])
        if options["data"].get("captioner"):
            found["captioner"] = origin("captioner", options["data"]["captioner"])
    return found


def _front(name: str, origins: dict[str, Origin], figures: dict[str, Any]) -> str:
    """The metadata that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    inherited = {part.licence for part in origins.values()}
    free = inherited == {OURS}
    data = [part.hub for key, part in origins.items() if part.hub and "data" in key]
    results = [
        EvalResult(
            task_type="audio-to-prompt-embeds", dataset_type="other",
            dataset_name=public(figures["measured_on"]), metric_type=key, metric_value=figures[key],
        )
        for key in _names(figures)
    ]  # fmt: skip
    # What wrote the captions is no part of the encoder.
    models = [
        part.hub
        for key, part in origins.items()
        if part.hub and "data" not in key and "captioner" not in key
    ]
    front = ModelCardData(
        model_name=name if results else None,
        eval_results=results or None,
        license=OURS if free else "other",
        license_name=None if free else "inherited",
        license_link=None if free else f"{CARD}#made-from",
        library_name="soundprompt",
        tags=["audio", "sound-to-image", "stable-diffusion", "prompt-embeds"],
        base_model=list(dict.fromkeys(models)) or None,
        datasets=list(dict.fromkeys(data)) or None,
    )
    return f"---\n{front.to_yaml().rstrip()}\n---"


def _what(config: dict[str, Any]) -> str:
    bases = ", ".join(f"`{origin('base', s['base']).name}`" for s in config["spaces"].values())
    return (
        f"A recording in, prompt embeds out: this SoundPrompt encoder answers in the language that "
        f"a pipeline of {bases} reads from its own text encoder, so that a sound takes the "
        "prompt's place. The pipeline needs no text encoder for it."
    )


def _sheet(folder: Path) -> str:
    if not (folder / SHEET).is_file():
        return ""
    return f"![Sounds, what was drawn from them, and from their captions]({SHEET})"


def _use(config: dict[str, Any], name: str) -> str:
    given = config["spaces"][config["default_space"]]["base"]
    base = origin("base", given)
    built_in = base.hub is None and given in BASES
    loaded = "STABLE_DIFFUSION" if built_in else f'"{base.hub or base.name}"'
    extra = "from soundprompt.mini.models import STABLE_DIFFUSION\n" if built_in else ""
    return f"""## Use

```python
from diffusers import DiffusionPipeline

from align import AudioPromptEncoder
{extra}
encoder = AudioPromptEncoder.from_pretrained("{name}")
pipeline = DiffusionPipeline.from_pretrained({loaded})
image = pipeline(**encoder.prompt("dog.wav")).images[0]
```

After `import align`, transformers' `AutoModel.from_pretrained("{name}")` loads it too."""


def _made_from(origins: dict[str, Origin], licences: dict[str, int]) -> str:
    lines = ["## Made from", "", "| part | name | licence |", "| --- | --- | --- |"]
    for key, part in origins.items():
        shown = f"[{part.name}](https://hf.co/{_page(key, part.hub)})" if part.hub else part.name
        by_recording = key == "data" and licences and part.licence == UNSTATED
        lines.append(f"| {key} | {shown} | {'see below' if by_recording else part.licence} |")
    if licences:
        told = ", ".join(f"{name} {count}" for name, count in licences.items())
        lines += ["", f"Licences of the recordings trained on, by how many state them: {told}."]
    lines += ["", "Weights made from a model or data carry its terms with them."]
    if any(line.endswith(f" {UNSTATED} |") for line in lines):
        lines[-1] += " Where none are stated, find them out before you pass these weights on."
    return "\n".join(lines)


def _page(key: str, hub: str) -> str:
    return f"datasets/{hub}" if "data" in key else hub


def _settings(config: dict[str, Any], recipe: dict[str, Any]) -> str:
    """What differs from the defaults, as a recipe would state it."""
    kind = {k: v for k, v in config["adapter"].items() if k != "kind"}
    sizes = ", ".join(f"{k} {v}" for k, v in kind.items())
    lines = ["## Trained", "", f"Adapter: {config['adapter']['kind']} ({sizes})."]
    if recipe:
        stated = {name: _public(value) for name, value in recipe.items()}
        text = yaml.safe_dump(stated, sort_keys=False, allow_unicode=True)
        lines += ["", "As a recipe for `python -m align.train`:", "", f"```yaml\n{text}```"]
    return "\n".join(lines)


def _public(value: Any) -> Any:
    if isinstance(value, list):
        return [_public(one) for one in value]
    return public(value) if isinstance(value, str) else value


def _names(figures: dict[str, Any]) -> list[str]:
    return [key for key in figures if f"{key}_interval" in figures]


def _reached(figures: dict[str, Any]) -> str:
    if not figures:
        return "## Figures\n\nIt was not measured."
    rows = [
        f"| {key} | {figures[key]:.3f} | {low:.3f} to {high:.3f} | {figures[f'{key}_n']} |"
        for key in _names(figures)
        for low, high in [figures[f"{key}_interval"]]
    ]
    lines: Sequence[str] = [
        "## Figures",
        "",
        f"Measured on {public(figures['measured_on'])}.",
        "",
        "| figure | value | 95% interval | cases |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        "`centred_cosine_oracle` is what a listener who hears everything could reach without "
        "knowing the wording; the other figures are explained in SoundPrompt's docs/measures.md.",
    ]
    return "\n".join(lines)


def public(text: str) -> str:
    """A text that may name a local path, with nothing left of the path but its last part."""
    start, comma, rest = text.partition(",")
    name, at, copy = start.partition("@")  # fsd50k@/home/somebody/fsd50k
    path = Path(copy or name).expanduser()
    last = path.name if path.is_absolute() and path.name else copy or name
    return (name + at if copy else "") + last + comma + rest
