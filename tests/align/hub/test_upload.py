"""Upload to a local mock of the Hub, and download from it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import align
from align import AudioPromptEncoder, push, train
from tests.helpers.hub import Hub, connect, running
from tests.helpers.hub_http import TOKEN
from tests.helpers.launches import command

WHOLE = {
    "README.md", "config.json", "metrics.json", "model.safetensors", "preprocessor_config.json",
    ".gitattributes",
}  # fmt: skip


def trained(base: str, backbone: str, data: Path, folder: Path) -> Path:
    """Train for a few steps and evaluate on the third fold."""
    more = ("--folds", "1", "2", "--eval_folds", "3", "--save_strategy", "epoch")
    train.main(command(base, backbone, data, folder, *more))
    return folder


@pytest.fixture(scope="module")
def run(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run to upload."""
    return trained(tiny_base, tiny_clap, sound_folder, tmp_path_factory.mktemp("hum"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """The mock Hub, with a token."""
    with running() as hub:
        connect(monkeypatch, hub, tmp_path / "home", TOKEN)
        yield hub


def test_push_uploads_encoder_card_and_metrics(
    run: Path, hub: Hub, sound_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push.main([str(run), "somebody/hum", "--private"])
    assert f"{hub.url}/somebody/hum/commit/" in capsys.readouterr().out
    repo = hub.repos["models", "somebody/hum"]
    assert set(repo.files) == WHOLE and repo.private
    assert repo.files["model.safetensors"] == (run / "model.safetensors").read_bytes()
    assert list(hub.uploads.values()) == [repo.files["model.safetensors"]]  # by LFS
    # The card has the new name, and neither local paths nor captions.
    card = repo.files["README.md"].decode()
    metrics = json.loads(repo.files["metrics.json"])
    assert 'from_pretrained("somebody/hum")' in card
    assert f"| class_accuracy | {metrics['class_accuracy']:.3f} |" in card
    assert metrics["evaluated_on"] == f"{sound_folder.name}, folds 3"
    assert str(sound_folder.parent) not in card + json.dumps(metrics)
    # The downloaded encoder is the same.
    options = {"cache_dir": tmp_path / "cache"}
    theirs = AudioPromptEncoder.from_pretrained("somebody/hum", **options)
    ours = AudioPromptEncoder.from_pretrained(run)
    one, other = (e.encode_prompt(sound_folder / "0.wav") for e in (theirs, ours))
    assert set(one) == set(other) == {"prompt_embeds", "negative_prompt_embeds"}
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_push_again_updates_the_repository(run: Path, hub: Hub) -> None:
    encoder = AudioPromptEncoder.from_pretrained(run)
    encoder.push_to_hub("hum")
    repo = hub.repos["models", "somebody/hum"]
    assert set(repo.files) == WHOLE - {"metrics.json"} and not repo.private
    assert "It was not evaluated." in repo.files["README.md"].decode()
    encoder.push_to_hub("somebody/hum", run_dir=run)
    assert set(repo.files) == WHOLE


def test_save_pretrained_with_push_to_hub(run: Path, hub: Hub, tmp_path: Path) -> None:
    encoder = AudioPromptEncoder.from_pretrained(run)
    encoder.save_pretrained(tmp_path / "new", push_to_hub=True, repo_id="somebody/new")
    assert set(hub.repos["models", "somebody/new"].files) == WHOLE - {"metrics.json"}


def failure(words: list[str]) -> str:
    """Return the error message of an upload."""
    with pytest.raises(SystemExit) as caught:
        push.main(words)
    assert isinstance(caught.value.code, str)
    assert "\n" not in caught.value.code and caught.value.code.startswith("align.push: ")
    return caught.value.code


def test_push_errors_explain_what_to_do(
    run: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    assert "is not a repository id" in failure([str(run), "not a/name"])
    assert "there is no trained encoder" in failure([str(tmp_path), "somebody/hum"])
    connect(monkeypatch, hub, tmp_path / "home", "hf_wrong")
    assert "denies access to somebody/hum with your token (401)" in failure(
        [str(run), "somebody/hum"]
    )
    connect(monkeypatch, hub, tmp_path / "home", None)
    assert "no token to upload with" in failure([str(run), "somebody/hum"])
    connect(monkeypatch, Hub("http://127.0.0.1:9"), tmp_path / "home", TOKEN)
    assert "http://127.0.0.1:9 cannot be reached" in failure([str(run), "somebody/hum"])
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in failure([str(run), "somebody/hum"])
    assert not hub.repos


def test_push_missing_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        push.main([str(tmp_path / "absent"), "somebody/hum"])
    assert "there is no folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("first", ["import align", "import transformers.models.auto.modeling_auto"])
def test_auto_classes_load_the_encoder(run: Path, first: str) -> None:
    code = (
        f"{first}\nimport sys\nfrom align import AudioPromptEncoder\n"
        "from transformers import AutoConfig, AutoModel\n"
        "print(type(AutoConfig.from_pretrained(sys.argv[1])).__name__)\n"
        "print(type(AutoModel.from_pretrained(sys.argv[1])).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run)], capture_output=True, text=True, timeout=240,
        cwd=Path(align.__file__).parents[1], check=False,
    )  # fmt: skip
    assert not done.returncode, done.stderr
    assert done.stdout.split()[-2:] == ["AudioPromptConfig", "AudioPromptEncoder"]


def test_import_align_imports_nothing_heavy() -> None:
    code = "import align, sys; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=240,
        cwd=Path(align.__file__).parents[1], check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
