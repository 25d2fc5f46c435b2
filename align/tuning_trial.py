"""One trial of a study: a whole training, watched at each of its evaluations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import Trial
from transformers import TrainerCallback

from align.examine import Examination
from align.session import Session
from align.tune import EMBEDS, OBJECTIVES

if TYPE_CHECKING:
    from align.train import Options

# From further flags, the options of a run.
Parser = Callable[[Sequence[str]], "Options"]


class Contradiction(ValueError):
    """Options that do not go together, in a trial's choice of them."""


def accepted(parse: Parser, flags: Sequence[str]) -> Options:
    """The options of a run with these flags.

    Raises:
        Contradiction: they are not accepted; with the reason as one sentence.
    """
    with redirect_stderr(StringIO()) as said:
        try:
            return parse(flags)
        except SystemExit as error:
            line = next(iter(said.getvalue().strip().splitlines()[-1:]), "")
            reason = line.partition("error: ")[2] or line
            raise Contradiction(f"{' '.join(flags[:2])}: {reason}") from error


def measured(trial: Trial, options: Options, objective: str, prune: bool) -> float:
    """Trains with the options of a trial and measures the objective on the held-out rows.

    A run that was killed goes on from its last checkpoint.

    Raises:
        OSError: a model does not exist.
        TrialPruned: it was weaker than the others were at an evaluation.
        ValueError: the data cannot be used, or the objective cannot be measured on them.
    """
    session = Session.open(options)
    if session.held_out is session.heard:
        raise ValueError(
            "nothing is held out to compare trials by: give --eval_folds (not the fold that the "
            "final figure is to come from) or --eval_data"
        )
    if objective not in EMBEDS and session.artist is None:
        raise ValueError(f"--objective {objective} needs --pictures above 0")
    session.watchers = [Reports(session, trial, objective, prune)]
    session.train()
    figures = session.measure()
    if objective not in figures:
        raise ValueError(f"--objective {objective} was not measured: it needs a --judge")
    for name in OBJECTIVES:
        if name in figures:
            trial.set_user_attr(name, figures[name].value)
    return figures[objective].value


class Reports(TrainerCallback):
    """Reports each evaluation, and stops a trial that is weaker than the others were.

    Args:
        session: the trial's run.
        trial: optuna's.
        objective: what is reported; for pictures, that are drawn at the end alone, the cosine.
        prune: whether it may be stopped, by the median of the others after as many passes.
    """

    def __init__(self, session: Session, trial: Trial, objective: str, prune: bool) -> None:
        self._session, self._trial, self._prune = session, trial, prune
        self._figure = objective if objective in EMBEDS else EMBEDS[0]

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Measured as at the end, so that the figures compare."""
        if args.eval_strategy != "epoch":
            return
        session, passes = self._session, round(state.epoch)
        seen = Examination.of(session.encoder, session.space, session.held_out, session.known)
        value = seen.embeds()[self._figure].value
        if passes not in self._trial.study.trials[self._trial.number].intermediate_values:
            self._trial.report(value, passes)  # a run that goes on may evaluate once more
        if self._prune and state.global_step < state.max_steps and self._trial.should_prune():
            self._trial.set_user_attr("note", f"stopped after {passes} passes at {value:.4f}")
            raise optuna.TrialPruned
