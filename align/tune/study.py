"""A study: trials of a training's options, kept by optuna where a kill does not lose them.

transformers' `Trainer.hyperparameter_search` varies what a Trainer is told alone. A trial here is
a whole run of `align.train`: its options are parsed as a command line's are, so whatever that
takes can be searched, and what it refuses is refused.
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
NAME = "align"  # of the one study in a store
PRUNER = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)


@dataclass
class TuningStudy:
    """A study in its folder; `open` makes or finds it, `run` goes on with it.

    Attributes:
        folder: of the study; each trial has a folder of its own in it.
        parse: the options of a run with further flags.
        space: what is searched.
        objective: one of `tune.OBJECTIVES`.
        prune: whether weak trials are stopped at an evaluation.
        study: optuna's.
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
        """The study of a folder, new where there is none.

        Raises:
            ValueError: the folder's study is of other options, or a range is refused.
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
        made = cls(folder, parse, space, objective, prune, study)
        own = current_values(space, options)
        if not study.trials and own is not None:
            study.enqueue_trial(own, user_attrs={"note": "the recipe's own values"})
        return made

    def run(self, n_trials: int) -> None:
        """Goes on until so many trials have ended.

        Raises:
            DataError: the data cannot be used.
            OSError: a model does not exist.
        """
        try:
            with FileLock(self.folder / LOCK, timeout=0):  # which a kill lets go
                while len(self.study.get_trials(states=ENDED)) < n_trials:
                    trial = self._next()
                    print(f"\ntrial {trial.number}: {_format_params(trial.params)}", flush=True)
                    self._run_trial(trial)
                    self._tidy()
                    self.write_table()
        except Timeout as error:
            raise ValueError(f"another process goes on with the study in {self.folder}") from error

    def best_trial(self) -> FrozenTrial:
        """The trial with the highest objective.

        Raises:
            ValueError: no trial was completed.
        """
        if not self.study.get_trials(states=(TrialState.COMPLETE,)):
            reasons = [str(t.user_attrs.get("note", "")) for t in self.study.trials]
            raise ValueError(f"no trial was completed: {next(filter(None, reasons[::-1]), '')}")
        return self.study.best_trial

    def trial_folder(self, number: int) -> Path:
        """Where a trial trains."""
        return self.folder / f"trial-{number}"

    def flags(self, values: dict[str, Any], folder: Path) -> list[str]:
        """The further flags of a run with a trial's values."""
        return [*as_flags(values), "--output_dir", str(folder)]

    def write_table(self) -> list[list[str]]:
        """Writes all trials to a CSV; the rows, its head the first."""
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
        """The trial that a killed process left, or a new one.

        Each has a sampler of its own seed, so that a study goes on as if never interrupted.
        """
        for left in self.study.get_trials(states=(TrialState.RUNNING,)):
            if set(left.params) == set(self.space):
                print(f"going on with trial {left.number}", flush=True)
                return Trial(self.study, left._trial_id)
            # Killed while its values were drawn: there is nothing to go on with.
            self.study.tell(left.number, state=TrialState.FAIL)
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
            if not self.study.get_trials(states=ENDED):  # nothing was lost: begin anew next time
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
        """Removes the folders of ended trials but the best one's, whose encoder stays."""
        done = self.study.get_trials(states=(TrialState.COMPLETE,))
        best = self.study.best_trial.number if done else None
        for trial in self.study.get_trials(states=ENDED):
            if trial.number != best:
                shutil.rmtree(self.trial_folder(trial.number), ignore_errors=True)


def _address(folder: Path) -> str:
    return f"sqlite:///{folder.resolve() / STORE}"


def _study_options(options: Options, space: SearchSpace, objective: str) -> dict[str, Any]:
    """What makes trials comparable, as JSON holds it."""
    from align.training.checkpoints import FREE, recorded_options

    parts = recorded_options(options)
    passes = {name: getattr(options.training, name) for name in ("num_train_epochs", "max_steps")}
    free = set(FREE) - {"eval_folds", "eval_dataset"}
    study_options = {
        name: value
        for part in ("model", "data", "loss", "memory", "augment", "training")
        for name, value in (parts[part] | (passes if part == "training" else {})).items()
        if name not in free
    }
    study_options |= {"space": {k: repr(v) for k, v in space.items()}, "objective": objective}
    return dict(json.loads(json.dumps(study_options)))


def _check_same(study: optuna.Study, folder: Path, study_options: dict[str, Any]) -> None:
    before = study.user_attrs.get("options")
    if before is None:
        study.set_user_attr("options", study_options)
        return
    # A study does not know options that are younger than it.
    both = [k for k in study_options if k in before]
    differ = [
        f"{k} was {before[k]!r} and is {study_options[k]!r}"
        for k in both
        if before[k] != study_options[k]
    ]
    if differ:
        raise ValueError(f"{folder} holds a study of other options ({'; '.join(differ)}): "
                         "give another --study_dir")  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _format_params(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


# From further flags, the options of a run.
ParseOptions = Callable[[Sequence[str]], "Options"]


class InvalidOptions(ValueError):
    """Options that do not go together, in a trial's choice of them."""


def parse_or_raise(parse: ParseOptions, flags: Sequence[str]) -> Options:
    """The options of a run with these flags.

    Raises:
        Contradiction: they are not accepted; with the reason as one sentence.
    """
    with redirect_stderr(StringIO()) as stderr:
        try:
            return parse(flags)
        except SystemExit as error:
            line = next(iter(stderr.getvalue().strip().splitlines()[-1:]), "")
            reason = line.partition("error: ")[2] or line
            raise InvalidOptions(f"{' '.join(flags[:2])}: {reason}") from error


def train_and_evaluate(trial: Trial, options: Options, objective: str, prune: bool) -> float:
    """Trains with the options of a trial and measures the objective on the held-out rows.

    A run that was killed goes on from its last checkpoint.

    Raises:
        OSError: a model does not exist.
        TrialPruned: it was weaker than the others were at an evaluation.
        ValueError: the data cannot be used, or the objective cannot be measured on them.
    """
    run = TrainingRun.from_options(options)
    if run.eval_features is run.train_features:
        raise ValueError(
            "nothing is held out to compare trials by: give --eval_folds (not the fold that the "
            "final figure is to come from) or --eval_dataset"
        )
    if objective not in EMBED_METRICS and run.image_generator is None:
        raise ValueError(f"--objective {objective} needs --num_images above 0")
    run.extra_callbacks = [PruningCallback(run, trial, objective, prune)]
    run.train()
    metrics = run.evaluate()
    if objective not in metrics:
        raise ValueError(f"--objective {objective} was not measured: it needs a --image_classifier")
    for name in OBJECTIVES:
        if name in metrics:
            trial.set_user_attr(name, metrics[name].value)
    return metrics[objective].value


class PruningCallback(TrainerCallback):
    """Reports each evaluation, and stops a trial that is weaker than the others were.

    Args:
        session: the trial's run.
        trial: optuna's.
        objective: what is reported; for pictures, that are drawn at the end alone, the cosine.
        prune: whether it may be stopped, by the median of the others after as many passes.
    """

    def __init__(self, run: TrainingRun, trial: Trial, objective: str, prune: bool) -> None:
        self._run, self._trial, self._prune = run, trial, prune
        self._metric = objective if objective in EMBED_METRICS else EMBED_METRICS[0]

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measured as at the end, so that the figures compare."""
        if args.eval_strategy != "epoch":
            return
        run, epoch = self._run, round(state.epoch)
        evaluator = AlignmentEvaluator.from_encoder(
            run.encoder, run.space, run.eval_features, run.record
        )
        value = evaluator.embed_metrics()[self._metric].value
        if epoch not in self._trial.study.trials[self._trial.number].intermediate_values:
            self._trial.report(value, epoch)  # a run that goes on may evaluate once more
        if self._prune and state.global_step < state.max_steps and self._trial.should_prune():
            self._trial.set_user_attr("note", f"stopped after {epoch} passes at {value:.4f}")
            raise optuna.TrialPruned
