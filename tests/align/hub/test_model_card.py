"""Model cards: filled from the run, with inherited licenses and without local paths."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from align import train
from align.config.options import parse_options
from align.data.licenses import license_counts
from align.hub.model_card import render_card, strip_local_path
from align.hub.provenance import PACKAGE_LICENSE, UNSTATED, Provenance, provenance_of
from align.hub.run_record import TrainingRecord
from tests.align.hub.test_upload import trained
from tests.helpers.launches import command


def front(text: str) -> dict[str, object]:
    """Return the metadata of a card."""
    return dict(yaml.safe_load(text.split("---")[1]))


@pytest.fixture(scope="module")
def run(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with metrics of a held-out fold."""
    folder = tmp_path_factory.mktemp("card")
    return trained(tiny_base, tiny_clap, sound_folder, folder)


def test_card_has_metrics_recipe_and_usage(run: Path, sound_folder: Path, tmp_path: Path) -> None:
    text = (run / "README.md").read_text()
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("class_accuracy", "centered_cosine", "audio_to_caption_R@1"):
        low, high = metrics[f"{name}_interval"]
        assert f"| {name} | {metrics[name]:.3f} | {low:.3f} to {high:.3f} | 3 |" in text
    assert f"Evaluated on {sound_folder.name}, folds 3." in text
    recipe = yaml.safe_load(text.split("```yaml")[1].split("```")[0])
    assert recipe["adapter_width"] == 16 and recipe["folds"] == [1, 2]
    assert recipe["per_device_train_batch_size"] == 4
    assert recipe["num_train_epochs"] == 2.0 and "max_steps" not in recipe
    assert recipe["dataset"] == sound_folder.name and "temperature" not in recipe
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(recipe))
    again = parse_options("align.train", [str(tmp_path / "again.yaml")])
    assert again.training.learning_rate == 1e-3 and again.model.adapter_depth == 1
    assert f'from_pretrained("{run}")' in text
    results = front(text)["model-index"]
    assert isinstance(results, list)
    names = {one["type"] for result in results[0]["results"] for one in result["metrics"]}
    assert names == {key for key in metrics if f"{key}_interval" in metrics}


def test_card_has_no_local_paths(run: Path, sound_folder: Path) -> None:
    text = render_card(run, "somebody/hum", "somebody/hum")
    assert str(sound_folder.parent) not in text
    assert 'from_pretrained("somebody/hum")' in text
    assert strip_local_path("/home/x/sounds, folds 3") == "sounds, folds 3"
    assert strip_local_path("mini, its test split") == "mini, its test split"
    assert strip_local_path("owner/name") == "owner/name"
    assert strip_local_path("fsd50k@/home/x/copy, its test split") == "fsd50k@copy, its test split"
    assert strip_local_path("esc50@copy") == "esc50@copy"


def test_card_lists_unstated_licenses(run: Path, tiny_base: str) -> None:
    text = (run / "README.md").read_text()
    assert f"| base model | {Path(tiny_base).name} | {UNSTATED} |" in text
    assert "Check those that are not stated" in text
    assert front(text)["license"] == "other"


def write_run(folder: Path, **changes: dict[str, object]) -> Path:
    """Write the files that a card is made from, as of a run with the mini models."""
    options = {
        "model": {"base_model": "mini", "backbone": "mini-clap"},
        "data": {"dataset": "mini"},
    }
    options = {part: values | changes.get(part, {}) for part, values in options.items()}
    base = options["model"]["base_model"]
    config = {
        "spaces": {base: {"base_model": base}}, "default_space": base,
        "adapter": {"adapter_type": "resampler", "width": 8},
    }  # fmt: skip
    record = {"options": options, "licenses": changes.get("licenses", {})}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "run.json").write_text(json.dumps(record))
    return folder


def test_card_of_mini_loads_from_the_package(tmp_path: Path) -> None:
    text = render_card(write_run(tmp_path), "hum", "hum")
    assert front(text)["license"] == PACKAGE_LICENSE and "base_model" not in front(text)
    assert "from soundprompt.mini.models import STABLE_DIFFUSION" in text
    assert "from_pretrained(STABLE_DIFFUSION)" in text
    assert "It was not evaluated." in text and UNSTATED not in text


def test_card_lists_licenses_of_hub_models(tmp_path: Path) -> None:
    sd = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    model = {"base_model": sd, "backbone": "laion/larger_clap_general"}
    licenses = {"cc-by": 7, "cc0": 2}
    text = render_card(
        write_run(tmp_path, model=model, data={"dataset": "fsd50k"}, licenses=licenses), "a/b", "a"
    )
    known = front(text)
    assert known["base_model"] == list(model.values()) and known["datasets"] == ["nateraw/fsd50k"]
    assert (known["license"], known["license_name"]) == ("other", "inherited")
    assert f"| base model | [{sd}](https://hf.co/{sd}) | creativeml-openrail-m |" in text
    assert "| dataset | [fsd50k](https://hf.co/datasets/nateraw/fsd50k) | one for each clip" in text
    assert "cc-by 7, cc0 2" in text
    assert f'DiffusionPipeline.from_pretrained("{sd}")' in text


def test_local_card_takes_precedence(tmp_path: Path) -> None:
    assert provenance_of("base_model", str(tmp_path)).license == UNSTATED
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n# A base\n")
    assert provenance_of("base_model", str(tmp_path)).license == "mit"
    other = "---\nlicense: other\nlicense_name: my-terms\n---\n"
    (tmp_path / "README.md").write_text(other)
    assert provenance_of("base_model", str(tmp_path)).license == "my-terms"
    (tmp_path / "README.md").write_text("---\nlicense: [unclosed\n---\n")
    assert provenance_of("base_model", str(tmp_path)).license == UNSTATED
    assert provenance_of("dataset", f"audiocaps@{tmp_path}").repo_id is None
    assert provenance_of("backbone", "log-mel").license == PACKAGE_LICENSE


def test_deleted_folder_is_not_a_hub_id(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone" / "sounds")
    for kind in ("base_model", "backbone", "dataset"):
        assert provenance_of(kind, gone) == Provenance("sounds", None, UNSTATED)
        assert provenance_of(kind, "runs/align/first").repo_id is None
        assert provenance_of(kind, "somebody/hum").repo_id == "somebody/hum"
    # A README.md next to it does not apply to it.
    (tmp_path / "gone").mkdir()
    (tmp_path / "gone" / "README.md").write_text("---\nlicense: mit\n---\n# Others\n")
    assert provenance_of("dataset", gone).license == UNSTATED
    text = render_card(write_run(tmp_path, data={"dataset": gone}), "a/b", "a")
    assert f"| dataset | sounds | {UNSTATED} |" in text and "gone" not in text


def test_card_includes_the_initial_encoder(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    model = {"backbone": "laion/larger_clap_general"}
    write_run(first, model=model, data={"dataset": "fsd50k", "captioner": None})
    blip = {"captioner": "Salesforce/blip-image-captioning-base"}
    write_run(second, model={"init_from": str(first)}, data={"dataset": "mini"} | blip)
    text = render_card(second, "a/b", "a")
    assert "| initial encoder | first |" in text
    assert "larger_clap_general) | apache-2.0 |" in text
    link = "[fsd50k](https://hf.co/datasets/nateraw/fsd50k)"
    assert f"| dataset of the initial encoder | {link} | one for" in text
    assert "blip-image-captioning-base) | bsd-3-clause |" in text
    known = front(text)
    assert known["datasets"] == ["nateraw/fsd50k"] and known["license"] == "other"
    assert known["base_model"] == ["laion/larger_clap_general"]  # BLIP is not part of it


def test_card_of_cyclic_initial_encoders_ends(tmp_path: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for own, other in (folders, folders[::-1]):
        own.mkdir()
        write_run(own, model={"init_from": str(other)}, data={"dataset": "audiocaps"})
    text = render_card(folders[0], "a/b", "a")
    assert "| initial encoder | second |" in text
    assert front(text)["datasets"] == ["OpenSound/AudioCaps"]  # once


@pytest.mark.slow
def test_licenses_of_clips_are_counted(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    import shutil

    from align.data.loading import load_rows
    from align.data.streaming import load_stream
    from align.hub.run_record import load

    folder = tmp_path / "data"
    shutil.copytree(sound_folder, folder)
    lines = (folder / "metadata.csv").read_text().splitlines()
    licenses = ["licence", *["CC0"] * 5, *["CC BY 4.0"] * 7]
    both = [f"{line},{value}" for line, value in zip(lines, licenses, strict=True)]
    (folder / "metadata.csv").write_text("\n".join(both) + "\n")
    assert license_counts(load_rows(str(folder), "train"), None) == {"cc-by": 7, "cc0": 5}
    assert license_counts(load_stream(str(folder), "train")) == {"cc-by": 7, "cc0": 5}
    assert license_counts(load_rows(str(sound_folder), "train")) == {}
    train.main(command(tiny_base, tiny_clap, folder, tmp_path / "run", "--num_train_epochs", "1"))
    assert load(str(tmp_path / "run"))[1].licenses == {"cc-by": 7, "cc0": 5}
    text = (tmp_path / "run" / "README.md").read_text()
    assert "cc-by 7, cc0 5" in text and "| dataset | data | see below |" in text
    assert TrainingRecord({}, {"cc0": 1}).with_rows([], []).licenses == {"cc0": 1}
