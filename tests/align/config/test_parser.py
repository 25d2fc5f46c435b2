"""Recipes and flags: their precedence, and messages for invalid ones."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from align.config.options import Options, parse_options
from align.config.parser import find_recipe, recipe_folder
from align.training.validation import check_model

ROOT = Path(__file__).parents[3]


def options(*arguments: str) -> Options:
    found: Options = parse_options("align.train", arguments, check=check_model)
    return found


def recipe(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        options(*arguments)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.partition("error: ")[2]


def test_defaults_then_recipe_then_flags(tmp_path: Path) -> None:
    mine = recipe(tmp_path, "adapter_width: 64\nadapter_depth: 3\n")
    assert (options().model.adapter_width, options().model.adapter_depth) == (None, None)
    assert (options(mine).model.adapter_width, options(mine).model.adapter_depth) == (64, 3)
    both = options(mine, "--adapter_width", "32")
    assert (both.model.adapter_width, both.model.adapter_depth) == (32, 3)
    assert options().model.adapter_width is None


def test_flag_restores_default(tmp_path: Path) -> None:
    mine = recipe(tmp_path, "mse_weight: 0\nresume_from_checkpoint: false\nfolds: [1, 2]\n")
    assert options(mine).loss.mse_weight == 0 and options(mine).training.resumes is False
    assert options(mine).data.folds == [1, 2]
    back = options(mine, "--mse_weight", "1.0", "--resume_from_checkpoint", "true", "--folds", "3")
    assert back.loss.mse_weight == 1.0 and back.training.resumes is True
    assert back.data.folds == [3]


@pytest.mark.parametrize(
    ("text", "where", "expected"),
    [
        ("learning_rate: 1e-4", ("training", "learning_rate"), 1e-4),
        ("learning_rate: '1e-4'", ("training", "learning_rate"), 1e-4),
        ("num_train_epochs: 3", ("training", "num_train_epochs"), 3.0),
        ("train_backbone: 2", ("model", "train_backbone"), "2"),
        ("resume_from_checkpoint: no", ("training", "resume_from_checkpoint"), "false"),
        ("sample_every_eval: true", ("training", "sample_every_eval"), True),
        ('eval_strategy: "no"', ("training", "eval_strategy"), "no"),
        ("save_total_limit: null", ("training", "save_total_limit"), None),
        ("folds: null", ("data", "folds"), None),
        (
            "lr_scheduler_kwargs: {min_lr: 0.1}",
            ("training", "lr_scheduler_kwargs"),
            {"min_lr": 0.1},
        ),
        ("lr_scheduler_type: linear", ("training", "lr_scheduler_type"), "linear"),
        ("", ("model", "adapter_width"), None),
    ],
)
def test_recipe_values_have_the_type_of_the_option(
    tmp_path: Path, text: str, where: tuple[str, str], expected: Any
) -> None:
    theme, name = where
    value = getattr(getattr(options(recipe(tmp_path, text)), theme), name)
    assert value == expected and isinstance(value, type(expected))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("adapter_widht: 3", "there is no option 'adapter_widht'; did you mean adapter_width?"),
        ("adapter_width: wide", "recipe key adapter_width: 'wide' is not accepted"),
        ("adapter_width: 2.5", "recipe key adapter_width: 2.5 is not accepted"),
        ("adapter_width: [1, 2]", "it must be one value"),
        ("folds: 1", "recipe key folds: 1 is not accepted (it must be a list)"),
        ("folds: [one]", "recipe key folds: ['one'] is not accepted"),
        ("learning_rate: yes", "recipe key learning_rate: True is not accepted"),
        ("eval_strategy: no", "put it in quotes"),
        ("learning_rate:", "it has no value"),
        (
            "overwrite_output_dir: perhaps",
            "overwrite_output_dir: 'perhaps' is not accepted",
        ),
        ("help: 1", "there is no option 'help'"),
        (
            "image_classifier: nobody",
            "there is no image classifier 'nobody'; there are: mini, none",
        ),
        ("target: words", "--target is label_mean or caption, not 'words'"),
        ("lr_scheduler_type: cosin", "cosin is not a valid SchedulerType"),
        ("- adapter_width", "must hold keys and values, not a list"),
        ("a: [", "is not YAML"),
    ],
)
def test_invalid_recipe_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    assert expected in refusal(capsys, recipe(tmp_path, text))


def test_binary_recipe_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "audio.yaml"
    path.write_bytes(b"RIFF\xff\xfe\x00\x80")
    assert "is not YAML" in refusal(capsys, str(path))


def test_missing_recipe_lists_the_existing_ones(capsys: pytest.CaptureFixture[str]) -> None:
    error = refusal(capsys, "esc11")
    assert "there is no recipe 'esc11'" in error and "esc10, " in error and " mini, " in error


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--adapter_widht", "3"), "'--adapter_widht'; did you mean --adapter_width?"),
        (("--adapter_widht=3",), "did you mean --adapter_width?"),
        (("--adapter_wid", "3"), "there is no option '--adapter_wid'"),
        (("--adapter_width", "wide"), "--adapter-width: invalid int value: 'wide'"),
        (("--image_classifier", "nobody"), "there is no image classifier 'nobody'"),
        (("--eval_strategy", "sometimes"), "sometimes is not a valid"),
        (("--info_nce_weight", "0", "--mse_weight", "0"), "every loss has weight 0"),
        (("--folds", "1", "2", "--eval_folds", "2"), "no fold in both"),
        (("--eval_folds", "2"), "give --folds beside --eval_folds"),
        (("--seed", "1", "mini"), "there is no option 'mini'"),
    ],
)
def test_invalid_flag_is_refused(
    capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], expected: str
) -> None:
    assert expected in refusal(capsys, *flags)


COMMITTED = sorted(recipe_folder("align").glob("*.yaml"))


def test_recipes_exist() -> None:
    assert {"mini", "esc10"} <= {path.stem for path in COMMITTED}


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: path.stem)
def test_recipes_are_valid(path: Path) -> None:
    import yaml

    assert find_recipe(path.stem, "align") == path
    parsed = options(path.stem)
    flat = {k: v for part in vars(parsed).values() for k, v in vars(part).items()}
    stated = yaml.safe_load(path.read_text())
    assert stated
    for key, value in stated.items():
        # A list of one item may be written as the item.
        assert flat[key] in (value, [value]), key


def test_recipe_mini_is_the_default() -> None:
    for theme, part in vars(options()).items():
        if theme != "training":
            assert part == getattr(options("mini"), theme)
    assert options().training.output_dir == options("mini").training.output_dir


def imported(*command: str) -> tuple[str, set[str]]:
    """Return the output of a command, and all modules that it imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", *command],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return done.stdout, {line.rpartition("|")[2].strip() for line in lines}


def test_help_of_train_imports_nothing_heavy() -> None:
    text, modules = imported("align.train", "--help")
    assert "--adapter_width" in text and "--dataset" in text
    assert "align.config.arguments" in modules
    heavy = {"transformers", "torch", "diffusers", "datasets", "matplotlib", "evaluate"}
    assert not heavy & modules
    assert not {name for name in modules if name.startswith("soundprompt.mini")}
    own = {name for name in modules if name.startswith("align.")}
    light = {"cli", "config", "registry", "train", "training", "training.validation"}
    assert {name for name in own if not name.startswith("align.config.")} <= {
        f"align.{name}" for name in light
    }


def test_help_groups_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        options("--help")
    text = capsys.readouterr().out
    parts = re.split(r"^(\w+):$", text, flags=re.M)
    groups = dict(zip(parts[1::2], parts[2::2], strict=True))
    titles = ["model", "data", "loss", "training", "evaluation", "output", "other"]
    assert list(groups) == titles
    assert "--retrieval_memory " in groups["model"] and "--gain_db " in groups["data"]
    assert "--resume_from_checkpoint " in groups["output"]
    assert "--gradient_cache " in groups["training"] and "--target " in groups["loss"]
    assert "--num_sheet_samples " in groups["evaluation"]


@pytest.mark.parametrize("command", ["align.evaluate", "align.encode"])
def test_help_of_argparse_commands_imports_nothing_heavy(command: str) -> None:
    text, modules = imported(command, "--help")
    assert "usage: python -m" in text and "argparse" in modules
    assert not {"torch", "transformers", "numpy", "datasets"} & modules
