"""Audio-image pairs: loading, preprocessing and sampling."""

from __future__ import annotations

import copy
import io
import operator
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from align.data.errors import DataError
from align.preprocessing.cache import Cache
from diffuse.data.images import ImageError, crop_square, make_crops, open_image
from diffuse.data.pairs import AudioImagePairs, load_pairs
from diffuse.data.preprocessing import (
    ImageCrops,
    PairPreprocessor,
    PairReader,
    PreprocessedPairs,
    pairs_fingerprint,
)
from diffuse.data.sources import MISSING, UNPAIRED_AUDIO, UNPAIRED_IMAGE, ColumnNames
from diffuse.data.text_embeds import TextEmbeds
from diffuse.data.vggsound import DUPLICATE
from diffuse.training.datasets import (
    AudioImageDataset,
    BalancedSampler,
    ConditioningDropout,
    collate,
)
from tests.conftest import RATE, tone


def wav(path: Path, frequency: float = 300.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(frequency), RATE)


def image_file(path: Path, color: str = "red", size: tuple[int, int] = (40, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


@pytest.fixture
def paired(tmp_path: Path) -> Path:
    """Three pairs in two classes, captions of one, and four unpaired or duplicate files."""
    for i, (name, label) in enumerate((("a", "low"), ("b", "low"), ("c", "high"))):
        wav(tmp_path / label / f"{name}.wav", 200 + 300 * i)
        image_file(tmp_path / "images" / f"{name}.png")
    (tmp_path / "low" / "a.txt").write_text("a low hum\na deep tone\n")
    wav(tmp_path / "low" / "alone.wav")
    image_file(tmp_path / "images" / "lonely.jpg")
    image_file(tmp_path / "images" / "c.jpeg")
    return tmp_path


def test_pairing_by_base_name(paired: Path) -> None:
    pairs = load_pairs(str(paired), "train")
    found = [(Path(r["audio"]).name, Path(r["image"]).name) for r in pairs.rows]
    assert sorted(found) == [("a.wav", "a.png"), ("b.wav", "b.png"), ("c.wav", "c.jpeg")]
    by_name = dict(zip([name for name, _ in found], range(3), strict=True))
    assert pairs.captions[by_name["a.wav"]] == ["a low hum", "a deep tone"]
    assert pairs.captions[by_name["b.wav"]] == [""]
    assert Counter(pairs.labels) == {"low": 2, "high": 1}


def test_skipped_files_are_reported(paired: Path) -> None:
    pairs = load_pairs(str(paired), "train")
    assert pairs.skipped == {
        DUPLICATE: ["c.png (duplicate of c.jpeg)"],
        UNPAIRED_AUDIO: ["low/alone.wav"],
        UNPAIRED_IMAGE: ["images/lonely.jpg"],
    }
    report = pairs.summary()
    assert "3 pairs of 2 classes" in report
    assert "1 audio files without an image: low/alone.wav" in report


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_metadata_table(tmp_path: Path, kind: str) -> None:
    for name in "ab":
        wav(tmp_path / f"{name}.wav")
        image_file(tmp_path / f"{name}.png")
    rows = [("a.wav", "a.png", "one"), ("b.wav", "b.png", "two"), ("a.wav", "b.png", "three"),
            ("a.wav", "a.png", "one again"), ("gone.wav", "a.png", "four")]  # fmt: skip
    if kind == "csv":
        lines = ["file_name,image,caption,fold"] + [
            ",".join([*row, str(1 + i % 2)]) for i, row in enumerate(rows)
        ]
    else:
        lines = [
            f'{{"file_name": "{a}", "image": "{b}", "caption": "{c}", "fold": {1 + i % 2}}}'
            for i, (a, b, c) in enumerate(rows)
        ]
    (tmp_path / f"metadata.{kind}").write_text("\n".join(lines) + "\n")
    pairs = load_pairs(str(tmp_path), "train")
    assert pairs.captions == [["one"], ["two"], ["three"]]
    assert pairs.skipped == {MISSING: ["gone.wav"], DUPLICATE: ["a.wav with a.png"]}
    assert pairs.rows[2]["audio"] == str(tmp_path / "a.wav")
    assert load_pairs(str(tmp_path), "train", folds=[2]).captions == [["two"]]
    with pytest.raises(DataError, match="no fold 9"):
        load_pairs(str(tmp_path), "train", folds=[9])
    with pytest.raises(DataError, match="has no column picture; it has: "):
        load_pairs(str(tmp_path), "train", columns=ColumnNames(image="picture"))


def test_parquet_with_audio_and_images(tmp_path: Path) -> None:
    from datasets import Dataset

    wav_bytes, image = io.BytesIO(), io.BytesIO()
    soundfile.write(wav_bytes, tone(300), RATE, format="WAV")
    Image.new("RGB", (30, 30), "blue").save(image, "PNG")
    row = {"bytes": wav_bytes.getvalue(), "path": "x.wav"}
    rows = {"audio": [row] * 2, "image": [{"bytes": image.getvalue(), "path": None}] * 2}
    Dataset.from_dict({**rows, "caption": ["a hum", "a tone"]}).to_parquet(tmp_path / "0.parquet")
    pairs = load_pairs(str(tmp_path), "train")
    assert pairs.captions == [["a hum"], ["a tone"]]
    assert open_image(pairs.rows[0]["image"]).getpixel((0, 0)) == (0, 0, 255)
    assert pairs.rows[1]["audio"]["bytes"] == wav_bytes.getvalue()


def video(path: Path) -> None:
    """Write three seconds of video: a tone, and frames that turn from black to white."""
    import av

    with av.open(str(path), "w") as container:
        frames = container.add_stream("mpeg4", rate=10)
        frames.width, frames.height, frames.pix_fmt = 32, 32, "yuv420p"
        track = container.add_stream("aac", rate=RATE)
        for i in range(30):
            shade = np.full((32, 32, 3), 0 if i < 12 else 255, np.uint8)
            container.mux(frames.encode(av.VideoFrame.from_ndarray(shade, "rgb24")))
        samples = (tone(440, 3.0)[None] * 32767).astype(np.int16)
        audio = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        audio.sample_rate = RATE
        container.mux(track.encode(audio))
        for stream in (frames, track):
            container.mux(stream.encode())


def test_vggsound_list_with_local_videos(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    video(videos / "abc_000030.mp4")
    lines = ["abc,30,dog barking,train", "abc,30,dog barking,train", "xyz,5,rain,train",
             "abc,30,dog barking,test"]  # fmt: skip
    listed = tmp_path / "vggsound.csv"
    listed.write_text("\n".join(lines) + "\n")
    pairs = load_pairs(str(listed), "train", video_dir=str(videos))
    assert pairs.captions == [["dog barking"]] and pairs.labels == ["dog barking"]
    assert sorted(len(names) for names in pairs.skipped.values()) == [1, 1]
    row = pairs.rows[0]
    assert len(row["audio"]["array"]) > RATE and np.abs(row["audio"]["array"]).max() > 0.1
    assert min(open_image(row["image"]).getpixel((16, 16))) > 200  # the frame at five seconds
    with pytest.raises(DataError, match="give their folder as --video_dir"):
        load_pairs(str(listed), "train")
    listed.write_text("not,a,list\n")
    with pytest.raises(DataError, match="not a VGGSound list"):
        load_pairs(str(listed), "train", video_dir=str(videos))


def test_mini_pairs_match_the_image_classifier() -> None:
    from soundprompt.mini.dataset import pairs as made
    from soundprompt.mini.image_classifier import load_image_classifier

    rows = made("test", 30)
    found = [rows[i] for i in range(0, 30, 3)]
    predictions = load_image_classifier().classify([row["image"] for row in found])
    assert len(predictions) == 10
    for prediction, row in zip(predictions, found, strict=True):
        assert prediction.near == row["near"] and prediction.scene == row["scene"]
    assert {bool(row["far"]) for row in found} == {True, False}
    for row in found:
        assert all(row["near"].split()[-1] not in text for text in row["captions"][1:])
        assert row["prompt"] in row["captions"][1:]
        assert (row["background"] == "") == (row["far"] == "")
    with pytest.raises(ValueError, match="no split 'dev'"):
        made("dev")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda d: "no/such/data", "there is no dataset 'no/such/data'"),
        (lambda d: str(d), "has no audio-image pair"),
        (lambda d: "mini-retrieval", "audio without images"),
    ],
)
def test_invalid_dataset_raises(tmp_path: Path, make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_pairs(make(tmp_path), "train")
    assert "\n" not in str(caught.value)


def test_unreadable_table_raises(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(b"\x00\xff\x00")
    with pytest.raises(DataError, match=r"cannot be read as a table: .*(utf-8|decode)"):
        load_pairs(str(tmp_path), "train")


def test_crops_keep_the_aspect_ratio() -> None:
    wide = Image.new("RGB", (80, 40), "red")
    wide.paste((0, 0, 255), (40, 0, 80, 40))
    left, right = crop_square(wide, 20, (0.0, 0.5)), crop_square(wide, 20, (1.0, 0.5))
    assert left.size == right.size == (20, 20)
    assert left.getpixel((4, 10)) == (255, 0, 0) and right.getpixel((15, 10)) == (0, 0, 255)
    rng = np.random.default_rng(0)
    found = make_crops(wide, 20, 3, True, rng)
    assert len(found) == 6
    center, mirrored = np.asarray(found[0]), np.asarray(found[3])
    assert (center[:, ::-1] == mirrored).all() and not (center == mirrored).all()
    assert not (np.asarray(found[1]) == np.asarray(found[2])).all()


def test_open_image_modes_and_errors(tmp_path: Path) -> None:
    transparent = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    transparent.save(tmp_path / "clear.png")
    assert open_image(str(tmp_path / "clear.png")).getpixel((0, 0)) == (255, 255, 255)
    turned = Image.new("RGB", (8, 4))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert open_image(tmp_path / "turned.jpg").size == (4, 8)
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    data = (tmp_path / "turned.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(data[: len(data) - 60])
    for name in ("empty.png", "text.png", "cut.jpg", "missing.png"):
        with pytest.raises(ImageError, match=name) as caught:
            open_image(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_balanced_sampler_samples_classes_equally() -> None:
    labels = ["dog"] * 90 + ["rain"] * 9 + ["clock"] * 1
    plain, balanced = BalancedSampler(labels, 0), BalancedSampler(labels, 0, class_balanced=True)
    assert Counter(labels[row] for _, _, row in plain) == Counter(labels)
    sampled = list(balanced)
    assert len(sampled) == len(balanced) == 100
    assert sorted(Counter(labels[row] for _, _, row in sampled).values()) == [33, 33, 34]
    dogs = [row for _, _, row in sampled if labels[row] == "dog"]
    assert len(set(dogs)) == len(dogs), "no repetition before all rows are sampled"
    assert list(balanced) == sampled
    balanced.set_epoch(1)
    assert list(balanced) != sampled


def rows_of_two(
    dropout: ConditioningDropout, class_weighted: bool = False, n: int = 4
) -> AudioImageDataset:
    """Return four pairs of two clips, with texts whose embeds are constants."""
    from datasets import Dataset

    captions = [[f"text {i}", f"other {i}"] for i in range(n)]
    labels = ["dog"] * (n - 1) + ["rain"]
    scenes: Any = [None] * n
    phrases: Any = [
        {"foreground": f"text {i}", "background": "" if i % 2 else "other 0", "ambience": ""}
        for i in range(n)
    ]
    pairs = AudioImagePairs(
        Dataset.from_dict({"x": [0] * n}), captions, labels, phrases, [""] * n, scenes
    )
    prepared = PreprocessedPairs(
        latents=torch.arange(n * 2.0).view(n, 2, 1, 1, 1).expand(n, 2, 4, 2, 2).half(),
        audio_index=torch.arange(n) % 2,
        tokens=torch.ones(2, 3, 5).half() * torch.tensor([1.0, 2.0]).view(2, 1, 1).half(),
        mask=torch.ones(2, 3, dtype=torch.bool),
        embeds=torch.zeros(2, 7, 6).half(),
        kept=list(range(n)),
        unreadable=[],
    )
    texts = sorted({t for some in captions for t in some})
    table = torch.arange(1.0, len(texts) + 1).view(-1, 1, 1).expand(-1, 7, 6).half()
    text_embeds = TextEmbeds(
        table, None, (torch.zeros(7, 6), None), {t: i for i, t in enumerate(texts)}
    )
    targets = torch.zeros(n, 10, 6), torch.zeros(n, dtype=torch.bool)
    return AudioImageDataset(
        pairs, prepared, text_embeds, targets, dropout=dropout, num_train_timesteps=1000, seed=3,
        class_weighted=class_weighted,
    )  # fmt: skip


def test_item_is_deterministic() -> None:
    rows = rows_of_two(ConditioningDropout())
    first, again = rows[2, 5, 1], rows_of_two(ConditioningDropout())[2, 5, 1]
    assert first.keys() == again.keys() and len(first) > 10
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = rows[3, 5, 1]
    assert not torch.equal(other["noise"], first["noise"])
    batch = collate([rows[0], rows[1], rows[2]])
    assert batch["noise"].shape == (3, 4, 2, 2) and batch["tokens"][:, 0, 0].tolist() == [1, 2, 1]
    assert [rows[i]["timesteps"].item() for i in range(4)] == [125, 375, 625, 875]


def test_item_samples_all_captions_and_crops() -> None:
    rows = rows_of_two(ConditioningDropout())
    seen = [rows[epoch, 0, 0] for epoch in range(40)]
    assert len({item["prompt_embeds"][0, 0].item() for item in seen}) == 2
    assert {item["latents"][0, 0, 0].item() for item in seen} == {0.0, 1.0}


@pytest.mark.parametrize(
    ("dropout", "with_text", "with_audio", "with_neither"),
    [
        (ConditioningDropout(caption=0.3), 0.7, 1.0, 0.0),
        (ConditioningDropout(audio=0.3), 1.0, 0.7, 0.0),
        (ConditioningDropout(joint=0.3), 0.7, 0.7, 0.3),
        (ConditioningDropout(0.1, 0.2, 0.3), 0.6, 0.5, 0.3),
    ],
)
def test_dropout_probabilities(
    dropout: ConditioningDropout, with_text: float, with_audio: float, with_neither: float
) -> None:
    rows = rows_of_two(dropout)
    seen = [rows[epoch, 0, epoch % 4] for epoch in range(800)]
    text = np.array([bool(item["prompt_embeds"].abs().sum() > 0) for item in seen])
    audio = np.array([bool(item["keep_audio"]) for item in seen])
    assert text.mean() == pytest.approx(with_text, abs=0.06)
    assert audio.mean() == pytest.approx(with_audio, abs=0.06)
    assert (~text & ~audio).mean() == pytest.approx(with_neither, abs=0.06)


def test_background_prob_pairs_foreground_text_with_background_audio() -> None:
    rows = rows_of_two(ConditioningDropout(caption=0.5, audio=0.5, background=0.4))
    with_background = [rows[epoch, 0, 2] for epoch in range(400)]
    background_only = [item for item in with_background if item["background_only"]]
    assert len(background_only) / 400 == pytest.approx(0.4, abs=0.08)
    foreground = rows._texts.get("text 2")[0][0, 0]
    assert all(
        item["prompt_embeds"][0, 0] == foreground and item["keep_audio"] for item in background_only
    )
    assert not any(rows[epoch, 0, 1]["background_only"] for epoch in range(50)), (
        "the pair has no background"
    )
    assert not rows[2]["background_only"], "evaluation does not sample it"


def test_class_weighted_loss() -> None:
    assert {rows_of_two(ConditioningDropout())[i]["loss_weight"].item() for i in range(4)} == {1.0}
    weighted = rows_of_two(ConditioningDropout(), class_weighted=True)
    weights = [weighted[i]["loss_weight"].item() for i in range(4)]
    assert weights == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])


def test_fingerprint_depends_on_the_files(paired: Path) -> None:
    def fingerprint() -> str:
        return pairs_fingerprint(load_pairs(str(paired), "train").rows)

    first = fingerprint()
    (paired / "low" / "a.txt").write_text("captions do not matter\n")
    assert fingerprint() == first
    for path in (paired / "low" / "a.wav", paired / "images" / "b.png"):
        path.write_bytes(path.read_bytes() + b"\0\0")
        assert fingerprint() != first
        first = fingerprint()


def test_fingerprint_of_generated_pairs() -> None:
    from soundprompt.mini.dataset import pairs as made

    assert pairs_fingerprint(made("test", 5)) == pairs_fingerprint(made("test", 5))
    assert (
        len({pairs_fingerprint(made(*which)) for which in (("test", 5), ("test", 6), ("train", 5))})
        == 3
    )


def test_interrupted_preprocessing_resumes(
    paired: Path, tiny_base: str, tiny_encoder: Any, tmp_path_factory: Any,
    monkeypatch: pytest.MonkeyPatch, capsys: Any,
) -> None:  # fmt: skip
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(tiny_base, subfolder="vae")
    monkeypatch.setattr("diffuse.data.preprocessing.BLOCK_ROWS", 2)
    lines = ["file_name,image,caption"]
    for i, clip in enumerate(("low/a", "low/b", "low/a", "high/c", "low/b", "low/alone")):
        image_file(paired / f"p{i}.png", ("red", "blue")[i % 2], (48, 24))
        lines.append(f"{clip}.wav,p{i}.png,hum")
    (paired / "metadata.csv").write_text("\n".join(lines) + "\n")
    (paired / "p1.png").write_text("none")  # the clip of the fifth pair, too
    monkeypatch.setattr("align.data.errors.MAX_ERROR_RATE", 0.4)
    pairs, crops, cpu = (
        load_pairs(str(paired), "train"),
        ImageCrops(16, 1, True, 0),
        torch.device("cpu"),
    )
    whole = PairPreprocessor(vae, tiny_encoder, crops, cpu).preprocess(pairs, "pairs")
    assert whole.kept == [0, 2, 3, 5] and whole.audio_index.tolist() == [0, 0, 1, 2]
    assert [text.partition(":")[0] for text in whole.unreadable] == ["pair 2", "pair 5"]
    cache, read = Cache(tmp_path_factory.mktemp("cache")), []
    plain = PairReader.read

    def failing(self: PairReader, i: int) -> Any:
        read.append(i)
        if len(read) == 5:
            raise KeyboardInterrupt
        return plain(self, i)

    monkeypatch.setattr(PairReader, "read", failing)
    with pytest.raises(KeyboardInterrupt):
        PairPreprocessor(vae, tiny_encoder, crops, cpu, cache).preprocess(pairs, "pairs")
    assert read == [0, 0, 1, 2, 3]  # the first row is read twice, to estimate the size
    found = PairPreprocessor(vae, tiny_encoder, crops, cpu, cache).preprocess(pairs, "pairs")
    assert read[5:] == [0, 2, 3, 4, 5]
    assert "resuming after 2" in capsys.readouterr().out
    for name, value in vars(whole).items():
        same = torch.equal if isinstance(value, torch.Tensor) else operator.eq
        assert same(value, getattr(found, name)), name
    # The cache depends on the weights of the encoder.
    other = copy.deepcopy(tiny_encoder)
    with torch.no_grad():
        next(other.backbone.parameters()).view(-1)[7] += 1e-3
    PairPreprocessor(vae, other, crops, cpu, cache).preprocess(pairs, "pairs")
    assert len([path for path in cache.folder.iterdir() if path.is_dir()]) == 2


def test_preprocessing_is_cached(
    paired: Path, tiny_base: str, tiny_encoder: Any, tmp_path_factory: Any, capsys: Any
) -> None:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(tiny_base, subfolder="vae")
    # One clip in many pairs, and one unreadable image.
    lines = ["file_name,image,caption"]
    for i in range(40):
        image_file(paired / f"p{i}.png", ("red", "blue")[i % 2], (48, 24))
        lines.append(f"high/c.wav,p{i}.png,hum" if i else "low/a.wav,p0.png,tone")
    (paired / "p7.png").write_text("none")
    (paired / "metadata.csv").write_text("\n".join(lines) + "\n")
    pairs = load_pairs(str(paired), "train")
    cache = Cache(tmp_path_factory.mktemp("cache"))
    crops = ImageCrops(size=16, num_crops=1, mirror=True, seed=0)
    cpu = torch.device("cpu")
    prepared = PairPreprocessor(vae, tiny_encoder, crops, cpu, cache).preprocess(pairs, "pairs")
    assert prepared.latents.shape == (39, 2, 4, 8, 8)
    assert len(prepared.tokens) == 2 and prepared.audio_index.tolist() == [0] + [1] * 38
    assert 7 not in prepared.kept and "p7.png" in prepared.unreadable[0]
    printed = capsys.readouterr().out
    assert "skipped: pair 8" in printed and "pairs: about " in printed
    encoded = tiny_encoder.encode([str(paired / "high" / "c.wav")]).embeds[0]
    torch.testing.assert_close(prepared.embeds[1].float(), encoded, atol=1e-2, rtol=1e-2)
    image = crop_square(open_image(paired / "p0.png"), 16)
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        expected = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    torch.testing.assert_close(prepared.latents[0, :1].float(), expected, atol=5e-3, rtol=1e-2)
    again = PairPreprocessor(vae, tiny_encoder, crops, cpu, cache).preprocess(pairs, "pairs")
    assert torch.equal(again.latents, prepared.latents) and again.kept == prepared.kept
    assert "pairs: 40 from" in capsys.readouterr().out
    assert len(list(cache.folder.iterdir())) == 1
    for i in range(10):
        (paired / f"p{i}.png").write_text("none")
    with pytest.raises(DataError, match="3 of 40 pairs cannot be used, more than 5%; the first"):
        PairPreprocessor(vae, tiny_encoder, crops, cpu, cache).preprocess(
            load_pairs(str(paired), "train"), "pairs"
        )


def test_generated_captions_fill_missing_ones(paired: Path) -> None:
    lines = ["file_name,image,caption,captioner", "low/b.wav,images/b.png,a blue wall,blip",
             "low/a.wav,images/a.png,a red wall,blip"]  # fmt: skip
    (paired / "captions.csv").write_text("\n".join(lines) + "\n")
    pairs = load_pairs(str(paired), "train")
    names = [Path(path).name for path in pairs.rows["audio"]]
    found = dict(zip(names, pairs.captions, strict=True))
    assert found["a.wav"] == ["a low hum", "a deep tone"], "existing captions take precedence"
    assert found["b.wav"] == ["a blue wall"] and found["c.wav"] == [""]


def test_phrases_from_columns_or_caption(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav")
    image_file(tmp_path / "a.png")
    text = "a dog barking while rain falls in a street"
    (tmp_path / "metadata.csv").write_text(f"file_name,image,caption\na.wav,a.png,{text}\n")
    (phrases,) = load_pairs(str(tmp_path), "train").phrases
    assert phrases == {
        "foreground": "a dog barking", "background": "rain falls", "ambience": "in a street",
    }  # fmt: skip
    rows = "file_name,image,caption,foreground,background,ambience\na.wav,a.png,x,one,,two\n"
    (tmp_path / "metadata.csv").write_text(rows)
    (phrases,) = load_pairs(str(tmp_path), "train").phrases
    assert phrases == {"foreground": "one", "background": "", "ambience": "two"}
    (tmp_path / "metadata.csv").write_text("file_name,image\na.wav,a.png\n")
    assert load_pairs(str(tmp_path), "train").phrases == [None]
