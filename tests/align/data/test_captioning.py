"""Captions of pictures: made once by a BLIP of the real classes, kept, never over a person's."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from align.caption import main
from align.config.arguments import DataArguments
from align.data import captioning as captioner
from align.data.captioning import Captioner, Pair, caption_folder, find_pairs
from align.data.errors import DataError
from align.data.loading import load_rows
from align.data.splits import load_train_dataset
from align.data.tables import CAPTIONS
from tests.conftest import RATE, tone
from tests.helpers.launches import session

WORDS = ["a", "dog", "rain", "sea", "at", "night", "by", "the", "of", "and", "on", "in", "with"]


@pytest.fixture(scope="module")
def tiny_blip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A BLIP that captions, with its processor, untrained."""
    import torch
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    vocab = {word: i for i, word in enumerate(words)}
    tokenizer = BertTokenizerFast(vocab=vocab, bos_token="[DEC]")
    text = {
        "vocab_size": len(words), "hidden_size": 32, "encoder_hidden_size": 32,
        "intermediate_size": 32, "projection_dim": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3,
        "pad_token_id": 0, "max_position_embeddings": 64,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 32, "projection_dim": 16, "num_hidden_layers": 2,
        "num_attention_heads": 2, "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    torch.manual_seed(1)
    config = BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    config.initializer_range = 1.0
    model = BlipForConditionalGeneration(config)
    for weights in model.parameters():  # untrained weights say the same of every picture
        torch.nn.init.normal_(weights, std=0.6)
    # Words only: what it says of a picture shall not be nothing.
    model.text_decoder.cls.predictions.bias.data[: -len(WORDS)] = -1e4
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    BlipProcessor(BlipImageProcessor(size=size), tokenizer).save_pretrained(folder)
    return str(folder)


def pairs(folder: Path, count: int = 4) -> Path:
    """Recordings and pictures of the same names."""
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        soundfile.write(folder / f"s{i}.wav", tone(200 + 90 * i, 0.3), RATE)
        noise = rng.integers(0, 255, (40, 30, 3), np.uint8)
        end = ("png", "jpg")[i % 2]
        Image.fromarray(noise // (i + 1)).save(folder / "pictures" / f"s{i}.{end}")
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / CAPTIONS).open(newline="") as file:
        return list(csv.DictReader(file))


def test_pairs_are_found_by_name(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "p", 2)
    soundfile.write(folder / "alone.wav", tone(300, 0.2), RATE)
    assert find_pairs(folder) == [
        Pair("s0.wav", "pictures/s0.png"), Pair("s1.wav", "pictures/s1.jpg"),
    ]  # fmt: skip


def test_captions_are_made_once(
    tmp_path: Path, tiny_blip: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = pairs(tmp_path / "p")
    main([str(folder), "--captioner", tiny_blip])
    assert "4 captions made" in capsys.readouterr().out
    first = table(folder)
    assert [row["file_name"] for row in first] == [f"s{i}.wav" for i in range(4)]
    assert all(row["caption"] and row["captioner"] == tiny_blip for row in first)
    assert set(" ".join(row["caption"] for row in first).split()) <= set(WORDS) | {"[UNK]"}
    rows = load_rows(str(folder), "train")
    assert list(rows["caption"]) == [row["caption"] for row in first]
    assert list(rows["audio"]) == [str(folder / f"s{i}.wav") for i in range(4)]
    monkeypatch.setattr(captioner, "Captioner", None)  # it cannot be loaded again
    assert caption_folder(folder, tiny_blip) == 0
    assert table(folder) == first


def test_the_same_picture_gets_the_same_caption(tmp_path: Path, tiny_blip: str) -> None:
    folder = pairs(tmp_path / "p")
    pictures = [Image.open(path).convert("RGB") for path in sorted(folder.rglob("s*.[jp]*g"))]
    assert len(pictures) == 4
    blip = Captioner(tiny_blip)
    assert blip.captions(pictures) == blip.captions(pictures)
    assert len(set(blip.captions(pictures))) > 1  # it does look at them


def test_what_people_wrote_stays(tmp_path: Path, tiny_blip: str) -> None:
    folder = pairs(tmp_path / "p")
    caption_folder(folder, tiny_blip)
    written = (folder / CAPTIONS).read_text().splitlines()
    written[2] = "s1.wav,pictures/s1.jpg,a person's own words,"
    kept = [*written[:3], written[4]]  # and one is missing
    (folder / CAPTIONS).write_text("\n".join(kept) + "\n")
    assert caption_folder(folder, tiny_blip) == 1
    after = (folder / CAPTIONS).read_text().splitlines()
    assert after[:4] == kept and after[4].startswith("s2.wav,")


def test_a_table_of_ones_own_goes_first(tmp_path: Path, tiny_blip: str) -> None:
    folder = pairs(tmp_path / "p")
    lines = [f"s{i}.wav,pictures/s{i}.{('png', 'jpg')[i % 2]},{'mine' if i == 2 else ''}"
             for i in range(4)]  # fmt: skip
    own = "\n".join(["file_name,image,caption", *lines]) + "\n"
    (folder / "metadata.csv").write_text(own)
    with pytest.raises(DataError, match=r"3 of 4 rows .* have no caption"):
        load_rows(str(folder), "train")
    rows = load_train_dataset(DataArguments(dataset=str(folder), captioner=tiny_blip))
    assert (folder / "metadata.csv").read_text() == own
    made = {row["file_name"]: row["caption"] for row in table(folder)}
    assert set(made) == {"s0.wav", "s1.wav", "s3.wav"}
    assert list(rows["caption"]) == [made["s0.wav"], made["s1.wav"], "mine", made["s3.wav"]]


def test_rows_of_pictures_that_cannot_be_read_are_left_out(
    tmp_path: Path, tiny_blip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pairs(tmp_path / "p")
    (folder / "pictures" / "s3.jpg").write_text("no picture")
    lines = [f"s{i}.wav,pictures/s{i}.{('png', 'jpg')[i % 2]}" for i in range(4)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,image", *lines]) + "\n")
    data = DataArguments(dataset=str(folder), captioner=tiny_blip)
    for row in (4, 1):  # of those without a caption, before and after the others have one
        rows = load_train_dataset(data)
        assert [Path(path).name for path in rows["audio"]] == ["s0.wav", "s1.wav", "s2.wav"]
        out = capsys.readouterr().out
        assert f"left out: row {row}: pictures/s3.jpg" in out
        assert "1 of 4 rows have an empty caption" in out
    assert len(table(folder)) == 4
    shutil.copy(folder / "pictures" / "s1.jpg", folder / "pictures" / "s3.jpg")
    assert len(load_train_dataset(data)) == 4  # mended
    assert "left out" not in capsys.readouterr().out


def test_a_table_called_captions_csv_is_read_as_any_other(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "p")
    lines = [f"s{i}.wav,{'' if i == 3 else 'rain'}" for i in range(4)]
    (folder / CAPTIONS).write_text("\n".join(["file_name,text", *lines]) + "\n")
    with pytest.raises(DataError, match="no column caption; it has: file_name, text"):
        load_rows(str(folder), "train")
    with pytest.raises(DataError, match=r"1 of 4 rows .* have no caption"):
        load_rows(str(folder), "train", caption_column="text")


def test_pictures_that_cannot_be_read(
    tmp_path: Path, tiny_blip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pairs(tmp_path / "p")
    (folder / "pictures" / "s3.jpg").write_text("no picture")
    assert caption_folder(folder, tiny_blip) == 3
    assert "left out: row 4: pictures/s3.jpg" in capsys.readouterr().out
    assert len(load_rows(str(folder), "train")) == 3
    assert "1 of 4 rows have an empty caption" in capsys.readouterr().out
    assert caption_folder(folder, "no captioner is needed") == 0
    assert "left out: row 1: pictures/s3.jpg" in capsys.readouterr().out
    (folder / CAPTIONS).unlink()
    (folder / "pictures" / "s0.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 4 pictures cannot be used"):
        caption_folder(folder, tiny_blip)


def test_a_pair_folder_trains(
    tmp_path: Path, tiny_base: str, tiny_clap: str, tiny_blip: str
) -> None:
    from tests.helpers.launches import command

    folder = pairs(tmp_path / "p")
    line = command(tiny_base, tiny_clap, folder, tmp_path / "run", "--captioner", tiny_blip)
    opened = session(line)
    assert len(opened.train_features) == 4
    assert opened.train_features.captions == [row["caption"] for row in table(folder)]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "no recording and picture of the same name"),
        (lambda folder: (folder / "metadata.csv").write_text("file_name,text\na,b\n"),
         "no column image"),
        (lambda folder: (pairs(folder / "p"), (folder / "p").rename(folder / "q"),
                         (folder / CAPTIONS).write_text("x,y\n1,2\n")), "has other columns"),
    ],
)  # fmt: skip
def test_folders_that_cannot_be_captioned(tmp_path: Path, make: object, said: str) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(SystemExit, match=said) as caught:
        main([str(tmp_path)])
    assert "\n" not in str(caught.value)


def test_no_such_captioner(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"align\.caption: .*nowhere"):
        main([str(pairs(tmp_path / "p")), "--captioner", "/nowhere"])
