"""Model cards: what an encoder is, what it was made from, what it reached, filled from its run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from align.hub.provenance import PACKAGE_LICENSE, UNSTATED, Provenance, provenance_of
from align.registry import BASE_MODELS

MODEL_CARD_NAME, RUN_RECORD_NAME, METRICS_NAME, SAMPLE_SHEET_NAME = (
    "README.md",
    "run.json",
    "metrics.json",
    "samples.png",
)


def write_card(folder: Path, name: str | None = None) -> None:
    """Writes the card of a saved encoder into its folder, from what lies there.

    Args:
        folder: with config.json, and run.json and metrics.json where a run left them.
        name: the encoder's, such as its id on the hub; the folder's own by default.
    """
    text = render_card(folder, name or folder.resolve().name, name or str(folder))
    (folder / MODEL_CARD_NAME).write_text(text, "utf-8")


def render_card(folder: Path, name: str, where: str) -> str:
    """The card's text; `write_card` says from what.

    Args:
        folder: see there.
        name: the encoder's.
        where: what it is loaded by.

    Raises:
        OSError: there is no config.json.
    """
    config = json.loads((folder / "config.json").read_text())
    run, metrics = _read(folder / RUN_RECORD_NAME), _read(folder / METRICS_NAME)
    options = run.get("options", {})
    provenance = _collect_provenance(config, options)
    parts = [
        _metadata_block(name, provenance, metrics),
        f"# {name}",
        _description(config),
        _sample_sheet(folder),
        _usage(config, where),
        _provenance_table(provenance, run.get("licenses", {})),
        _settings(config, run.get("recipe", {})),
        _metrics_table(metrics),
        "## Limits\n\nIt knows the kinds of sounds that it was trained on. What a pipeline draws "
        "from its embeds is what the base draws: its terms, and what it does badly, apply.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _collect_provenance(
    config: dict[str, Any], options: dict[str, Any], visited: frozenset[Path] = frozenset()
) -> dict[str, Provenance]:
    """Every part by its part in the run; a backbone or data that no run tells of is left out.

    Args:
        config: the encoder's.
        options: its run's.
        seen: folders of encoders whose own parts are told already.
    """
    base_models = dict.fromkeys(space["base_model"] for space in config["spaces"].values())
    found = {
        f"base {i + 1}" if i else "base_model": provenance_of("base_model", b)
        for i, b in enumerate(base_models)
    }
    if options:
        init_from = options["model"].get("init_from")
        if init_from is None:
            found["backbone"] = provenance_of("backbone", options["model"]["backbone"])
        else:
            found["encoder it started from"] = provenance_of("backbone", init_from)
            folder = Path(init_from).expanduser().resolve()
            source_options = (
                {} if folder in visited else _read(folder / RUN_RECORD_NAME).get("options", {})
            )
            earlier = _collect_provenance({"spaces": {}}, source_options, visited | {folder})
            found |= {f"{part}, before that": one for part, one in earlier.items()}
        found["dataset"] = provenance_of("dataset", options["data"]["dataset"])
        if options["data"].get("extra_dataset"):
            found["more data"] = provenance_of("dataset", options["data"]["extra_dataset"])
        if options["data"].get("captioner"):
            found["captioner"] = provenance_of("captioner", options["data"]["captioner"])
    return found


def _metadata_block(name: str, provenance: dict[str, Provenance], metrics: dict[str, Any]) -> str:
    """The metadata that the hub reads."""
    from huggingface_hub import EvalResult, ModelCardData

    inherited = {part.license for part in provenance.values()}
    free = inherited == {PACKAGE_LICENSE}
    data = [part.repo_id for key, part in provenance.items() if part.repo_id and "data" in key]
    results = [
        EvalResult(
            task_type="audio-to-prompt-embeds", dataset_type="other",
            dataset_name=strip_local_path(metrics["evaluated_on"]), metric_type=key, metric_value=metrics[key],
        )
        for key in _metric_names(metrics)
    ]  # fmt: skip
    # What wrote the captions is no part of the encoder.
    models = [
        part.repo_id
        for key, part in provenance.items()
        if part.repo_id and "data" not in key and "captioner" not in key
    ]
    front = ModelCardData(
        model_name=name if results else None,
        eval_results=results or None,
        license=PACKAGE_LICENSE if free else "other",
        license_name=None if free else "inherited",
        license_link=None if free else f"{MODEL_CARD_NAME}#made-from",
        library_name="soundprompt",
        tags=["audio", "sound-to-image", "stable-diffusion", "prompt-embeds"],
        base_model=list(dict.fromkeys(models)) or None,
        datasets=list(dict.fromkeys(data)) or None,
    )
    return f"---\n{front.to_yaml().rstrip()}\n---"


def _description(config: dict[str, Any]) -> str:
    base_models = ", ".join(
        f"`{provenance_of('base_model', s['base_model']).name}`" for s in config["spaces"].values()
    )
    return (
        f"A recording in, prompt embeds out: this SoundPrompt encoder answers in the language that "
        f"a pipeline of {base_models} reads from its own text encoder, so that a sound takes the "
        "prompt's place. The pipeline needs no text encoder for it."
    )


def _sample_sheet(folder: Path) -> str:
    if not (folder / SAMPLE_SHEET_NAME).is_file():
        return ""
    return f"![Sounds, what was drawn from them, and from their captions]({SAMPLE_SHEET_NAME})"


def _usage(config: dict[str, Any], name: str) -> str:
    given = config["spaces"][config["default_space"]]["base_model"]
    base_model = provenance_of("base_model", given)
    built_in = base_model.repo_id is None and given in BASE_MODELS
    loaded = "STABLE_DIFFUSION" if built_in else f'"{base_model.repo_id or base_model.name}"'
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


def _provenance_table(provenance: dict[str, Provenance], licenses: dict[str, int]) -> str:
    lines = ["## Made from", "", "| part | name | licence |", "| --- | --- | --- |"]
    for key, part in provenance.items():
        shown = (
            f"[{part.name}](https://hf.co/{_hub_path(key, part.repo_id)})"
            if part.repo_id
            else part.name
        )
        per_clip = key == "dataset" and licenses and part.license == UNSTATED
        lines.append(f"| {key} | {shown} | {'see below' if per_clip else part.license} |")
    if licenses:
        counts = ", ".join(f"{name} {count}" for name, count in licenses.items())
        lines += ["", f"Licences of the recordings trained on, by how many state them: {counts}."]
    lines += ["", "Weights made from a model or data carry its terms with them."]
    if any(line.endswith(f" {UNSTATED} |") for line in lines):
        lines[-1] += " Where none are stated, find them out before you pass these weights on."
    return "\n".join(lines)


def _hub_path(key: str, repo_id: str) -> str:
    return f"datasets/{repo_id}" if "data" in key else repo_id


def _settings(config: dict[str, Any], recipe: dict[str, Any]) -> str:
    """What differs from the defaults, as a recipe would state it."""
    kind = {k: v for k, v in config["adapter"].items() if k != "adapter_type"}
    sizes = ", ".join(f"{k} {v}" for k, v in kind.items())
    lines = ["## Trained", "", f"Adapter: {config['adapter']['adapter_type']} ({sizes})."]
    if recipe:
        stated = {name: _strip_local_paths(value) for name, value in recipe.items()}
        text = yaml.safe_dump(stated, sort_keys=False, allow_unicode=True)
        lines += ["", "As a recipe for `python -m align.train`:", "", f"```yaml\n{text}```"]
    return "\n".join(lines)


def _strip_local_paths(value: Any) -> Any:
    if isinstance(value, list):
        return [_strip_local_paths(one) for one in value]
    return strip_local_path(value) if isinstance(value, str) else value


def _metric_names(metrics: dict[str, Any]) -> list[str]:
    return [key for key in metrics if f"{key}_interval" in metrics]


def _metrics_table(metrics: dict[str, Any]) -> str:
    if not metrics:
        return "## Figures\n\nIt was not measured."
    rows = [
        f"| {key} | {metrics[key]:.3f} | {low:.3f} to {high:.3f} | {metrics[f'{key}_n']} |"
        for key in _metric_names(metrics)
        for low, high in [metrics[f"{key}_interval"]]
    ]
    lines: Sequence[str] = [
        "## Figures",
        "",
        f"Measured on {strip_local_path(metrics['evaluated_on'])}.",
        "",
        "| figure | value | 95% interval | cases |",
        "| --- | --- | --- | --- |",
        *rows,
        "",
        "`centered_cosine_oracle` is what a listener who hears everything could reach without "
        "knowing the wording; the other figures are explained in SoundPrompt's docs/measures.md.",
    ]
    return "\n".join(lines)


def strip_local_path(text: str) -> str:
    """A text that may name a local path, with nothing left of the path but its last part."""
    start, comma, rest = text.partition(",")
    name, at, copy = start.partition("@")  # fsd50k@/home/somebody/fsd50k
    path = Path(copy or name).expanduser()
    last = path.name if path.is_absolute() and path.name else copy or name
    return (name + at if copy else "") + last + comma + rest
