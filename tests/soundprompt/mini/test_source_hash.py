"""Versions of the miniature's generators: what was made by others is not taken for theirs."""

from __future__ import annotations

import numpy as np
import pytest

from align.preprocessing.fingerprint import audio_fingerprint
from soundprompt.mini.dataset import mixtures, pairs, singles
from soundprompt.mini.scenes import scenes
from soundprompt.mini.source_hash import source_hash


def test_a_version_follows_from_the_source(tmp_path, monkeypatch):
    (tmp_path / "sounds").mkdir()
    for name in ("sounds/dog.py", "sounds/sea.py", "world.py"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr("soundprompt.mini.source_hash.__file__", str(tmp_path / "version.py"))

    def told(*parts):
        source_hash.cache_clear()
        return source_hash(*parts)

    before = told("sounds"), told("world"), told("sounds", "world")
    assert len(set(before)) == 3 and before[0] == told("sounds")
    (tmp_path / "sounds" / "sea.py").write_text("louder")
    assert told("sounds") != before[0] and told("world") == before[1]
    assert told("sounds", "world") != before[2]
    with pytest.raises(FileNotFoundError, match="smells"):
        told("smells")
    source_hash.cache_clear()


@pytest.mark.parametrize("made", [singles, mixtures, pairs, scenes])
def test_recordings_of_other_generators_are_others(made, monkeypatch):
    before = audio_fingerprint(made("test", 4))
    assert audio_fingerprint(made("test", 4)) == before
    for module in ("soundprompt.mini.dataset", "soundprompt.mini.scenes"):
        monkeypatch.setattr(f"{module}.version", lambda *_: "another")
    assert audio_fingerprint(made("test", 4)) != before


def test_a_build_draws_a_pool_of_its_own_for_every_version(tmp_path, monkeypatch):
    from soundprompt.mini.build import samples

    drawn = [samples.image_pool(tmp_path, 2) for _ in range(2)]
    assert len(list(tmp_path.glob("pool-*.npz"))) == 1 and drawn[0][0] == drawn[1][0]
    monkeypatch.setattr(samples, "source_hash", lambda *_: "another")
    samples.image_pool(tmp_path, 2)
    assert len(list(tmp_path.glob("pool-*.npz"))) == 2


def test_a_build_hears_anew_what_other_versions_made(tmp_path, monkeypatch):
    from soundprompt.mini.build import features as hearing

    def chunk(ears, start, path):
        np.savez(path, clap=np.zeros((1, 2, 3)), near=[start], far=[start])

    monkeypatch.setattr(hearing, "RECORDINGS", 2 * hearing.CHUNK)
    monkeypatch.setattr(hearing, "_chunk", chunk)

    def files():
        assert len(hearing.AudioFeaturePool.load(tmp_path, {}, "clap").near) == 2
        return len(list(tmp_path.iterdir()))

    assert files() == files() == 2
    monkeypatch.setattr(hearing, "source_hash", lambda *_: "another")
    assert files() == 4
    monkeypatch.setattr(hearing, "CACHE_VERSION", -1)  # of features
    assert files() == 6
