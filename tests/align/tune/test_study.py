"""Tuning: search spaces, interrupted studies, and the recipe of the best trial."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import yaml

from align.config.options import Options, differing, parse_options
from align.train import main as train
from align.tune.__main__ import main
from align.tune.space import (
    build_search_space,
    current_values,
    default_search_space,
    read_search_space,
)
from align.tune.study import _check_same
from tests.helpers.launches import assert_same_weights, command

ROOT = Path(__file__).parents[3]
SPACE = """\
learning_rate: {log: [1e-4, 1.0e-2]}
temperature: {linear: [0.1, 0.3]}
mse_weight: {choice: [0.5, 1.0]}
"""


def options(*flags: str) -> Options:
    return parse_options("align.tune", list(flags))


def study_line(base: str, backbone: str, data: Path, tmp: Path, *more: str) -> list[str]:
    (tmp / "space.yaml").write_text(SPACE)
    line = command(base, backbone, data, tmp / "unused", "--folds", "1", "2", "--eval_folds", "3")
    return [
        *line, "--eval_strategy", "epoch", "--save_strategy", "epoch",
        "--search_space", str(tmp / "space.yaml"), "--study_dir", str(tmp / "study"), *more,
    ]  # fmt: skip


def test_search_space_distributions() -> None:
    from optuna.distributions import CategoricalDistribution as Choice
    from optuna.distributions import FloatDistribution as Float
    from optuna.distributions import IntDistribution as Int

    specs = yaml.safe_load(SPACE + "pitch_shift: {linear: [0, 4]}\nadapter_heads: {log: [1, 8]}\n")
    assert build_search_space(specs) == {
        "learning_rate": Float(1e-4, 1e-2, log=True),
        "temperature": Float(0.1, 0.3),
        "mse_weight": Choice([0.5, 1.0]),
        "pitch_shift": Int(0, 4),
        "adapter_heads": Int(1, 8, log=True),
    }


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ("learning_rat: {log: [1, 2]}", "no option 'learning_rat'.*did you mean learning_rate"),
        ("temperature: [0.1, 0.2]", "temperature needs one of log, linear, choice"),
        ("temperature: {uniform: [0.1, 0.2]}", "temperature needs one of log, linear, choice"),
        ("temperature: {log: [0.2, 0.1]}", "temperature: log needs a lower and an upper number"),
        ("temperature: {log: [0, 0.1]}", "log needs numbers above 0"),
        ("temperature: {choice: [a, b]}", "temperature does not take 'a'"),
        ("adapter_depth: {linear: [1.5, 3]}", "adapter_depth does not take 1.5"),
        ("adapter: {linear: [conv, mlp]}", "adapter: linear needs a lower and an upper number"),
        ("learn_temperature: {choice: [1, 0]}", "learn_temperature does not take 1"),
        ("folds: {choice: [1, 2]}", "folds is fixed or set by the study"),
        ("output_dir: {choice: [a, b]}", "output_dir is fixed or set by the study"),
        ("- learning_rate", "must have options and their ranges"),
        ("a: [", "is not YAML"),
    ],
)
def test_invalid_search_space_is_refused(tmp_path: Path, given: str, why: str) -> None:
    (tmp_path / "space.yaml").write_text(given)
    with pytest.raises(ValueError, match=why):
        build_search_space(read_search_space(str(tmp_path / "space.yaml")))


def test_default_search_space_fits_the_run() -> None:
    frozen = default_search_space(options(), ())
    names = {"learning_rate", "temperature", "mse_weight", "adapter_width", "adapter_depth"}
    assert set(frozen) == names
    own = current_values(frozen, options())
    assert own is not None and own["learning_rate"] == 1e-3 and own["adapter_width"] > 1
    trained = default_search_space(options("--train_backbone", "all"), ("temperature",))
    assert set(trained) > names - {"temperature"} | {"gain_db", "time_masks"}
    assert "temperature" not in trained
    alone = default_search_space(options("--info_nce_weight", "0"), ())
    assert not {"temperature", "mse_weight"} & set(alone)
    assert current_values(frozen, options("--temperature", "0.9")) is None


def test_differing_options_make_a_recipe(tmp_path: Path) -> None:
    found = differing(options("--seed", "3", "--lr_scheduler_type", "linear", "--folds", "1", "2"))
    assert found == {"seed": 3, "lr_scheduler_type": "linear", "folds": [1, 2]}
    assert differing(options()) == {}
    recipe = tmp_path / "again.yaml"
    given = options("--disable_tqdm", "true", "--learn_temperature", "true", "--seed", "2")
    recipe.write_text(yaml.safe_dump(differing(given)))
    assert differing(options(str(recipe))) == differing(given) and len(differing(given)) == 3


def test_older_study_ignores_newer_options(tmp_path: Path) -> None:
    study = optuna.create_study()
    for recorded in ({"seed": 0}, {"seed": 0, "adam_beta1": 0.9}):
        _check_same(study, tmp_path, recorded)
    with pytest.raises(ValueError, match="seed was 0 and is 1"):
        _check_same(study, tmp_path, {"seed": 1, "adam_beta1": 0.9})


@pytest.mark.parametrize(
    ("more", "given"),
    [
        (("--search_space", "missing.yaml"), "missing.yaml: there is no such file"),
        (("--learning_rate", "1e-3"), "--learning_rate is given and in the search space"),
    ],
)
def test_invalid_study_is_refused_before_training(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path, more: tuple[str, ...],
    given: str,
) -> None:  # fmt: skip
    with pytest.raises(SystemExit, match=given):
        main(study_line(tiny_base, tiny_clap, sound_folder, tmp_path, *more))
    assert not (tmp_path / "study").exists()


def test_range_with_invalid_value_is_refused(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    line = study_line(tiny_base, tiny_clap, sound_folder, tmp_path)
    (tmp_path / "space.yaml").write_text("temperature: {linear: [-1, 1]}")
    with pytest.raises(SystemExit, match=r"--temperature -1\.0: --temperature must be above 0"):
        main(line)
    with pytest.raises(SystemExit, match="2"):
        main([*line, "--objective", "loss"])


def test_study_needs_held_out_rows(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    line = study_line(tiny_base, tiny_clap, sound_folder, tmp_path, "--n_trials", "1")
    where = line.index("--folds")
    with pytest.raises(SystemExit, match="there are no held-out rows"):
        main(line[:where] + line[where + 5 :])
    main(line)  # the refused study left no study
    assert len(rows(tmp_path)) == 1


def rows(tmp: Path) -> list[dict[str, str]]:
    with (tmp / "study" / "trials.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_study_writes_recipe_of_the_best_trial(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    line = study_line(tiny_base, tiny_clap, sound_folder, tmp_path, "--no_prune")
    main([*line, "--n_trials", "2"])
    assert [row["trial"] for row in rows(tmp_path)] == ["0", "1"]
    assert rows(tmp_path)[0]["note"] == "the recipe's own values"
    assert float(rows(tmp_path)[0]["learning_rate"]) == 1e-3
    main([*line, "--n_trials", "3"])
    found = rows(tmp_path)
    assert [row["state"] for row in found] == ["complete"] * 3
    assert len({row["learning_rate"] for row in found}) == 3
    best = max(found, key=lambda row: float(row["centered_cosine"]))["trial"]
    out = capsys.readouterr().out
    assert f"The best trial is {best};" in out
    kept = tmp_path / "study" / f"trial-{best}"
    assert [path.name for path in (tmp_path / "study").glob("trial-*")] == [kept.name]
    recipe = tmp_path / "study" / "best.yaml"
    values = yaml.safe_load(recipe.read_text())
    wanted = float(next(row for row in found if row["trial"] == best)["learning_rate"])
    assert values.get("learning_rate", 1e-3) == pytest.approx(wanted, rel=1e-3)
    train([str(recipe)])
    assert_same_weights(kept, tmp_path / "study" / "best")
    with pytest.raises(SystemExit, match=r"study with other options.*seed was 0 and is 1"):
        main([*line, "--n_trials", "3", "--seed", "1"])


def test_recipe_with_search_space(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    line = study_line(tiny_base, tiny_clap, sound_folder, tmp_path, "--n_trials", "1")
    where = line.index("--search_space")
    (tmp_path / "own.yaml").write_text("search_space: {mse_weight: {log: [1e-1, 10]}}\nseed: 2\n")
    main([str(tmp_path / "own.yaml"), *line[:where], *line[where + 2 :]])
    assert rows(tmp_path)[0]["mse_weight"] == "1"
    from_recipe: Options = parse_options("align.train", [str(tmp_path / "own.yaml")])
    assert from_recipe.training.seed == 2


@pytest.mark.slow
def test_weak_trial_is_pruned(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    """Four trials learn; the fifth has a learning rate near 0."""
    line = study_line(tiny_base, tiny_clap, sound_folder, tmp_path, "--num_train_epochs", "4")
    space = "learning_rate: {choice: [1.0e-2, 9.0e-3, 8.0e-3, 7.0e-3, 1.0e-12]}"
    (tmp_path / "space.yaml").write_text(space)
    main([*line, "--n_trials", "1"])
    store = f"sqlite:///{tmp_path / 'study' / 'study.db'}"
    study = optuna.load_study(study_name="align", storage=store)
    for rate in (9.0e-3, 8.0e-3, 7.0e-3, 1.0e-12):
        study.enqueue_trial({"learning_rate": rate})
    main([*line, "--n_trials", "5"])
    weak = next(row for row in rows(tmp_path) if float(row["learning_rate"]) == 1e-12)
    assert weak["state"] == "pruned" and "stopped after 2 epochs" in weak["note"]
    assert sum(row["state"] == "complete" for row in rows(tmp_path)) == 4


@pytest.mark.slow
def test_killed_study_resumes(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folders = {name: tmp_path / name for name in ("whole", "broken")}
    lines = {}
    for name, folder in folders.items():
        folder.mkdir()
        more = ("--n_trials", "3", "--num_train_epochs", "12", "--no_prune")
        lines[name] = study_line(tiny_base, tiny_clap, sound_folder, folder, *more)
    main(lines["whole"])
    killed_in(1, lines["broken"], folders["broken"] / "study")
    capsys.readouterr()
    main(lines["broken"])
    out = capsys.readouterr().out
    assert "resuming trial 1" in out and "resuming from" in out
    table = [[{**row, "seconds": ""} for row in rows(folder)] for folder in folders.values()]
    assert table[0] == table[1] and len(table[0]) == 3


def killed_in(trial: int, line: list[str], study: Path) -> None:
    """Run a study in a subprocess and kill it after the first checkpoint of a trial."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", "align.tune", *line], env=environment)
    deadline = time.monotonic() + 240
    while not list((study / f"trial-{trial}").glob("checkpoint-*/run.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
