"""The console command and the public face of the package."""

from __future__ import annotations

import importlib
from importlib.util import find_spec

import pytest

import soundprompt
from soundprompt.__main__ import COMMANDS, SOURCES, main


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    for line in [], ["--help"]:
        main(line)
        out = capsys.readouterr().out
        assert all(f"  {name} " in out for name in COMMANDS)


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out.strip() == soundprompt.__version__


@pytest.mark.parametrize("name", COMMANDS)
def test_command_has_a_module_with_a_main(name: str) -> None:
    module = COMMANDS[name].module
    modules = [f"{module}.{source}" for source in SOURCES] if name == "collect" else [module]
    assert modules
    for one in modules:
        assert find_spec(one) is not None
        assert callable(importlib.import_module(one).main)


def test_command_is_given_the_rest_of_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr("diffuse.generate.main", given.append)
    main(["generate", "dog.wav", "--seed", "3"])
    monkeypatch.setattr("diffuse.collect.videos.main", given.append)
    main(["collect", "videos", "folder"])
    assert given == [["dog.wav", "--seed", "3"], ["folder"]]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["trian"], "there is no command 'trian'; did you mean train?"),
        (["xyz"], "there is no command 'xyz'; there are: train, train-unet"),
        (["collect", "jamedo"], "there is no source 'jamedo'; did you mean jamendo?"),
    ],
)
def test_unknown_command_is_refused(
    line: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line)
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_public_names_are_those_of_both_packages() -> None:
    for name in soundprompt.__all__:
        assert getattr(soundprompt, name) is not None
    assert set(soundprompt.__all__) <= set(dir(soundprompt))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = soundprompt.nothing
