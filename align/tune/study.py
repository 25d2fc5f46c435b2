"""A study of training options, stored by Optuna so that it can resume.

`Trainer.hyperparameter_search` of transformers varies training arguments only. Here, a trial is a
complete run of `align.train`: its options are parsed from a command line, so that every option can
be searched and the same checks apply.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
import torch
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, Trial, TrialState
from transformers import TrainerCallback

from align.evaluation.evaluator import AlignmentEvaluator
from align.training.run import TrainingRun
from align.tune.space import (
    EMBED_METRICS,
    OBJECTIVES,
    SearchSpace,
    as_flags,
    bounds,
    current_values,
)

if TYPE_CHECKING:
    from align.config.options import Options


STORE, TABLE, LOCK = "study.db", "trials.csv", "study.lock"
ENDED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
NAME = "align"  # name of the study in the database
PRUNER = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)


@dataclass
class TuningStudy:
    """A study in its directory.

    Attributes:
        folder: Directory of the study, with one folder per trial.
        parse: Function from further flags to the options of a run.
        space: Search space.
        objective: One of `align.tune.space.OBJECTIVES`.
        prune: Whether to stop trials below the median at an evaluation.
        study: The Optuna study.
    """

    folder: Path
    parse: ParseOptions
    space: SearchSpace
    objective: str
    prune: bool
    study: optuna.Study

    @classmethod
    def load_or_create(
        cls, folder: Path, parse: ParseOptions, space: SearchSpace, objective: str, prune: bool
    ) -> TuningStudy:
        """Load the study of a directory, or create one.

        Args:
            folder: Directory of the study.
            parse: Function from further flags to the options of a run.
            space: Search space.
            objective: One of `align.tune.space.OBJECTIVES`.
            prune: Whether to stop trials below the median at an evaluation.

        Raises:
            ValueError: If the existing study has other options, or a value of the search space is
                invalid.
        """
        options = parse([])
        for name, distribution in space.items():
            for value in bounds(distribution):
                parse_or_raise(parse, as_flags({name: value}))
        folder.mkdir(parents=True, exist_ok=True)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            storage=_address(folder), study_name=NAME, direction="maximize", pruner=PRUNER,
            load_if_exists=True,
        )  # fmt: skip
        _check_same(study, folder, _study_options(options, space, objective))
        tuning = cls(folder, parse, space, objective, prune, study)
        own = current_values(space, options)
        if not study.trials and own is not None:
            study.enqueue_trial(own, user_attrs={"note": "the recipe's own values"})
        return tuning

    def run(self, n_trials: int) -> None:
        """Run trials until the study has `n_trials` finished ones.

        Args:
            n_trials: Total number of trials.

        Raises:
            DataError: If the data cannot be used.
            OSError: If a model does not exist.
            ValueError: If another process runs the study.
        """
        try:
            with FileLock(self.folder / LOCK, timeout=0):  # released if the process is killed
                while len(self.study.get_trials(states=ENDED)) < n_trials:
                    trial = self._next()
                    print(f"\ntrial {trial.number}: {_format_params(trial.params)}", flush=True)
                    self._run_trial(trial)
                    self._tidy()
                    self.write_table()
        except Timeout as error:
            raise ValueError(f"another process is running the study in {self.folder}") from error

    def best_trial(self) -> FrozenTrial:
        """Return the trial with the highest objective.

        Raises:
            ValueError: If no trial was completed.
        """
        if not self.study.get_trials(states=(TrialState.COMPLETE,)):
            reasons = [str(t.user_attrs.get("note", "")) for t in self.study.trials]
            raise ValueError(f"no trial was completed: {next(filter(None, reasons[::-1]), '')}")
        return self.study.best_trial

    def trial_folder(self, number: int) -> Path:
        """Return the output directory of a trial."""
        return self.folder / f"trial-{number}"

    def flags(self, values: dict[str, Any], folder: Path) -> list[str]:
        """Return the flags of a run with the values of a trial."""
        return [*as_flags(values), "--output_dir", str(folder)]

    def write_table(self) -> list[list[str]]:
        """Write all trials to a CSV file, and return its rows, with the header first."""
        head = ["trial", "state", self.objective, *self.space, "seconds", "note"]
        rows = [head]
        for trial in self.study.trials:
            value = "" if trial.value is None else f"{trial.value:.4f}"
            values = [_short(trial.params.get(name, "")) for name in self.space]
            took = "" if trial.duration is None else f"{trial.duration.total_seconds():.0f}"
            note = str(trial.user_attrs.get("note", ""))
            rows.append([str(trial.number), trial.state.name.lower(), value, *values, took, note])
        with (self.folder / TABLE).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
        return rows

    def _next(self) -> Trial:
        """Return the unfinished trial of an interrupted study, or a new one.

        Each trial seeds its own sampler, so that a resumed study equals an uninterrupted one.
        """
        for unfinished in self.study.get_trials(states=(TrialState.RUNNING,)):
            if set(unfinished.params) == set(self.space):
                print(f"resuming trial {unfinished.number}", flush=True)
                return Trial(self.study, unfinished._trial_id)
            # Interrupted while its values were sampled: there is nothing to resume.
            self.study.tell(unfinished.number, state=TrialState.FAIL)
        seed = self.parse([]).training.seed + len(self.study.trials)
        self.study.sampler = optuna.samplers.TPESampler(seed=seed)
        return self.study.ask(fixed_distributions=self.space)

    def _run_trial(self, trial: Trial) -> None:
        flags = self.flags(trial.params, self.trial_folder(trial.number))
        flags += ["--num_sheet_samples", "0"]
        if self.objective in EMBED_METRICS:
            flags += ["--num_images", "0"]
        try:
            value = train_and_evaluate(
                trial, parse_or_raise(self.parse, flags), self.objective, self.prune
            )
        except optuna.TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
        except (InvalidOptions, torch.OutOfMemoryError) as error:
            self._fail(trial, str(error))
        except (ValueError, OSError):
            if not self.study.get_trials(states=ENDED):  # allow other options next time
                optuna.delete_study(study_name=NAME, storage=_address(self.folder))
            raise
        else:
            if math.isfinite(value):
                self.study.tell(trial, value)
            else:
                self._fail(trial, f"{self.objective} is {value}")

    def _fail(self, trial: Trial, note: str) -> None:
        trial.set_user_attr("note", note)
        self.study.tell(trial, state=TrialState.FAIL)

    def _tidy(self) -> None:
        """Delete the folders of finished trials, except that of the best one."""
        done = self.study.get_trials(states=(TrialState.COMPLETE,))
        best = self.study.best_trial.number if done else None
        for trial in self.study.get_trials(states=ENDED):
            if trial.number != best:
                shutil.rmtree(self.trial_folder(trial.number), ignore_errors=True)


def _address(folder: Path) -> str:
    return f"sqlite:///{folder.resolve() / STORE}"


def _study_options(options: Options, space: SearchSpace, objective: str) -> dict[str, Any]:
    """Return the options that all trials of a study share, as JSON values."""
    from align.training.checkpoints import FREE, recorded_options

    parts = recorded_options(options)
    length = {name: getattr(options.training, name) for name in ("num_train_epochs", "max_steps")}
    free = set(FREE) - {"eval_folds", "eval_dataset"}
    study_options = {
        name: value
        for part in ("model", "data", "loss", "memory", "augment", "training")
        for name, value in (parts[part] | (length if part == "training" else {})).items()
        if name not in free
    }
    study_options |= {"space": {k: repr(v) for k, v in space.items()}, "objective": objective}
    return dict(json.loads(json.dumps(study_options)))


def _check_same(study: optuna.Study, folder: Path, study_options: dict[str, Any]) -> None:
    before = study.user_attrs.get("options")
    if before is None:
        study.set_user_attr("options", study_options)
        return
    # An older study has no record of newer options.
    both = [k for k in study_options if k in before]
    differ = [
        f"{k} was {before[k]!r} and is {study_options[k]!r}"
        for k in both
        if before[k] != study_options[k]
    ]
    if differ:
        raise ValueError(f"{folder} has a study with other options ({'; '.join(differ)}): "
                         "give another --study_dir")  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _format_params(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


# Function from further flags to the options of a run.
ParseOptions = Callable[[Sequence[str]], "Options"]


class InvalidOptions(ValueError):
    """The values of a trial are not accepted as options of a run."""


def parse_or_raise(parse: ParseOptions, flags: Sequence[str]) -> Options:
    """Parse the options of a run with further flags.

    Args:
        parse: Function from further flags to the options of a run.
        flags: The flags.

    Raises:
        InvalidOptions: If the options are not accepted, with the reason.
    """
    with redirect_stderr(StringIO()) as stderr:
        try:
            return parse(flags)
        except SystemExit as error:
            line = next(iter(stderr.getvalue().strip().splitlines()[-1:]), "")
            reason = line.partition("error: ")[2] or line
            raise InvalidOptions(f"{' '.join(flags[:2])}: {reason}") from error


def train_and_evaluate(trial: Trial, options: Options, objective: str, prune: bool) -> float:
    """Train with the options of a trial and compute the objective on the held-out rows.

    An interrupted run resumes from its last checkpoint.

    Args:
        trial: The Optuna trial.
        options: Options of the run.
        objective: One of `align.tune.space.OBJECTIVES`.
        prune: Whether to stop a trial below the median.

    Returns:
        The objective.

    Raises:
        OSError: If a model does not exist.
        TrialPruned: If the trial is below the median at an evaluation.
        ValueError: If the data cannot be used, or the objective cannot be computed on them.
    """
    run = TrainingRun.from_options(options)
    if run.eval_features is run.train_features:
        raise ValueError(
            "there are no held-out rows to compare trials on: give --eval_folds (but not the test "
            "fold) or --eval_dataset"
        )
    if objective not in EMBED_METRICS and run.image_generator is None:
        raise ValueError(f"--objective {objective} needs --num_images above 0")
    run.extra_callbacks = [PruningCallback(run, trial, objective, prune)]
    run.train()
    metrics = run.evaluate()
    if objective not in metrics:
        raise ValueError(f"--objective {objective} needs an --image_classifier")
    for name in OBJECTIVES:
        if name in metrics:
            trial.set_user_attr(name, metrics[name].value)
    return metrics[objective].value


class PruningCallback(TrainerCallback):
    """Report each evaluation to Optuna, and prune trials below the median.

    Args:
        run: Run of the trial.
        trial: The Optuna trial.
        objective: Metric to report. For image metrics, which are computed after training only, it
            is the centered cosine.
        prune: Whether to stop the trial below the median of the others at the same epoch.
    """

    def __init__(self, run: TrainingRun, trial: Trial, objective: str, prune: bool) -> None:
        self._run, self._trial, self._prune = run, trial, prune
        self._metric = objective if objective in EMBED_METRICS else EMBED_METRICS[0]

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the metric of the epoch, computed as after training."""
        if args.eval_strategy != "epoch":
            return
        run, epoch = self._run, round(state.epoch)
        evaluator = AlignmentEvaluator.from_encoder(
            run.encoder, run.space, run.eval_features, run.record
        )
        value = evaluator.embed_metrics()[self._metric].value
        if epoch not in self._trial.study.trials[self._trial.number].intermediate_values:
            self._trial.report(value, epoch)  # a resumed run may evaluate twice
        if self._prune and state.global_step < state.max_steps and self._trial.should_prune():
            self._trial.set_user_attr("note", f"stopped after {epoch} epochs at {value:.4f}")
            raise optuna.TrialPruned
