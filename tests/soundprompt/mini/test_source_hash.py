"""Hashes of the generators: caches of other versions are not used."""

from __future__ import annotations

import numpy as np
import pytest

from align.preprocessing.fingerprint import audio_fingerprint
from soundprompt.mini.dataset import mixtures, pairs, singles
from soundprompt.mini.scenes import scenes
from soundprompt.mini.source_hash import source_hash


def test_source_hash_depends_on_the_source(tmp_path, monkeypatch):
    (tmp_path / "sounds").mkdir()
    for name in ("sounds/dog.py", "sounds/sea.py", "world.py"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr("soundprompt.mini.source_hash.__file__", str(tmp_path / "source_hash.py"))

    def fresh_hash(*parts):
        source_hash.cache_clear()
        return source_hash(*parts)

    before = fresh_hash("sounds"), fresh_hash("world"), fresh_hash("sounds", "world")
    assert len(set(before)) == 3 and before[0] == fresh_hash("sounds")
    (tmp_path / "sounds" / "sea.py").write_text("louder")
    assert fresh_hash("sounds") != before[0] and fresh_hash("world") == before[1]
    assert fresh_hash("sounds", "world") != before[2]
    with pytest.raises(FileNotFoundError, match="absent"):
        fresh_hash("absent")
    source_hash.cache_clear()


@pytest.mark.parametrize("load", [singles, mixtures, pairs, scenes])
def test_fingerprint_depends_on_the_generators(load, monkeypatch):
    before = audio_fingerprint(load("test", 4))
    assert audio_fingerprint(load("test", 4)) == before
    for module in ("soundprompt.mini.dataset", "soundprompt.mini.scenes"):
        monkeypatch.setattr(f"{module}.source_hash", lambda *_: "another")
    assert audio_fingerprint(load("test", 4)) != before


def test_image_pool_is_rendered_for_every_version(tmp_path, monkeypatch):
    from soundprompt.mini.build import samples

    pools = [samples.image_pool(tmp_path, 2) for _ in range(2)]
    assert len(list(tmp_path.glob("pool-*.npz"))) == 1 and pools[0][0] == pools[1][0]
    monkeypatch.setattr(samples, "source_hash", lambda *_: "another")
    samples.image_pool(tmp_path, 2)
    assert len(list(tmp_path.glob("pool-*.npz"))) == 2


def test_feature_pool_is_computed_for_every_version(tmp_path, monkeypatch):
    from soundprompt.mini.build import features

    def write_chunk(processors, start, path):
        np.savez(path, clap=np.zeros((1, 2, 3)), near=[start], far=[start])

    monkeypatch.setattr(features, "NUM_CLIPS", 2 * features.CHUNK)
    monkeypatch.setattr(features, "_write_chunk", write_chunk)

    def files():
        assert len(features.AudioFeaturePool.load(tmp_path, {}, "clap").near) == 2
        return len(list(tmp_path.iterdir()))

    assert files() == files() == 2
    monkeypatch.setattr(features, "source_hash", lambda *_: "another")
    assert files() == 4
    monkeypatch.setattr(features, "CACHE_VERSION", -1)  # of features
    assert files() == 6
