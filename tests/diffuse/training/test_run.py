"""Training the UNet to hear: stages move what they name, runs resume, options do what they say."""

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
from diffuse.config.stages import PARAMETER_GROUPS, STAGES
from diffuse.models.lora import lora_parameters
from diffuse.train import main
from diffuse.training.model import UNetWithAudio
from tests.helpers.adapter_runs import adapter_weights, command, fill, session

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
    """Makes command lines of short trainings into this test's folder."""

    def made(*more: str) -> list[str]:
        return command(tiny_base, encoder, pairs, tmp_path / "run", *more)

    return made


def history(folder: Path) -> list[dict[str, Any]]:
    """What a stage logged, from its newest checkpoint."""
    states = sorted(folder.glob("stage-*/checkpoint-*/trainer_state.json"), key=os.path.getmtime)
    found: list[dict[str, Any]] = json.loads(states[-1].read_text())["log_history"]
    assert found
    return found


def parts_of(opened: Any) -> dict[str, dict[str, torch.Tensor]]:
    """Copies of all weights by part, "base" and "buffers" among them."""
    adapter, unet = opened.adapter, opened.attached.unet
    lora = lora_parameters(unet, "sound")
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
def test_exactly_what_a_stage_trains_moves(line: Any, name: str) -> None:
    stages = (
        ["audio_attention_lora", name]
        if name not in ("audio_attention", "audio_attention_lora")
        else [name]
    )
    rank = () if name == "audio_attention" else ("--lora_rank", "2")
    opened = session(line("--stages", *stages, *rank, "--warmup_steps", "0"))
    model = UNetWithAudio(opened.attached.unet, opened.adapter)
    for number, stage in enumerate(opened.stages[:-1]):
        opened._train_stage(model, stage, opened.folder / f"stage-{number}")
    before = parts_of(opened)
    opened._train_stage(model, opened.stages[-1], opened.folder / "stage-last")
    after = parts_of(opened)
    moved = {part: changed(before[part], after[part]) for part in before}
    for part in (*PARAMETER_GROUPS, "base"):
        if part in STAGES[name].trainable:
            assert moved[part] == len(before[part]) > 0, f"all of {part} trains"
        else:
            assert moved[part] == 0, f"{part} stands still"


@pytest.mark.slow
def test_every_gradient_is_there_after_the_first_update(line: Any) -> None:
    opened = session(
        line("--stages", "audio_attention_lora", "--lora_rank", "2", "--warmup_steps", "0")
    )
    model = UNetWithAudio(opened.attached.unet, opened.adapter)
    trainer = opened.build_trainer(model, opened.stages[0], opened.folder)
    trainer.train()
    batch = trainer.data_collator([opened.build_dataset(opened.train_pairs, opened.train_tensors)[0, i, i] for i in
                                   range(4)])  # fmt: skip
    model.zero_grad()
    trainer.compute_loss(model, batch).backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    dead = [n for n, p in trained.items() if p.grad is None or not p.grad.abs().sum() > 0]
    assert len(trained) > 20 and not dead


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
def test_each_term_is_logged_by_name(line: Any, tmp_path: Path, flags: Any, terms: Any) -> None:
    session(line("--save_strategy", "steps", "--save_steps", "3", *flags)).train()
    lines = [row for row in history(tmp_path / "run") if "loss" in row]
    assert len(lines) == 3
    for row in lines:
        found = {name[5:]: value for name, value in row.items() if name.startswith("loss_")}
        assert set(found) == terms
        assert sum(found.values()) == pytest.approx(row["loss"], rel=1e-3, abs=2e-3)


def levels_after(line: Any, *flags: str) -> Any:
    """The projector's tokens of held-out sounds and the level weights after a short training."""
    more = ("--max_steps", "30", "--overwrite_output_dir", "true", "--learning_rate", "0.01")
    opened = session(line(*more, "--stages", "audio_attention", *flags))
    opened.train()
    prepared = opened.eval_tensors
    which = prepared.audio_index
    with torch.no_grad():
        tokens = opened.adapter.projector(
            prepared.tokens[which].float(), prepared.mask[which], prepared.embeds[which].float()
        )
    return tokens, opened.adapter.level_weights().detach(), opened.adapter


@pytest.mark.slow
def test_the_levels_options_do_what_they_say(line: Any) -> None:
    from diffuse.models.levels import entropy, norm_error, orthogonality

    plain, even, _ = levels_after(line)
    apart, _, _ = levels_after(line, "--orthogonality_weight", "10")
    assert orthogonality(apart) < 0.5 * orthogonality(plain)
    sized, _, _ = levels_after(line, "--norm_weight", "10", "--norm_target", "20")
    assert norm_error(sized, 20.0) < 0.8 * norm_error(plain, 20.0)
    _, uneven, _ = levels_after(line, "--entropy_weight", "-1")
    _, held, _ = levels_after(line, "--entropy_weight", "1")
    assert entropy(held) > entropy(uneven)
    _, _, cold = levels_after(line, "--temperature_start", "2", "--temperature_end", "0.5")
    assert cold.temperature.item() == pytest.approx(0.5, rel=0.1)


@pytest.mark.slow
def test_the_alignment_stage_brings_tokens_to_their_phrases(line: Any) -> None:
    opened = session(line("--stages", "projector", "--max_steps", "40", "--learning_rate", "0.01"))
    trainer = opened.build_trainer(
        UNetWithAudio(opened.attached.unet, opened.adapter), opened.stages[0], opened.folder
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < 0.7 * before


def test_the_average_is_kept_and_evaluated(line: Any) -> None:
    opened = session(line("--ema_decay", "0.9", "--warmup_steps", "0"))
    trainer = opened.build_trainer(
        UNetWithAudio(opened.attached.unet, opened.adapter), opened.stages[0], opened.folder
    )
    trainer.train()
    last = [p.detach().clone() for p in opened.adapter.parameter_groups["gates"]]
    with trainer.ema.averaged_weights():
        averaged = [p.detach().clone() for p in opened.adapter.parameter_groups["gates"]]
    assert all(
        torch.equal(a, p)
        for a, p in zip(last, opened.adapter.parameter_groups["gates"], strict=True)
    )
    assert all(a != 0 and a != b for a, b in zip(averaged, last, strict=True))
    trainer.ema.copy_to_model()
    assert all(
        torch.equal(a, p)
        for a, p in zip(averaged, opened.adapter.parameter_groups["gates"], strict=True)
    )


@pytest.mark.slow
def test_a_run_leaves_an_adapter_that_pipelines_load(line: Any, tmp_path: Path) -> None:
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
def test_samples_are_drawn_at_every_evaluation(line: Any, tmp_path: Path) -> None:
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
    session(line(*flags, "--sample_every_eval", "true")).train()
    found = sorted(p.name for p in (tmp_path / "run").glob("stage-1-hearing/samples/*"))
    assert found == ["step-2.png", "step-4.png"]


def test_folds_that_are_held_out_are_not_trained_on(line: Any) -> None:
    opened = session(line("--folds", "1", "--eval_folds", "2"))
    assert len(opened.train_pairs) == len(opened.eval_pairs) == 6
    assert not set(opened.train_pairs.rows["audio"]) & set(opened.eval_pairs.rows["audio"])
    assert "folds 2" in opened.eval_name


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--stages", "audio_attention_lora"), "the adapter has no lora that could train"),
        (("--stages", '{"trainable": ["attention"]}'), "behind closed gates"),
        (("--encoder", "no/encoder"), "there is no trained encoder 'no/encoder'"),
        (("--dataset", "no/data"), "there is no dataset 'no/data'"),
        (("--resolution", "15"), "--resolution must be a multiple of 2"),
        (("--blocks", "side"), "blocks are down, mid, up, not 'side'"),
    ],
)
def test_what_cannot_be_trained_is_refused_in_one_sentence(
    line: Any, flags: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit, match=said) as told:
        main(line(*flags))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--stages", "ears"), "there is no stage 'ears'"),
        (("--caption_dropout", "0.9", "--audio_dropout", "0.9"), "together at most 1"),
        (("--ema_decay", "1.5"), "between 0 and 1"),
        (("--crops", "0"), "--crops is at least 1"),
        (("--lerning_rate", "1"), "did you mean --learning_rate"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_loaded(
    line: Any, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], said: str
) -> None:
    with pytest.raises(SystemExit):
        main(line(*flags))
    assert said in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", sorted(recipe_folder("diffuse").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_recipe_trains_a_few_steps_and_is_driven(
    tiny_base: str, encoder: Path, pairs: Path, tmp_path: Path, path: Path
) -> None:
    import yaml

    from diffuse.config.stages import parse_stage

    recipe = yaml.safe_load(path.read_text())
    given = [text if isinstance(text, str) else json.dumps(text) for text in
             recipe.get("stages", ["audio_attention"])]  # fmt: skip
    short = []
    for text in given:
        stage = parse_stage(text)
        told = {"name": stage.name, "trainable": stage.trainable, "loss": stage.loss, "steps": 1}
        short.append(json.dumps(told))
    line = command(
        tiny_base, encoder, pairs, tmp_path / "run", "--stages", *short, "--num_sheet_samples", "1"
    )
    main([path.stem, *line])
    done = sorted(p.parent.name for p in (tmp_path / "run").glob("stage-*/done"))
    assert len(done) == len(short)
    assert (tmp_path / "run" / "samples.png").exists()


def test_recipes_say_what_the_earlier_systems_trained() -> None:
    def stages(name: str) -> list[tuple[set[str], str]]:
        options = parse_options("diffuse.train", [name])
        from diffuse.config.stages import parse_stages

        return [(set(s.trainable), s.loss) for s in parse_stages(options.loss.stages)]

    assert len(stages("clap2diffusion-v3")) == 3 and len(stages("clap2diffusion-v4")) == 2
    assert len(stages("sonicdiffusion")) == 2 and len(stages("art-from-audio")) == 1
    assert stages("clap2diffusion-v3")[2][0] == {"gates", "level_weights"}
    assert stages("sonicdiffusion")[0] == ({"projector"}, "alignment")
    assert stages("art-from-audio") == [({"projector", "lora"}, "text_replacement")]


@pytest.mark.slow
def test_a_finished_run_is_not_trained_again(
    line: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(line())
    before = adapter_weights(tmp_path / "run")
    capsys.readouterr()
    main(line())
    assert "stage 1 (hearing) is done" in capsys.readouterr().out
    after = adapter_weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(SystemExit, match=r"learning_rate was 0\.003 and is 0\.01"):
        main(line("--learning_rate", "0.01"))
    main(line("--learning_rate", "0.01", "--overwrite_output_dir", "true"))
    other = adapter_weights(tmp_path / "run")
    assert any(not torch.equal(before[name], other[name]) for name in before)


@pytest.mark.slow
def test_a_later_run_starts_from_a_saved_adapter(line: Any, tmp_path: Path) -> None:
    main(line())
    saved = tmp_path / "run"
    again = line("--adapter", str(saved), "--stages", "attention", "--warmup_steps", "0")
    again[again.index(str(saved))] = str(tmp_path / "next")
    main(again)
    before, after = adapter_weights(saved), adapter_weights(tmp_path / "next")
    same = {n for n in before if torch.equal(before[n], after[n])}
    projector = [n for n in before if n.startswith("projector.") and "level_projections" not in n]
    assert projector and same.issuperset(projector)
    assert any(n not in same for n in before if n.startswith("attention."))


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(
    tiny_base: str, encoder: Path, pairs: Path, tmp_path: Path
) -> None:
    """Killed in the middle of an epoch of the second stage."""
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
    stage = cut / "stage-2-hearing"
    deadline = time.monotonic() + 300
    while not (stage / "checkpoint-8" / "whole").exists():
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
def test_two_processes_train_one_adapter(
    tiny_base: str, encoder: Path, pairs: Path, tmp_path: Path
) -> None:
    """Two of half the batch each end where one of the whole ends, but for rounding."""
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

    def apart(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> float:
        return sum((left[n] - right[n]).float().abs().sum().item() for n in left)

    assert apart(first, fresh) > 0
    assert apart(first, second) < 0.1 * apart(first, fresh)
