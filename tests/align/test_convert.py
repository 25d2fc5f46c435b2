"""Conversion of audio2img checkpoints: the prompt embeds are the model's own output."""

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
    """A tiny model like audio2img's: two adapter layers to the text width, no extractor."""
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
def converted(published: Path, tiny_base: str) -> AudioPromptEncoder:
    return convert_w2v_bert(str(published), tiny_base)


def model_output(published: Path, wave: np.ndarray) -> torch.Tensor:
    """Return the model's output for a waveform, without a mask as in audio2img."""
    model = Wav2Vec2BertModel.from_pretrained(published).eval()
    inputs = SeamlessM4TFeatureExtractor()(wave, sampling_rate=RATE_W2V, return_tensors="pt")
    with torch.no_grad():
        return model(inputs["input_features"]).last_hidden_state


def noise(duration_s: float) -> np.ndarray:
    found = np.random.default_rng(1).standard_normal(int(duration_s * RATE_W2V))
    return (0.1 * found).astype(np.float32)


@pytest.mark.parametrize("duration_s", [3.75, 2.0])
def test_convert_keeps_the_model_output(
    duration_s: float, published: Path, converted: AudioPromptEncoder, tiny_base: str
) -> None:
    wave = noise(duration_s)
    wanted = model_output(published, wave)
    found = converted.encode(wave, sampling_rate=RATE_W2V).embeds
    count = wanted.shape[1]
    assert count == {3.75: 47, 2.0: 25}[duration_s]
    assert found.shape == (1, 77, WIDTH)
    # The processor adds noise, 48 dB below this waveform.
    assert (found[:, :count] - wanted).abs().mean() < 0.01
    torch.testing.assert_close(found[:, :count], wanted, atol=0.1, rtol=0.02)
    null = PromptSpace.from_pretrained(tiny_base).unconditional.embeds
    assert torch.equal(found[:, count:], null[:, count:])
    assert not torch.allclose(found[:, 0], null[:, 0], atol=0.1)


def test_convert_same_features_give_the_same_output(
    published: Path, converted: AudioPromptEncoder
) -> None:
    features = torch.from_numpy(converted.processor.extract_features(noise(3.75), RATE_W2V)[0])[
        None
    ]
    mask = torch.ones(features.shape[:2], dtype=torch.bool)
    model = Wav2Vec2BertModel.from_pretrained(published).eval()
    with torch.no_grad():
        wanted = model(features, attention_mask=mask.long()).last_hidden_state
        standardized = converted(features[:, None], mask[:, None])
        found = converted.head().to_prompt_embeds(standardized.embeds, standardized.pooled).embeds
    assert wanted.shape[1] == 47
    torch.testing.assert_close(found[:, :47], wanted, rtol=1e-4, atol=1e-5)


def test_convert_encodes_the_first_window_with_a_warning(converted: AudioPromptEncoder) -> None:
    wave = noise(6.0)
    with pytest.warns(AudioWarning, match="first 4 s"):
        found = converted.encode(wave, sampling_rate=RATE_W2V).embeds
    first = converted.encode(wave[: int(3.75 * RATE_W2V)], sampling_rate=RATE_W2V).embeds
    torch.testing.assert_close(found, first, rtol=1e-4, atol=1e-5)


def test_convert_command_writes_an_encoder(
    published: Path, converted: AudioPromptEncoder, tiny_base: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    main([str(published), "--base_model", tiny_base, "--output_dir", str(tmp_path)])
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
    first, second = (e.encode(wave, sampling_rate=RATE_W2V).embeds for e in (converted, loaded))
    torch.testing.assert_close(second, first, rtol=1e-4, atol=1e-5)


def test_convert_conditions_the_pipeline(converted: AudioPromptEncoder, tiny_base: str) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(tiny_base, text_encoder=None, tokenizer=None)
    pipeline.set_progress_bar_config(disable=True)
    images = [
        pipeline(
            **converted.encode_prompt(tone(frequency, 3.0, RATE_W2V), sampling_rate=RATE_W2V),
            num_inference_steps=2, output_type="np", generator=torch.Generator().manual_seed(0),
        ).images
        for frequency in (300, 3000)
    ]  # fmt: skip
    assert not np.array_equal(*images)


@pytest.mark.slow
def test_converted_encoder_can_be_trained(
    published: Path, converted: AudioPromptEncoder, tiny_base: str, sound_folder: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    converted.save_pretrained(tmp_path / "converted")
    line = [
        "--base_model", tiny_base, "--init_from", str(tmp_path / "converted"),
        "--dataset", str(sound_folder), "--train_backbone", "all",
        "--num_train_epochs", "10", "--learning_rate", "1e-3",
        "--retrieval_memory", "0", "--num_workers", "1", "--image_classifier", "none",
        "--num_images", "0", "--num_sheet_samples", "0",
        "--eval_strategy", "no", "--save_strategy", "epoch", "--logging_steps", "1",
        "--disable_tqdm", "true", "--use_cpu", "true", "--output_dir", str(tmp_path / "run"),
    ]  # fmt: skip
    opened = session(line)
    opened.train()
    kept, found = weights(tmp_path / "converted"), weights(tmp_path / "run")
    assert kept.keys() == found.keys()
    moved = {name for name in kept if not torch.equal(kept[name], found[name])}
    # All layers train, and the head gets statistics for the metrics.
    own = {n for n, _ in opened.encoder.named_parameters() if "masked_spec_embed" not in n}
    assert moved - own == {name for name in kept if name.endswith(("embeds_mean", "embeds_std"))}
    assert own < moved
    state = max((tmp_path / "run").glob("checkpoint-*/trainer_state.json"), key=os.path.getmtime)
    losses = [line["loss"] for line in json.loads(state.read_text())["log_history"]
              if "loss" in line]  # fmt: skip
    assert losses[-1] < 0.9 * losses[0]


@pytest.mark.slow
def test_converted_encoder_output_does_not_depend_on_statistics(
    converted: AudioPromptEncoder, tiny_base: str, sound_folder: Path, tmp_path: Path
) -> None:
    converted.save_pretrained(tmp_path / "converted")
    line = [
        "--init_from", str(tmp_path / "converted"), "--dataset", str(sound_folder),
        "--retrieval_memory_weight", "0.5",
        "--max_steps", "1", "--learning_rate", "0", "--train_backbone", "all", "--num_workers", "1",
        "--image_classifier", "none", "--num_images", "0", "--num_sheet_samples", "0",
        "--eval_strategy", "no",
        "--save_strategy", "no", "--disable_tqdm", "true", "--use_cpu", "true",
        "--output_dir", str(tmp_path / "run"),
    ]  # fmt: skip
    opened = session(line)
    opened.train()
    found = AudioPromptEncoder.from_pretrained(tmp_path / "run")
    retrieved = found.encode(tone(300, 3.0, RATE_W2V), sampling_rate=RATE_W2V).embeds
    found.set_retrieval_memory(None)
    before, after = (
        e.encode(tone(300, 3.0, RATE_W2V), sampling_rate=RATE_W2V).embeds
        for e in (converted, found)
    )
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(retrieved, after, atol=1e-2)
    # Relative to the mean of the captions; raw embeds of captions are very similar.
    space = PromptSpace.from_pretrained(tiny_base)
    captions = space.encode(["a low hum", "a tone", "a whistle"]).embeds
    centered = found.head().statistics().standardize(captions).flatten(1)
    raw = torch.nn.functional.cosine_similarity(captions[0].flatten(), captions[1].flatten(), dim=0)
    assert torch.nn.functional.cosine_similarity(centered[0], centered[1], dim=0) < raw - 0.2
    metrics = opened.evaluate()
    assert metrics["centered_cosine"].value != pytest.approx(metrics["cosine"].value, abs=1e-3)


def refusal(*arguments: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(list(arguments))
    return str(caught.value)


def test_convert_refuses_other_checkpoints(
    published: Path, tiny_base: str, tiny_clap: str, tiny_w2v_bert: str, tmp_path: Path
) -> None:
    rest = ("--base_model", tiny_base, "--output_dir", str(tmp_path / "out"))
    assert "is not a Wav2Vec2-BERT with adapter layers but clap" in refusal(tiny_clap, *rest)
    assert "is not a Wav2Vec2-BERT with adapter layers" in refusal(tiny_w2v_bert, *rest)
    assert "align.convert: " in refusal(str(tmp_path / "nowhere"), *rest)
    assert "10 s of audio are 125 tokens" in refusal(str(published), *rest, "--window_s", "10")
    assert "0.01 s of audio are 0 tokens" in refusal(str(published), *rest, "--window_s", "0.01")
    assert "a number of seconds, not nan" in refusal(str(published), *rest, "--window_s", "nan")
    (tmp_path / "file").write_text("")
    inside = ("--base_model", tiny_base, "--output_dir", str(tmp_path / "file"))
    assert "is a file: give a folder" in refusal(str(published), *inside)
    model = Wav2Vec2BertModel.from_pretrained(published, output_hidden_size=WIDTH + 8,
                                              ignore_mismatched_sizes=True)  # fmt: skip
    model.save_pretrained(tmp_path / "wide")
    assert f"tokens of width {WIDTH + 8} and the prompts of" in refusal(
        str(tmp_path / "wide"), *rest
    )
    assert not (tmp_path / "out").exists()
