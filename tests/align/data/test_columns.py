"""Named Hub datasets read from local copies: captions, clips, licenses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset

from align.audio.waveform import read
from align.config.arguments import DataArguments
from align.data.errors import DataError
from align.data.licenses import license_family
from align.data.loading import load_rows
from align.data.splits import load_eval_dataset, load_train_dataset
from align.data.streaming import load_stream
from align.evaluation.evaluator import AlignmentEvaluator, retrieval_metrics
from align.hub.run_record import TrainingRecord
from align.models.encoder import AudioPromptEncoder
from align.preprocessing.audio_tokens import frozen_tokens
from align.preprocessing.features import extract_features
from align.prompts.space import PromptSpace
from tests.conftest import RATE, tone
from tests.helpers import hub_tables


def test_fsd50k_captions_come_from_labels(tmp_path: Path) -> None:
    copy = hub_tables.fsd50k(tmp_path)
    rows = load_rows(f"fsd50k@{copy}", "train")
    assert rows.column_names == ["audio", "caption", "label", "license", "row"]
    assert rows["caption"][:3] == ["bark, dog", "rain, water", "electric guitar, guitar"]
    assert rows["label"][:3] == ["bark, dog", "rain, water", "electric guitar, guitar"]
    assert set(rows[0]["audio"]) == {"bytes", "path"}
    assert len(read(rows[0]["audio"], RATE)) == round(0.3 * RATE)
    assert len(load_rows(f"fsd50k@{copy}", "test")) == 2
    templated = load_rows(f"fsd50k@{copy}", "train", caption_template="a recording of {}")
    assert templated["caption"][1] == "a recording of rain, water"


def test_label_does_not_depend_on_order(tmp_path: Path) -> None:
    for i, tags in enumerate(("Rain,Water", "Water,Rain", "Water")):
        soundfile.write(tmp_path / f"{i}.wav", tone(440, 0.2), RATE)
        with (tmp_path / "list.csv").open("a") as file:
            file.write(("file_name,tags\n" if not i else "") + f'{i}.wav,"{tags}"\n')
    columns = {"caption_column": "tags", "label_column": "tags", "caption_template": "{}"}
    rows = load_rows(str(tmp_path / "list.csv"), "train", **columns)
    assert rows["label"] == ["rain, water", "rain, water", "Water"]
    assert rows["caption"] == ["rain, water", "water, rain", "water"]
    # Generic labels are dropped from captions and must not change the label.
    with_generic = ["Rain", "Liquid", "Water"]
    lists = {"file_name": [f"{i}.wav" for i in range(2)], "tags": [with_generic, ["Water"]]}
    Dataset.from_dict(lists).to_json(tmp_path / "list.jsonl")
    rows = load_rows(str(tmp_path / "list.jsonl"), "train", **columns)
    assert rows["label"] == ["rain, water", "water"]


@pytest.mark.parametrize("streamed", [True, False])
def test_missing_column_names_option(tmp_path: Path, streamed: bool) -> None:
    """Columns of a copy or newer version of a named dataset may have other names."""
    columns = {"audio": [hub_tables.sound(i) for i in range(3)], "text": ["Rain", "Dog", "Bark"]}
    hub_tables.write(tmp_path, "train", columns, hub_tables.text("text"))

    def load(name: str, **named: str) -> Any:
        return (load_stream if streamed else load_rows)(name, "train", **named)

    name = f"fsd50k@{tmp_path}"
    message = r"no column labels; it has: audio, text; name the right one with --caption_column$"
    with pytest.raises(DataError, match=message):
        load(name)
    found = load(name, caption_column="text", label_column="text")
    captions = found.captions if streamed else found["caption"]
    assert captions == ["rain", "dog", "bark"]
    with pytest.raises(DataError, match=r"--audio_column and --caption_column$"):
        load(str(tmp_path), audio_column="sound")
    # Options do not replace columns that exist under their own names.
    name = f"audiocaps@{hub_tables.audiocaps(tmp_path / 'a')}"
    found = load(name, caption_column="youtube_id")
    captions = found.captions if streamed else found["caption"]
    assert captions[0] == "sound 0 in words 0"


def test_audiocaps_has_five_captions_a_clip_in_test(tmp_path: Path) -> None:
    copy = hub_tables.audiocaps(tmp_path)
    train, test = (load_rows(f"audiocaps@{copy}", split) for split in ("train", "test"))
    assert len(train) == len(set(train["label"])) == 4
    assert len(test) == len(set(test["caption"])) == 10
    assert [test["label"].count(name) for name in sorted(set(test["label"]))] == [5, 5]
    assert train["caption"][1] == "sound 1 in words 0" and train["label"][1] == "id1 30"


def test_clip_with_several_captions_counts_once(
    tmp_path: Path, tiny_encoder: AudioPromptEncoder, tiny_base: str
) -> None:
    rows = load_rows(f"audiocaps@{hub_tables.audiocaps(tmp_path)}", "test")
    order = [7, 0, 5, 1, 9, 2, 3, 8, 4, 6]  # shuffles the captions of both clips
    features = extract_features(tiny_encoder.processor, rows.select(order))
    encoded: list[int] = []
    hook = tiny_encoder.backbone.register_forward_pre_hook(
        lambda _, given, named: encoded.append(len((*given, *named.values())[0])), with_kwargs=True
    )
    try:
        tokens = frozen_tokens(tiny_encoder, features)
        evaluator = AlignmentEvaluator.from_encoder(
            tiny_encoder, PromptSpace.from_pretrained(tiny_base), features, TrainingRecord({})
        )
    finally:
        hook.remove()
    assert sum(encoded) == 1 + 2 + 2  # size estimate, tokens and predictions
    assert len(tokens) == 10 and len(tokens.store) == 2
    predicted = evaluator.predictions.embeds
    for i, row in enumerate(order):
        clip = [k for k, other in enumerate(order) if other // 5 == row // 5]
        assert all(torch.equal(predicted[i], predicted[k]) for k in clip) and len(clip) == 5
        assert np.array_equal(tokens[i][0], tokens[clip[0]][0])
    assert not torch.equal(predicted[0], predicted[1])
    found = retrieval_metrics(evaluator)
    assert found["audio_to_caption_R@1"].n == 2 and found["caption_to_audio_R@1"].n == 10
    assert found["audio_to_class_R@1"].n == 2
    assert evaluator.embed_metrics()["class_accuracy"].n == 2


def test_esc50_folds(tmp_path: Path) -> None:
    name = f"esc50@{hub_tables.esc50(tmp_path)}"
    rows = load_rows(name, "train", folds=[1, 2])
    assert rows["caption"] == ["dog", "sea waves", "crying baby"] * 2
    options = DataArguments(dataset=name, folds=[1, 2], eval_folds=[3])
    held_out, description = load_eval_dataset(options)
    assert held_out is not None and len(held_out) == 3 and description.endswith("folds 3")
    with pytest.raises(DataError, match="no test split, only folds"):
        load_eval_dataset(DataArguments(dataset=name))


def test_class_labels_become_captions(tmp_path: Path) -> None:
    copy = hub_tables.class_labels(tmp_path)
    rows = load_rows(copy, "train", caption_column="kind", label_column="kind")
    assert rows["caption"] == rows["label"] == ["dog", "sea waves", "crying baby", "dog"]
    with pytest.raises(DataError, match="has no split 'test'"):
        load_rows(copy, "test", caption_column="kind")
    with pytest.raises(DataError, match=r"no column caption; it has: audio, kind"):
        load_rows(copy, "train")


def test_load_rows_does_not_read_audio(tmp_path: Path) -> None:
    """Loading, selecting and fingerprinting rows never reads the audio bytes of all rows."""
    import pyarrow as pa

    from align.preprocessing.fingerprint import audio_fingerprint

    copy = hub_tables.audiocaps(tmp_path)
    load_rows(f"audiocaps@{copy}", "train")  # the first call writes the Arrow cache file
    before = pa.total_allocated_bytes()
    rows = load_rows(f"audiocaps@{copy}", "train").select([0, 2])
    audio_fingerprint(rows)
    sounds = sum(len(row["audio"]["bytes"]) for row in rows)
    assert pa.total_allocated_bytes() - before < sounds / 2


def test_load_rows_from_table_file(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(440, 0.2), RATE)
    (tmp_path / "list.tsv").write_text("file_name\tcaption\na.wav\ta hum, a buzz\n")
    (tmp_path / "list.csv").write_text('file_name,caption\na.wav,"a hum, a buzz"\n')
    for name in ("list.tsv", "list.csv"):
        rows = load_rows(str(tmp_path / name), "train")
        assert rows["audio"] == [str(tmp_path / "a.wav")]
        assert rows["caption"] == ["a hum, a buzz"]


def test_load_rows_filters_by_license(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"fsd50k@{hub_tables.fsd50k(tmp_path)}"
    rows = load_train_dataset(DataArguments(dataset=name, licenses=["CC-BY", "cc0"]))
    assert len(rows) == 4 and {license_family(text) for text in rows["license"]} == {"cc0", "cc-by"}
    out = capsys.readouterr().out
    assert "removed by license: 2 of 6 (cc-by-nc 2)" in out
    assert "licenses: cc0 2, cc-by 2" in out
    with pytest.raises(DataError, match=r"no row of .* has the license mit; it has: cc0 2"):
        load_rows(name, "train", licenses=["mit"])


def test_load_rows_without_license_column_raises(tmp_path: Path, sound_folder: Path) -> None:
    name = f"fsd50k@{hub_tables.fsd50k(tmp_path, licenses=False)}"
    for data in (name, str(sound_folder), "mini"):
        with pytest.raises(DataError, match="no license column to select cc0"):
            load_rows(data, "train", licenses=["cc0"])
    with pytest.raises(DataError, match="has no column terms"):
        load_rows(name, "train", license_column="terms")
