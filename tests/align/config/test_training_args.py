"""Reporters are checked before a run starts."""

from __future__ import annotations

import pytest

from align import train
from align.config import training_args as reporting


def test_missing_reporter_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(reporting.PACKAGES, "tensorboard", ("no_such_package",))
    with pytest.raises(SystemExit):
        train.main(["--report_to", "tensorboard"])
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--report_to tensorboard needs a package that is not installed" in message


def test_one_of_several_packages_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reporting.PACKAGES, "tensorboard", ("no_such_package", "json"))
    reporting.check_reporters(["tensorboard", "none", "mlflow"])


def test_unknown_reporter_lists_the_known_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("tensorbord", "tensorboard,trackio"):
        with pytest.raises(SystemExit):
            train.main(["--report_to", name])
        message = " ".join(capsys.readouterr().err.split())
        assert f"--report_to {name}: there is no such reporter; there are: " in message
        assert "tensorboard, trackio, wandb" in message
