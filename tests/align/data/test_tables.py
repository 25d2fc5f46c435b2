"""Tables as other programs write them: empty cells, separators, null-like words, row numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import soundfile
from datasets import Dataset, Value

from align.config.arguments import DataArguments
from align.data.columns import cell_to_text, cells_to_text
from align.data.errors import DataError
from align.data.loading import load_rows
from align.data.splits import load_extra_dataset
from align.data.streaming import load_stream
from align.data.tables import CAPTIONS
from align.models.backbones.loading import load_backbone
from align.models.processing import AudioProcessor
from align.preprocessing.features import extract_features
from align.preprocessing.fingerprint import audio_fingerprint
from tests.conftest import RATE, tone
from tests.helpers import hub_tables


def table(folder: Path, *lines: str, name: str = "metadata.csv") -> str:
    """Write a folder with a table and six audio files."""
    for i in range(6):
        soundfile.write(folder / f"{i}.wav", tone(200 + 90 * i, 0.2), RATE)
    (folder / name).write_text("\n".join(lines) + "\n")
    return str(folder)


def test_cell_to_text() -> None:
    cells = [3.0, 3, "3.0", 0.5, True, None, float("nan"), " ", "None", "nan"]
    assert [cell_to_text(cell) for cell in cells] == [
        "3", "3", "3.0", "0.5", "True", "", "", "", "None", "nan",
    ]  # fmt: skip
    rows = Dataset.from_dict({"fold": [1.0, None], "label": ["1.0", None], "size": [1.0, 2.0]})
    rows = cells_to_text(rows, ["fold", "label", "absent"])
    assert rows["fold"] == ["1", ""] and rows["label"] == ["1.0", None]
    assert rows.features["size"] == Value("float64")


def test_empty_cell_keeps_integer_columns(tmp_path: Path) -> None:
    lines = ("file_name,caption,fold,label", "0.wav,a hum,1,7", "1.wav,a buzz,,", "2.wav,sea,2,8")
    data = table(tmp_path, *lines)
    assert load_rows(data, "train")["label"] == ["7", "a buzz", "8"]
    assert load_rows(data, "train", folds=[2])["caption"] == ["sea"]
    with pytest.raises(DataError, match=r"has no fold 3; it has \['1', '2'\]"):
        load_rows(data, "train", folds=[1, 3])


def test_csv_cells_are_text(tmp_path: Path) -> None:
    lines = ("0.wav,a hum,007,1.0", "1.wav,true,1.0,2.0", "2.wav,sea,x,")
    rows = load_rows(table(tmp_path, "file_name,caption,label,fold", *lines), "train")
    assert rows["label"] == ["007", "1.0", "x"] and rows["caption"][1] == "true"
    kept = load_rows(str(tmp_path), "train", folds=[2])
    assert kept["caption"] == ["true"]


def test_csv_text_after_many_numbers(tmp_path: Path) -> None:
    lines = [f"{i % 6}.wav,sound {i},{i}" for i in range(10_500)]
    data = table(tmp_path, "file_name,caption,seconds", *lines, "0.wav,the last,NA")
    rows = load_rows(data, "train")
    assert len(rows) == 10_501 and rows["caption"][-1] == "the last"


@pytest.mark.parametrize("end", [".csv", ".tsv"])
def test_trailing_separator_is_ignored(tmp_path: Path, end: str) -> None:
    lines = ["file_name,caption,label", "0.wav,a hum,x,", '1.wav,"a buzz, a tone",,']
    lines = [line if end == ".csv" else line.replace(",", "\t") for line in lines]
    table(tmp_path, *lines, name=f"list{end}")
    rows = load_rows(str(tmp_path / f"list{end}"), "train")
    assert [Path(path).name for path in rows["audio"]] == ["0.wav", "1.wav"]
    assert rows["caption"][0] == "a hum"
    assert rows["caption"][1].replace("\t", ",") == "a buzz, a tone"


def test_null_like_words_are_text(tmp_path: Path) -> None:
    words = ["None", "NA", "null", "nan", "N/A"]
    lines = [f"{i}.wav,{word},{word}" for i, word in enumerate(words)]
    rows = load_rows(table(tmp_path, "file_name,caption,label", *lines), "train")
    assert list(rows["caption"]) == list(rows["label"]) == words


def test_empty_cells_are_missing(tmp_path: Path) -> None:
    lines = ("file_name,caption,label,licence,fold", '0.wav,a hum,"",,1', "1.wav,sea,x,cc0,")
    rows = load_rows(table(tmp_path, *lines), "train")
    assert rows["label"] == ["a hum", "x"] and rows["license"] == ["", "cc0"]


@pytest.mark.parametrize("streamed", [True, False])
def test_missing_label_column_raises(tmp_path: Path, streamed: bool) -> None:
    (tmp_path / "a").mkdir()
    data = table(tmp_path / "a", "file_name,caption,kind", "0.wav,a hum,x", "1.wav,sea,y")

    def load(name: str, **named: str) -> Any:
        return (load_stream if streamed else load_rows)(name, "train", **named)

    with pytest.raises(DataError, match=r"no column knid; it has: .*kind; .* --label_column$"):
        load(data, label_column="knid")
    found = load(data)
    assert list(found.labels if streamed else found["label"]) == ["a hum", "sea"]
    clips = f"audiocaps@{hub_tables.audiocaps(tmp_path / 'b')}"  # has no labels
    with pytest.raises(DataError, match=r"no column knid; .* --label_column$"):
        load(clips, label_column="knid")
    assert len(load(clips)) == 4
    # A dataset with a label column of its own ignores the option.
    own = f"esc50@{hub_tables.esc50(tmp_path / 'c')}"
    assert len(load(own, label_column="knid")) == 9


@pytest.fixture(scope="module")
def processor(tiny_clap: str) -> AudioProcessor:
    return AudioProcessor("clap_audio_model", load_backbone(tiny_clap)[1], 4)


def test_messages_use_source_row_numbers(
    tmp_path: Path, processor: AudioProcessor, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["0.wav,a hum,1,cc0", "1.wav,a buzz,2,cc0", "2.wav,a tone,2,by-nc",
             "1.wav,a buzz,2,cc0", "3.wav,rain,2,cc0", "4.wav,sea,2,cc0"]  # fmt: skip
    data = table(tmp_path, "file_name,caption,fold,licence", *lines)
    (tmp_path / "4.wav").write_text("not audio")
    rows = load_rows(data, "train", folds=[2], licenses=["cc0"])
    assert rows["row"] == [2, 5, 6]
    assert len(extract_features(processor, rows)) == 2
    assert "skipped: row 6: " in capsys.readouterr().out


def test_row_numbers_count_skipped_images(tmp_path: Path) -> None:
    data = table(tmp_path, "file_name,image", "0.wav,0.png", "1.wav,1.png", "2.wav,2.png")
    lines = ("0.wav,0.png,rain,blip", "1.wav,1.png,,", "2.wav,2.png,sea,blip")
    captions = "\n".join(("file_name,image,caption,captioner", *lines)) + "\n"
    (tmp_path / CAPTIONS).write_text(captions)
    assert load_rows(data, "train")["row"] == [1, 3]
    with pytest.raises(DataError, match=r"no column text; it has: file_name, image, caption;"):
        load_rows(data, "train", caption_column="text")
    (tmp_path / CAPTIONS).write_text(captions.replace("sea", '" "'))
    with pytest.raises(DataError, match=r"1 of 2 rows .* no caption, the first is row 3:"):
        load_rows(data, "train")


def test_fingerprint_ignores_row_numbers(tmp_path: Path) -> None:
    lines = ("file_name,caption", "2.wav,rain", "0.wav,a hum", "1.wav,sea")
    data = table(tmp_path, *lines)
    (tmp_path / "less.csv").write_text("\n".join((lines[0], *lines[2:])) + "\n")
    first, other = load_rows(str(tmp_path / "less.csv"), "train"), load_rows(data, "train")
    other = other.select([1, 2])
    assert list(first["row"]) != list(other["row"])
    assert audio_fingerprint(first) == audio_fingerprint(other)


def test_extra_dataset_uses_read_options(sound_folder: Path, tmp_path: Path) -> None:
    lines = ("file_name,text,license", f"{sound_folder / '0.wav'},a hum,cc0",
             f"{sound_folder / '1.wav'},a tone,cc-by")  # fmt: skip
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    given = {"extra_dataset": str(tmp_path), "caption_column": "text", "licenses": ["cc0"]}
    rows = load_extra_dataset(DataArguments(**given))
    assert rows is not None and list(rows["caption"]) == ["a hum"]
    assert load_extra_dataset(DataArguments()) is None
