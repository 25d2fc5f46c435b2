"""Encoders to train: new ones, and trained ones with --init_from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from align.config.options import parse_options
from align.models.adapters import default_adapter_kwargs
from align.models.encoder import AudioPromptEncoder
from align.train import main
from align.training.validation import check_model
from tests.helpers.launches import command, session, weights

pytestmark = pytest.mark.slow  # trainings, or an app that is started

LEVELS = "adapter.level_weights"


@pytest.fixture(scope="module")
def first_stage(
    tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("stages") / "one"
    more = ("--adapter", "hierarchical", "--num_train_epochs", "1")
    session(command(tiny_base, tiny_clap, sound_folder, folder, *more)).train()
    return folder


def second(base: str, start: Path, data: Path, folder: Path, *more: str) -> list[str]:
    """Return the command line of a training with --init_from `start`."""
    line = command(base, "mini-clap", data, folder)
    own = {"--backbone", "--adapter_width", "--adapter_depth", "--adapter_heads"}
    pairs = list(zip(line[::2], line[1::2], strict=True))
    kept = [part for pair in pairs if pair[0] not in own for part in pair]
    return [*kept, "--init_from", str(start), "--num_train_epochs", "1", *more]


def test_saved_encoder_has_all_sizes(first_stage: Path) -> None:
    adapter = AudioPromptEncoder.from_pretrained(first_stage).config.adapter
    own = default_adapter_kwargs("hierarchical") | {
        "adapter_type": "hierarchical",
        "width": 16,
        "depth": 1,
        "heads": 2,
    }
    assert adapter == own


def test_init_from_is_not_overwritten(
    first_stage: Path, tiny_base: str, sound_folder: Path
) -> None:
    before = weights(first_stage)
    with pytest.raises(ValueError, match="would be overwritten: give another --output_dir"):
        session(second(tiny_base, first_stage, sound_folder, first_stage / "."))
    assert weights(first_stage).keys() == before.keys()


def test_second_stage_trains_level_weights_only(
    first_stage: Path, tiny_base: str, sound_folder: Path, tmp_path: Path
) -> None:
    line = second(tiny_base, first_stage, sound_folder, tmp_path)
    opened = session([*line, "--train_adapter", "level_weights"])
    inputs = {"tokens": torch.randn(1, 9, 32), "tokens_mask": torch.ones(1, 9, dtype=torch.bool)}
    encoder = opened.encoder.train()
    # Frozen modules have no dropout.
    assert torch.equal(encoder(**inputs).embeds, encoder(**inputs).embeds)
    opened.train()
    before, after = weights(first_stage), weights(tmp_path)
    assert before.keys() == after.keys()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert {name.rpartition("heads.")[2].partition(".adapter")[2] for name in moved} == {
        ".level_weights"
    }


def test_init_from_keeps_the_weights(
    first_stage: Path, tiny_base: str, sound_folder: Path, tmp_path: Path
) -> None:
    opened = session(second(tiny_base, first_stage, sound_folder, tmp_path))
    kept, loaded = weights(first_stage), opened.encoder.state_dict()
    assert [name for name in kept if not torch.equal(kept[name], loaded[name])] == []
    opened.train()
    changed = {n for n, v in weights(tmp_path).items() if not torch.equal(v, kept[n])}
    assert {name for name, _ in opened.encoder.head().adapter.named_parameters()} == {
        name.partition(".adapter.")[2] for name in changed
    }


def test_init_from_keeps_statistics_with_other_captions(
    first_stage: Path, tiny_base: str, sound_folder: Path, tmp_path: Path
) -> None:
    words = (sound_folder / "metadata.csv").read_text().replace("a low hum", "a very low dark hum")
    for file in sound_folder.glob("*.wav"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "metadata.csv").write_text(words)
    line = second(tiny_base, first_stage, tmp_path, tmp_path / "run", "--learning_rate", "0")
    session([*line, "--retrieval_memory", "0"]).train()
    before, after = weights(first_stage), weights(tmp_path / "run")
    kept = {name for name in before if ".retrieval_memory." not in name}
    assert sum(name.endswith(("mean", "std", "unconditional")) for name in kept) >= 3
    assert [name for name in kept if not torch.equal(before[name], after[name])] == []


def test_lora_with_init_from(
    first_stage: Path, tiny_base: str, sound_folder: Path, tmp_path: Path
) -> None:
    line = second(tiny_base, first_stage, sound_folder, tmp_path, "--train_backbone", "lora")
    session([*line, "--lora_rank", "2"]).train()
    before, after = weights(first_stage), weights(tmp_path)
    assert before.keys() == after.keys()
    moved = {n for n in after if n.startswith("backbone.") and not torch.equal(before[n], after[n])}
    assert moved
    assert {name.split(".")[-2] for name in moved} <= {"query", "key", "value"}


def refusal(capsys: pytest.CaptureFixture[str], *line: str) -> str:
    with pytest.raises(SystemExit):
        parse_options("align.train", line, check=check_model)
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (("--adapter", "linear", "--adapter_heads", "4"), "'--adapter_heads'; it has: none"),
        (("--adapter", "perceptron"), "there is no adapter 'perceptron'"),
        (("--adapter_tokens", "8"), "the resampler adapter has no option"),
        (("--adapter_width", "30"), "--adapter_width must be a multiple of --adapter_heads"),
        (("--train_adapter", "some"), "--train_adapter is all or level_weights, not 'some'"),
        (("--train_adapter", "level_weights"), "needs a trained encoder: --init_from"),
        (("--num_workers", "-1"), "--num_workers is at least 1, not -1"),
        (("--max_windows", "0"), "--max_windows is at least 1, not 0"),
        (("--num_images", "-1"), "--num_images is at least 0, not -1"),
        (("--num_inference_steps", "0"), "--num_inference_steps is at least 1, not 0"),
        (("--remove_unused_columns", "true"), "would remove the captions"),
        (("--push_to_hub", "true"), "upload the trained model with python -m align.push"),
        (("--label_smoothing_factor", "0.1"), "has no effect"),
        (("--neftune_noise_alpha", "5"), "has no effect"),
        (("--metric_for_best_model", "foo"), "is loss or centered_cosine, not 'foo'"),
        (("--time_mask_ratio", "0.2"), "has no effect: it needs --time_masks above 0"),
        (
            ("--mix_same_label_prob", "1.5"),
            "--mix_same_label_prob is a probability from 0 to 1, not 1.5",
        ),
        (("--time_shift", "-0.1"), "--time_shift is a fraction from 0 to 1, not -0.1"),
        (("--gain_db", "-3"), "--gain_db is 0 or more, not -3.0"),
        (("--init_from", "x", "--backbone", "y"), "--init_from brings its own backbone"),
        (
            ("--init_from", "x", "--adapter", "conv"),
            "--init_from brings its own adapter: leave --adapter",
        ),
        (("--init_from", "x", "--adapter_depth", "1"), "leave --adapter_depth out"),
        (("--init_from", "x", "--backbone_dropout", "0.1"), "leave --backbone_dropout out"),
        (("--init_from", "x", "--max_windows", "1"), "leave --max_windows out"),
        (("--init_from", "x", "--audio_tokens", "pooled"), "leave --audio_tokens out"),
    ],
)
def test_invalid_options_are_refused(
    line: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert expected in refusal(capsys, *line)


def test_unsuitable_encoder_is_refused(
    first_stage: Path, tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    session(
        [*command(tiny_base, tiny_clap, sound_folder, plain), "--num_train_epochs", "1"]
    ).train()
    stage = ("--train_adapter", "level_weights")
    for line, expected in (
        (second(tiny_base, plain, sound_folder, tmp_path / "o", *stage), "this one is resampler"),
        (second(tiny_base, tmp_path / "nowhere", sound_folder, tmp_path / "o"), "no trained"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(line)
        assert expected in str(caught.value)
