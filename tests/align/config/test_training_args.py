"""What --report_to names is missed before a run starts, not after its features are computed."""

from __future__ import annotations

import pytest

from align import train
from align.config import training_args as reporting


def test_a_missing_tracker_is_said_at_the_door(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(reporting.PACKAGES, "tensorboard", ("no_such_package",))
    with pytest.raises(SystemExit):
        train.main(["--report_to", "tensorboard"])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "--report_to tensorboard needs a package that is not installed" in said


def test_one_of_several_packages_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(reporting.PACKAGES, "tensorboard", ("no_such_package", "json"))
    reporting.check_reporters(["tensorboard", "none", "mlflow"])


def test_what_nobody_knows_is_refused_with_what_there_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("tensorbord", "tensorboard,trackio"):
        with pytest.raises(SystemExit):
            train.main(["--report_to", name])
        said = " ".join(capsys.readouterr().err.split())
        assert f"--report_to {name}: there is no such reporter; there are: " in said
        assert "tensorboard, trackio, wandb" in said
