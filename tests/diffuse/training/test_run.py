"""Training runs of audio adapters: stages, options, recipes and resuming."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from align.config.parser import recipe_folder
from align.models.encoder import AudioPromptEncoder
from diffuse.config.options import parse_options
from diffuse.config.stages import PARAMETER_GROUPS, STAGES, parse_stage, parse_stages
from diffuse.models.lora import lora_parameters
from diffuse.train import main
from diffuse.training.model import UNetWithAudio
from tests.helpers.adapter_runs import adapter_weights, command, fill, training_run

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fill(tmp_path_factory.mktemp("pairs"))


@pytest.fixture(scope="module")
def encoder(tiny_encoder: AudioPromptEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    tiny_encoder.save_pretrained(folder)
    return folder


@pytest.fixture
def line(tiny_base: str, encoder: Path, pairs: Path, tmp_path: Path) -> Any:
    """Return a function that builds command lines of short trainings into the test's folder."""

    def made(*more: str) -> list[str]:
        return command(tiny_base, encoder, pairs, tmp_path / "run", *more)

    return made


def history(folder: Path) -> list[dict[str, Any]]:
    """Return the log history of a stage from its newest checkpoint."""
    states = sorted(folder.glob("stage-*/checkpoint-*/trainer_state.json"), key=os.path.getmtime)
    found: list[dict[str, Any]] = json.loads(states[-1].read_text())["log_history"]
    assert found
    return found


def parts_of(run: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Return copies of all weights by parameter group, and those of the base model as "base"."""
    adapter, unet = run.adapter, run.attached.unet
    lora = lora_parameters(unet, "adapter")
    found = {
        name: {str(i): p.detach().clone() for i, p in enumerate(weights)}
        for name, weights in (adapter.parameter_groups | {"lora": list(lora.values())}).items()
    }
    base = {n: v.clone() for n, v in unet.state_dict().items() if n not in lora}
    return found | {"base": base}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> int:
    assert before.keys() == after.keys()
    return sum(not torch.equal(before[name], after[name]) for name in before)


QUICK = ("projector", "audio_attention_lora")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in STAGES],
)
def test_stage_changes_only_trainable_groups(line: Any, name: str) -> None:
    stages = (
        ["audio_attention_lora", name]
        if name not in ("audio_attention", "audio_attention_lora")
        else [name]
    )
    rank = () if name == "audio_attention" else ("--lora_rank", "2")
    run = training_run(line("--stages", *stages, *rank, "--warmup_steps", "0"))
    model = UNetWithAudio(run.attached.unet, run.adapter)
    for number, stage in enumerate(run.stages[:-1]):
        run._train_stage(model, stage, run.folder / f"stage-{number}")
    before = parts_of(run)
    run._train_stage(model, run.stages[-1], run.folder / "stage-last")
    after = parts_of(run)
    moved = {part: changed(before[part], after[part]) for part in before}
    for part in (*PARAMETER_GROUPS, "base"):
        if part in STAGES[name].trainable:
            assert moved[part] == len(before[part]) > 0, f"all of {part} is trained"
        else:
            assert moved[part] == 0, f"{part} is frozen"


@pytest.mark.slow
def test_all_trainable_parameters_get_gradients(line: Any) -> None:
    run = training_run(
        line("--stages", "audio_attention_lora", "--lora_rank", "2", "--warmup_steps", "0")
    )
    model = UNetWithAudio(run.attached.unet, run.adapter)
    trainer = run.build_trainer(model, run.stages[0], run.folder)
    trainer.train()
    dataset = run.build_dataset(run.train_pairs, run.train_tensors)
    batch = trainer.data_collator([dataset[0, i, i] for i in range(4)])
    model.zero_grad()
    trainer.compute_loss(model, batch).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    missing = [n for n, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert len(trained) > 20 and not missing


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "terms"),
    [
        ((), {"denoising", "levels"}),
        (("--level_loss_weight", "0"), {"denoising"}),
        (("--orthogonality_weight", "1", "--entropy_weight", "1", "--norm_weight", "1"),
         {"denoising", "levels", "orthogonality", "entropy", "norm"}),
        (("--stages", "projector"), {"alignment"}),
        (("--stages", "text_replacement"), {"denoising", "levels"}),
    ],
)  # fmt: skip
def test_loss_terms_are_logged_by_name(line: Any, tmp_path: Path, flags: Any, terms: Any) -> None:
    training_run(line("--save_strategy", "steps", "--save_steps", "3", *flags)).train()
    lines = [row for row in history(tmp_path / "run") if "loss" in row]
    assert len(lines) == 3
    for row in lines:
        found = {name[5:]: value for name, value in row.items() if name.startswith("loss_")}
        assert set(found) == terms
        assert sum(found.values()) == pytest.approx(row["loss"], rel=1e-3, abs=2e-3)


def levels_after(line: Any, *flags: str) -> Any:
    """Return held-out level tokens, level weights and the adapter after a short training."""
    more = ("--max_steps", "30", "--overwrite_output_dir", "true", "--learning_rate", "0.01")
    run = training_run(line(*more, "--stages", "audio_attention", *flags))
    run.train()
    prepared = run.eval_tensors
    index = prepared.audio_index
    with torch.no_grad():
        tokens = run.adapter.projector(
            prepared.tokens[index].float(), prepared.mask[index], prepared.embeds[index].float()
        )
    return tokens, run.adapter.level_weights().detach(), run.adapter


@pytest.mark.slow
def test_level_options_change_levels(line: Any) -> None:
    from diffuse.models.levels import entropy, norm_error, orthogonality

    plain, _, _ = levels_after(line)
    orthogonal, _, _ = levels_after(line, "--orthogonality_weight", "10")
    assert orthogonality(orthogonal) < 0.5 * orthogonality(plain)
    sized, _, _ = levels_after(line, "--norm_weight", "10", "--norm_target", "20")
    assert norm_error(sized, 20.0) < 0.8 * norm_error(plain, 20.0)
    _, uneven, _ = levels_after(line, "--entropy_weight", "-1")
    _, held, _ = levels_after(line, "--entropy_weight", "1")
    assert entropy(held) > entropy(uneven)
    _, _, cold = levels_after(line, "--temperature_start", "2", "--temperature_end", "0.5")
    assert cold.temperature.item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.slow
def test_projector_stage_reduces_alignment_loss(line: Any) -> None:
    run = training_run(
        line("--stages", "projector", "--max_steps", "40", "--learning_rate", "0.01")
    )
    trainer = run.build_trainer(
        UNetWithAudio(run.attached.unet, run.adapter), run.stages[0], run.folder
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.7 * before


def test_ema_weights_are_evaluated_and_saved(line: Any) -> None:
    run = training_run(line("--ema_decay", "0.9", "--warmup_steps", "0"))
    trainer = run.build_trainer(
        UNetWithAudio(run.attached.unet, run.adapter), run.stages[0], run.folder
    )
    trainer.train()
    last = [p.detach().clone() for p in run.adapter.parameter_groups["gates"]]
    with trainer.ema.averaged_weights():
        averaged = [p.detach().clone() for p in run.adapter.parameter_groups["gates"]]
    assert all(
        torch.equal(a, p) for a, p in zip(last, run.adapter.parameter_groups["gates"], strict=True)
    )
    assert all(a != 0 and a != b for a, b in zip(averaged, last, strict=True))
    trainer.ema.copy_to_model()
    assert all(
        torch.equal(a, p)
        for a, p in zip(averaged, run.adapter.parameter_groups["gates"], strict=True)
    )


@pytest.mark.slow
def test_run_writes_adapter_and_samples(line: Any, tmp_path: Path) -> None:
    from diffuse.models.saving import load_adapter

    main(line("--num_sheet_samples", "3", "--lora_rank", "2", "--stages", "audio_attention_lora"))
    folder = tmp_path / "run"
    names = {p.name for p in folder.iterdir()}
    assert {"config.json", "README.md", "projector.safetensors", "attention.safetensors",
            "gates.safetensors", "pytorch_lora_weights.safetensors", "metrics.json",
            "samples.png", "run.json"} <= names  # fmt: skip
    assert not any(p.stat().st_size > 5e6 for p in folder.rglob("*"))
    assert load_adapter(folder).gates().keys() == load_adapter(folder).config.layers.keys()
    assert len(Image.open(folder / "samples.png").convert("RGB").getcolors(1 << 24)) > 50


@pytest.mark.slow
def test_sample_every_eval_writes_sheets(line: Any, tmp_path: Path) -> None:
    flags = (
        "--eval_strategy",
        "steps",
        "--eval_steps",
        "2",
        "--max_steps",
        "4",
        "--num_sheet_samples",
        "2",
    )
    training_run(line(*flags, "--sample_every_eval", "true")).train()
    found = sorted(p.name for p in (tmp_path / "run").glob("stage-1-audio_attention/samples/*"))
    assert found == ["step-2.png", "step-4.png"]


def test_eval_folds_are_excluded_from_training(line: Any) -> None:
    run = training_run(line("--folds", "1", "--eval_folds", "2"))
    assert len(run.train_pairs) == len(run.eval_pairs) == 6
    assert not set(run.train_pairs.rows["audio"]) & set(run.eval_pairs.rows["audio"])
    assert "folds 2" in run.evaluated_on


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stages", "audio_attention_lora"), "the adapter has no lora to train"),
        (("--stages", '{"trainable": ["attention"]}'), "with closed gates"),
        (("--encoder", "no/encoder"), "'no/encoder'"),
        (("--dataset", "no/data"), "there is no dataset 'no/data'"),
        (("--resolution", "15"), "--resolution must be a multiple of 2"),
        (("--blocks", "side"), "blocks are down, mid, up, not 'side'"),
    ],
)
def test_invalid_run_exits_with_one_line(line: Any, flags: tuple[str, ...], message: str) -> None:
    with pytest.raises(SystemExit, match=message) as error:
        main(line(*flags))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--stages", "audio"), "there is no stage 'audio'"),
        (("--caption_dropout", "0.9", "--audio_dropout", "0.9"), "together at most 1"),
        (("--ema_decay", "1.5"), "must be between 0 and 1"),
        (("--num_crops", "0"), "--num_crops must be at least 1"),
        (("--lerning_rate", "1"), "did you mean --learning_rate"),
    ],
)
def test_invalid_options_exit(
    line: Any, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], message: str
) -> None:
    with pytest.raises(SystemExit):
        main(line(*flags))
    assert message in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(recipe_folder("diffuse").glob("*.yaml")), ids=lambda p: p.stem
)
def test_recipe_trains_and_generates(
    tiny_base: str, encoder: Path, pairs: Path, tmp_path: Path, path: Path
) -> None:
    import yaml

    recipe = yaml.safe_load(path.read_text())
    given = [text if isinstance(text, str) else json.dumps(text) for text in
             recipe.get("stages", ["audio_attention"])]  # fmt: skip
    short = []
    for text in given:
        stage = parse_stage(text)
        values = {"trainable": stage.trainable, "loss": stage.loss, "max_steps": 1}
        short.append(json.dumps({"name": stage.name, **values}))
    line = command(
        tiny_base, encoder, pairs, tmp_path / "run", "--stages", *short, "--num_sheet_samples", "1"
    )
    main([path.stem, *line])
    done = sorted(p.parent.name for p in (tmp_path / "run").glob("stage-*/done"))
    assert len(done) == len(short)
    assert (tmp_path / "run" / "samples.png").exists()


def test_recipes_match_earlier_systems() -> None:
    def stages(name: str) -> list[tuple[set[str], str]]:
        options = parse_options("diffuse.train", [name])
        return [(set(s.trainable), s.loss) for s in parse_stages(options.loss.stages)]

    assert len(stages("clap2diffusion-v3")) == 3 and len(stages("clap2diffusion-v4")) == 2
    assert len(stages("sonicdiffusion")) == 2 and len(stages("art-from-audio")) == 1
    assert stages("clap2diffusion-v3")[2][0] == {"gates", "level_weights"}
    assert stages("sonicdiffusion")[0] == ({"projector"}, "alignment")
    assert stages("art-from-audio") == [({"projector", "lora"}, "text_replacement")]


@pytest.mark.slow
def test_finished_run_is_not_repeated(
    line: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(line())
    before = adapter_weights(tmp_path / "run")
    capsys.readouterr()
    main(line())
    assert "stage 1 (audio_attention) is done" in capsys.readouterr().out
    after = adapter_weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(SystemExit, match=r"learning_rate was 0\.003 and is 0\.01"):
        main(line("--learning_rate", "0.01"))
    main(line("--learning_rate", "0.01", "--overwrite_output_dir", "true"))
    other = adapter_weights(tmp_path / "run")
    assert any(not torch.equal(before[name], other[name]) for name in before)


@pytest.mark.slow
def test_init_from_saved_adapter(line: Any, tmp_path: Path) -> None:
    main(line())
    saved = tmp_path / "run"
    again = line("--init_from", str(saved), "--stages", "attention_only", "--warmup_steps", "0")
    again[again.index(str(saved))] = str(tmp_path / "next")
    main(again)
    before, after = adapter_weights(saved), adapter_weights(tmp_path / "next")
    same = {n for n in before if torch.equal(before[n], after[n])}
    projector = [n for n in before if n.startswith("projector.") and "level_projections" not in n]
    assert projector and same.issuperset(projector)
    assert any(n not in same for n in before if n.startswith("attention."))


@pytest.mark.slow
def test_killed_run_resumes_to_same_weights(
    tiny_base: str, encoder: Path, pairs: Path, tmp_path: Path
) -> None:
    """The run is killed in the middle of an epoch of the second stage."""
    stages = (
        "--stages",
        '{"stage": "projector", "max_steps": 2}',
        '{"stage": "audio_attention", "max_steps": 40}',
    )
    flags = (*stages, "--save_strategy", "steps", "--save_steps", "4", "--save_total_limit", "9")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    main(command(tiny_base, encoder, pairs, whole, *flags))
    run = [sys.executable, "-m", "diffuse.train", *command(tiny_base, encoder, pairs, cut, *flags)]
    process = subprocess.Popen(run, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    stage = cut / "stage-2-audio_attention"
    deadline = time.monotonic() + 300
    while not (stage / "checkpoint-8" / "complete").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (stage / "done").exists()
    newest = max(int(p.name.partition("-")[2]) for p in stage.glob("checkpoint-*"))
    assert newest < 40
    main(command(tiny_base, encoder, pairs, cut, *flags))
    first, second = adapter_weights(whole), adapter_weights(cut)
    assert first.keys() == second.keys()
    differ = [name for name in first if not torch.equal(first[name], second[name])]
    assert not differ, f"{len(differ)} of {len(first)} differ: {differ[:4]}"


@pytest.mark.slow
def test_two_processes_match_one(
    tiny_base: str, encoder: Path, pairs: Path, tmp_path: Path
) -> None:
    """Two processes with half the batch each match one process up to rounding."""
    one, two, cache = tmp_path / "one", tmp_path / "two", ("--cache", "true", "--cache_dir")
    flags = (*cache, str(tmp_path / "cache"), "--warmup_steps", "0", "--ema_decay", "0")
    main(command(tiny_base, encoder, pairs, one, *flags))
    line = command(tiny_base, encoder, pairs, two, *flags, "--per_device_train_batch_size", "2")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    done = subprocess.run(
        [*torchrun, "2", "-m", "diffuse.train", *line], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    main(command(tiny_base, encoder, pairs, tmp_path / "fresh", *flags, "--max_steps", "1",
                 "--learning_rate", "1e-12"))  # fmt: skip
    fresh = adapter_weights(tmp_path / "fresh")
    first, second = adapter_weights(one), adapter_weights(two)
    assert first.keys() == second.keys()

    def distance(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
        return sum((left[n] - right[n]).float().abs().sum().item() for n in left)

    assert distance(first, fresh) > 0
    assert distance(first, second) < 0.1 * distance(first, fresh)
