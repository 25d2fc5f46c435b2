"""audio2img's checkpoints as encoders: the prompt is the model's own output."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertModel

from align.audio.files import AudioWarning
from align.convert import convert_w2v_bert, main
from align.models.encoder import AudioPromptEncoder
from align.prompts.space import PromptSpace
from tests.conftest import WIDTH, tone
from tests.helpers.launches import session, weights

RATE_W2V = 16_000


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model of audio2img's layout: two adapter layers, as wide as the text, no extractor."""
    folder = tmp_path_factory.mktemp("audio2img")
    torch.manual_seed(0)
    config = Wav2Vec2BertConfig(
        feature_projection_input_dim=160, hidden_size=24, output_hidden_size=WIDTH,
        num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        conv_depthwise_kernel_size=7, add_adapter=True, adapter_kernel_size=3, adapter_stride=2,
        num_adapter_layers=2, layerdrop=0.0,
    )  # fmt: skip
    Wav2Vec2BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def imported(published: Path, tiny_base: str) -> AudioPromptEncoder:
    return convert_w2v_bert(str(published), tiny_base)


def its_own(published: Path, wave: np.ndarray) -> torch.Tensor:
    """What the model itself answers to a waveform, asked as audio2img does: without a mask."""
    model = Wav2Vec2BertModel.from_pretrained(published).eval()
    inputs = SeamlessM4TFeatureExtractor()(wave, sampling_rate=RATE_W2V, return_tensors="pt")
    with torch.no_grad():
        return model(inputs["input_features"]).last_hidden_state


def noise(duration_s: float) -> np.ndarray:
    found = np.random.default_rng(1).standard_normal(int(duration_s * RATE_W2V))
    return (0.1 * found).astype(np.float32)


@pytest.mark.parametrize("duration_s", [3.75, 2.0])
def test_the_prompt_is_the_models_own_output(
    duration_s: float, published: Path, imported: AudioPromptEncoder, tiny_base: str
) -> None:
    wave = noise(duration_s)
    wanted = its_own(published, wave)
    found = imported.encode(wave, sampling_rate=RATE_W2V).embeds
    count = wanted.shape[1]
    assert count == {3.75: 47, 2.0: 25}[duration_s]
    assert found.shape == (1, 77, WIDTH)
    # Every waveform is heard in a fainter noise, 48 dB below this one.
    assert (found[:, :count] - wanted).abs().mean() < 0.01
    torch.testing.assert_close(found[:, :count], wanted, atol=0.1, rtol=0.02)
    null = PromptSpace.from_pretrained(tiny_base).unconditional.embeds
    assert torch.equal(found[:, count:], null[:, count:])
    assert not torch.allclose(found[:, 0], null[:, 0], atol=0.1)


def test_of_the_same_features_it_is_the_same_bit_for_bit(
    published: Path, imported: AudioPromptEncoder
) -> None:
    features = torch.from_numpy(imported.processor.extract_features(noise(3.75), RATE_W2V)[0])[None]
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    model = Wav2Vec2BertModel.from_pretrained(published).eval()
    with torch.no_grad():
        wanted = model(features, attention_mask=mask.long()).last_hidden_state
        standardised = imported(features[:, None], mask[:, None])
        found = imported.head().to_prompt_embeds(standardised.embeds, standardised.pooled).embeds
    assert wanted.shape[1] == 47
    assert torch.equal(found[:, :47], wanted)


def test_it_hears_the_first_window_and_says_so(imported: AudioPromptEncoder) -> None:
    wave = noise(6.0)
    with pytest.warns(AudioWarning, match="first 4 s"):
        found = imported.encode(wave, sampling_rate=RATE_W2V).embeds
    first = imported.encode(wave[: int(3.75 * RATE_W2V)], sampling_rate=RATE_W2V).embeds
    assert torch.equal(found, first)


def test_the_command_leaves_a_whole_encoder(
    published: Path, imported: AudioPromptEncoder, tiny_base: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    main([str(published), "--base_model", tiny_base, "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "no feature extractor: facebook/w2v-bert-2.0's settings are used" in printed
    assert f"The encoder is in {tmp_path}" in printed
    kept = set(load_file(tmp_path / "model.safetensors"))
    own = {f"backbone.model.{key}" for key in load_file(published / "model.safetensors")}
    assert own < kept
    head = {key.rpartition(".")[2] for key in kept - own}
    assert head == {
        "padding", "embeds_mean", "embeds_std", "embeds_constant", "embeds_unconditional",
    }  # fmt: skip
    loaded = AudioPromptEncoder.from_pretrained(tmp_path)
    assert (loaded.processor.window_s, loaded.processor.max_windows) == (3.75, 1)
    wave = tone(300, 3.0, RATE_W2V)
    first, second = (e.encode(wave, sampling_rate=RATE_W2V).embeds for e in (imported, loaded))
    assert torch.equal(first, second)


def test_it_drives_the_pipeline(imported: AudioPromptEncoder, tiny_base: str) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, text_encoder=None, tokenizer=None)
    pipeline.set_progress_bar_config(disable=True)
    pictures = [
        pipeline(
            **imported.encode_prompt(tone(frequency, 3.0, RATE_W2V), sampling_rate=RATE_W2V),
            num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(0),
        ).images
        for frequency in (300, 3000)
    ]  # fmt: skip
    assert not np.array_equal(*pictures)


@pytest.mark.slow
def test_it_is_trained_further(
    published: Path, imported: AudioPromptEncoder, tiny_base: str, sound_folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    imported.save_pretrained(tmp_path / "imported")
    line = [
        "--base_model", tiny_base, "--init_from", str(tmp_path / "imported"), "--dataset", str(sound_folder),
        "--train_backbone", "all", "--num_train_epochs", "10", "--learning_rate", "1e-3",
        "--retrieval_memory", "0", "--num_workers", "1", "--image_classifier", "none", "--num_images", "0", "--num_sheet_samples", "0",
        "--eval_strategy", "no", "--save_strategy", "epoch", "--logging_steps", "1",
        "--disable_tqdm", "true", "--use_cpu", "true", "--output_dir", str(tmp_path / "run"),
    ]  # fmt: skip
    opened = session(line)
    opened.train()
    kept, found = weights(tmp_path / "imported"), weights(tmp_path / "run")
    assert kept.keys() == found.keys()
    moved = {name for name in kept if not torch.equal(kept[name], found[name])}
    # The strided layers that make the prompt of it learn, and what measures it is told.
    own = {n for n, _ in opened.encoder.named_parameters() if "masked_spec_embed" not in n}
    assert moved - own == {name for name in kept if name.endswith(("embeds_mean", "embeds_std"))}
    assert own < moved
    state = max((tmp_path / "run").glob("checkpoint-*/trainer_state.json"), key=os.path.getmtime)
    losses = [line["loss"] for line in json.loads(state.read_text())["log_history"]
              if "loss" in line]  # fmt: skip
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
def test_what_measures_it_changes_no_answer_of_it(
    imported: AudioPromptEncoder, tiny_base: str, sound_folder: Path, tmp_path: Path
) -> None:
    imported.save_pretrained(tmp_path / "imported")
    line = [
        "--init_from", str(tmp_path / "imported"), "--dataset", str(sound_folder), "--retrieval_memory_weight", "0.5",
        "--max_steps", "1", "--learning_rate", "0", "--train_backbone", "all", "--num_workers", "1",
        "--image_classifier", "none", "--num_images", "0", "--num_sheet_samples", "0", "--eval_strategy", "no",
        "--save_strategy", "no", "--disable_tqdm", "true", "--use_cpu", "true",
        "--output_dir", str(tmp_path / "run"),
    ]  # fmt: skip
    opened = session(line)
    opened.train()
    found = AudioPromptEncoder.from_pretrained(tmp_path / "run")
    recalled = found.encode(tone(300, 3.0, RATE_W2V), sampling_rate=RATE_W2V).embeds
    found.set_retrieval_memory(None)
    before, after = (
        e.encode(tone(300, 3.0, RATE_W2V), sampling_rate=RATE_W2V).embeds for e in (imported, found)
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(recalled, after, atol=1e-2)
    # Measured from the captions' mean, as everywhere; raw embeds of captions are all alike.
    space = PromptSpace.from_pretrained(tiny_base)
    captions = space.encode(["a low hum", "a tone", "a whistle"]).embeds
    centred = found.head().statistics().standardize(captions).flatten(1)
    raw = torch.nn.functional.cosine_similarity(captions[0].flatten(), captions[1].flatten(), dim=0)
    assert torch.nn.functional.cosine_similarity(centred[0], centred[1], dim=0) < raw - 0.2
    figures = opened.evaluate()
    assert figures["centered_cosine"].value != pytest.approx(figures["cosine"].value, abs=1e-3)


def refusal(*arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return str(caught.value)


def test_what_does_not_fit_is_refused_by_name(
    published: Path, tiny_base: str, tiny_clap: str, tiny_w2v_bert: str, tmp_path: Path
) -> None:
    rest = ("--base_model", tiny_base, "--out", str(tmp_path / "out"))
    assert "is no Wav2Vec2-BERT with adapter layers but clap" in refusal(tiny_clap, *rest)
    assert "is no Wav2Vec2-BERT with adapter layers" in refusal(tiny_w2v_bert, *rest)
    assert "align.convert: " in refusal(str(tmp_path / "nowhere"), *rest)
    assert "10 s of sound are 125 tokens" in refusal(str(published), *rest, "--window_s", "10")
    assert "0.01 s of sound are 0 tokens" in refusal(str(published), *rest, "--window_s", "0.01")
    assert "a number of seconds, not nan" in refusal(str(published), *rest, "--window_s", "nan")
    (tmp_path / "file").write_text("")
    inside = ("--base_model", tiny_base, "--out", str(tmp_path / "file"))
    assert "is a file: give a folder" in refusal(str(published), *inside)
    model = Wav2Vec2BertModel.from_pretrained(published, output_hidden_size=WIDTH + 8,
                                              ignore_mismatched_sizes=True)  # fmt: skip
    model.save_pretrained(tmp_path / "wide")
    assert f"tokens {WIDTH + 8} wide and the prompts of" in refusal(str(tmp_path / "wide"), *rest)
    assert not (tmp_path / "out").exists()
