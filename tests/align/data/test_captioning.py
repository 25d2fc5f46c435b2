"""Image captions: generated once by a tiny BLIP, and never in place of existing captions."""

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
from align.data import captioning
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
    """Untrained BLIP captioning model with its processor."""
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
    # The default initialization gives all images the same caption.
    for weights in model.parameters():
        torch.nn.init.normal_(weights, std=0.6)
    # Only words, so that captions are not empty.
    model.text_decoder.cls.predictions.bias.data[: -len(WORDS)] = -1e4
    model.save_pretrained(folder)
    size = {"height": 32, "width": 32}
    BlipProcessor(BlipImageProcessor(size=size), tokenizer).save_pretrained(folder)
    return str(folder)


def pairs(folder: Path, count: int = 4) -> Path:
    """Write audio files and images with matching names."""
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        soundfile.write(folder / f"s{i}.wav", tone(200 + 90 * i, 0.3), RATE)
        noise = rng.integers(0, 255, (40, 30, 3), np.uint8)
        end = ("png", "jpg")[i % 2]
        Image.fromarray(noise // (i + 1)).save(folder / "images" / f"s{i}.{end}")
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / CAPTIONS).open(newline="") as file:
        return list(csv.DictReader(file))


def test_find_pairs_by_stem(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "p", 2)
    soundfile.write(folder / "alone.wav", tone(300, 0.2), RATE)
    assert find_pairs(folder) == [
        Pair("s0.wav", "images/s0.png"), Pair("s1.wav", "images/s1.jpg"),
    ]  # fmt: skip


def test_caption_folder_captions_once(
    tmp_path: Path, tiny_blip: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = pairs(tmp_path / "p")
    main([str(folder), "--captioner", tiny_blip])
    assert "4 captions" in capsys.readouterr().out
    first = table(folder)
    assert [row["file_name"] for row in first] == [f"s{i}.wav" for i in range(4)]
    assert all(row["caption"] and row["captioner"] == tiny_blip for row in first)
    assert set(" ".join(row["caption"] for row in first).split()) <= set(WORDS) | {"[UNK]"}
    rows = load_rows(str(folder), "train")
    assert list(rows["caption"]) == [row["caption"] for row in first]
    assert list(rows["audio"]) == [str(folder / f"s{i}.wav") for i in range(4)]
    monkeypatch.setattr(captioning, "Captioner", None)  # the model must not be loaded again
    assert caption_folder(folder, tiny_blip) == 0
    assert table(folder) == first


def test_captioner_is_deterministic(tmp_path: Path, tiny_blip: str) -> None:
    folder = pairs(tmp_path / "p")
    images = [Image.open(path).convert("RGB") for path in sorted(folder.rglob("s*.[jp]*g"))]
    assert len(images) == 4
    blip = Captioner(tiny_blip)
    assert blip.captions(images) == blip.captions(images)
    assert len(set(blip.captions(images))) > 1  # captions depend on the image


def test_caption_folder_keeps_existing_captions(tmp_path: Path, tiny_blip: str) -> None:
    folder = pairs(tmp_path / "p")
    caption_folder(folder, tiny_blip)
    lines = (folder / CAPTIONS).read_text().splitlines()
    lines[2] = "s1.wav,images/s1.jpg,lines by a person,"
    kept = [*lines[:3], lines[4]]  # one caption is missing
    (folder / CAPTIONS).write_text("\n".join(kept) + "\n")
    assert caption_folder(folder, tiny_blip) == 1
    after = (folder / CAPTIONS).read_text().splitlines()
    assert after[:4] == kept and after[4].startswith("s2.wav,")


def test_metadata_captions_take_precedence(tmp_path: Path, tiny_blip: str) -> None:
    folder = pairs(tmp_path / "p")
    lines = [f"s{i}.wav,images/s{i}.{('png', 'jpg')[i % 2]},{'mine' if i == 2 else ''}"
             for i in range(4)]  # fmt: skip
    table_text = "\n".join(["file_name,image,caption", *lines]) + "\n"
    (folder / "metadata.csv").write_text(table_text)
    with pytest.raises(DataError, match=r"3 of 4 rows .* have no caption"):
        load_rows(str(folder), "train")
    rows = load_train_dataset(DataArguments(dataset=str(folder), captioner=tiny_blip))
    assert (folder / "metadata.csv").read_text() == table_text
    captions = {row["file_name"]: row["caption"] for row in table(folder)}
    assert set(captions) == {"s0.wav", "s1.wav", "s3.wav"}
    assert list(rows["caption"]) == [
        captions["s0.wav"],
        captions["s1.wav"],
        "mine",
        captions["s3.wav"],
    ]


def test_metadata_rows_with_unreadable_images_are_skipped(
    tmp_path: Path, tiny_blip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pairs(tmp_path / "p")
    (folder / "images" / "s3.jpg").write_text("not an image")
    lines = [f"s{i}.wav,images/s{i}.{('png', 'jpg')[i % 2]}" for i in range(4)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,image", *lines]) + "\n")
    data = DataArguments(dataset=str(folder), captioner=tiny_blip)
    for row in (4, 1):  # among the uncaptioned rows, before and after the others were captioned
        rows = load_train_dataset(data)
        assert [Path(path).name for path in rows["audio"]] == ["s0.wav", "s1.wav", "s2.wav"]
        out = capsys.readouterr().out
        assert f"skipped: row {row}: images/s3.jpg" in out
        assert "1 of 4 rows have an empty caption" in out
    assert len(table(folder)) == 4
    shutil.copy(folder / "images" / "s1.jpg", folder / "images" / "s3.jpg")
    assert len(load_train_dataset(data)) == 4
    assert "skipped" not in capsys.readouterr().out


def test_captions_csv_without_captioner_is_plain_table(tmp_path: Path) -> None:
    folder = pairs(tmp_path / "p")
    lines = [f"s{i}.wav,{'' if i == 3 else 'rain'}" for i in range(4)]
    (folder / CAPTIONS).write_text("\n".join(["file_name,text", *lines]) + "\n")
    with pytest.raises(DataError, match="no column caption; it has: file_name, text"):
        load_rows(str(folder), "train")
    with pytest.raises(DataError, match=r"1 of 4 rows .* have no caption"):
        load_rows(str(folder), "train", caption_column="text")


def test_caption_folder_unreadable_images(
    tmp_path: Path, tiny_blip: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pairs(tmp_path / "p")
    (folder / "images" / "s3.jpg").write_text("not an image")
    assert caption_folder(folder, tiny_blip) == 3
    assert "skipped: row 4: images/s3.jpg" in capsys.readouterr().out
    assert len(load_rows(str(folder), "train")) == 3
    assert "1 of 4 rows have an empty caption" in capsys.readouterr().out
    assert caption_folder(folder, "no captioner is needed") == 0
    assert "skipped: row 1: images/s3.jpg" in capsys.readouterr().out
    (folder / CAPTIONS).unlink()
    (folder / "images" / "s0.png").write_bytes(b"")
    with pytest.raises(DataError, match="2 of 4 images cannot be used"):
        caption_folder(folder, tiny_blip)


def test_folder_of_pairs_trains(
    tmp_path: Path, tiny_base: str, tiny_clap: str, tiny_blip: str
) -> None:
    from tests.helpers.launches import command

    folder = pairs(tmp_path / "p")
    line = command(tiny_base, tiny_clap, folder, tmp_path / "run", "--captioner", tiny_blip)
    opened = session(line)
    assert len(opened.train_features) == 4
    assert opened.train_features.captions == [row["caption"] for row in table(folder)]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no audio file and image with the same name"),
        (lambda folder: (folder / "metadata.csv").write_text("file_name,text\na,b\n"),
         "no column image"),
        (lambda folder: (pairs(folder / "p"), (folder / "p").rename(folder / "q"),
                         (folder / CAPTIONS).write_text("x,y\n1,2\n")), "must have the columns"),
    ],
)  # fmt: skip
def test_caption_invalid_folder_exits(tmp_path: Path, make: object, message: str) -> None:
    make(tmp_path)  # type: ignore[operator]
    with pytest.raises(SystemExit, match=message) as caught:
        main([str(tmp_path)])
    assert "\n" not in str(caught.value)


def test_caption_missing_model_exits(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"align\.caption: .*nowhere"):
        main([str(pairs(tmp_path / "p")), "--captioner", "/nowhere"])
