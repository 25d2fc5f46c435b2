"""What a training starts from: fresh encoders by their options, and trained ones gone on from."""

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
    """The line of a training that goes on from `start`."""
    line = command(base, "mini-clap", data, folder)
    own = {"--backbone", "--adapter_width", "--adapter_depth", "--adapter_heads"}
    pairs = list(zip(line[::2], line[1::2], strict=True))
    kept = [part for pair in pairs if pair[0] not in own for part in pair]
    return [*kept, "--init_from", str(start), "--num_train_epochs", "1", *more]


def test_a_saved_encoder_states_every_size(first_stage: Path) -> None:
    adapter = AudioPromptEncoder.from_pretrained(first_stage).config.adapter
    own = default_adapter_kwargs("hierarchical") | {
        "adapter_type": "hierarchical",
        "width": 16,
        "depth": 1,
        "heads": 2,
    }
    assert adapter == own


def test_an_encoder_is_not_overwritten_by_what_starts_from_it(
    first_stage: Path, tiny_base: str, sound_folder: Path
) -> None:
    before = weights(first_stage)
    with pytest.raises(ValueError, match="would be overwritten: give another --output_dir"):
        session(second(tiny_base, first_stage, sound_folder, first_stage / "."))
    assert weights(first_stage).keys() == before.keys()


def test_the_second_stage_trains_level_weights_alone(
    first_stage: Path, tiny_base: str, sound_folder: Path, tmp_path: Path
) -> None:
    line = second(tiny_base, first_stage, sound_folder, tmp_path)
    opened = session([*line, "--train_adapter", "level_weights"])
    heard = {"tokens": torch.randn(1, 9, 32), "tokens_mask": torch.ones(1, 9, dtype=torch.bool)}
    encoder = opened.encoder.train()
    # What is frozen drops nothing out.
    assert torch.equal(encoder(**heard).embeds, encoder(**heard).embeds)
    opened.train()
    before, after = weights(first_stage), weights(tmp_path)
    assert before.keys() == after.keys()
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert {name.rpartition("heads.")[2].partition(".adapter")[2] for name in moved} == {
        ".level_weights"
    }


def test_a_further_training_goes_on_from_the_first(
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


def test_what_an_encoder_answers_stays_its_own_where_it_learns_other_captions(
    first_stage: Path, tiny_base: str, sound_folder: Path, tmp_path: Path
) -> None:
    words = (sound_folder / "metadata.csv").read_text().replace("a low hum", "a very low dark hum")
    for file in sound_folder.glob("*.wav"):
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "metadata.csv").write_text(words)
    line = second(tiny_base, first_stage, tmp_path, tmp_path / "run", "--learning_rate", "0")
    session([*line, "--retrieval_memory", "0"]).train()
    before, after = weights(first_stage), weights(tmp_path / "run")
    kept = {name for name in before if ".recall." not in name}
    assert sum(name.endswith(("mean", "std", "unconditional")) for name in kept) >= 3
    assert [name for name in kept if not torch.equal(before[name], after[name])] == []


def test_lora_goes_into_a_trained_encoder_as_well(
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
    ("line", "said"),
    [
        (("--adapter", "linear", "--adapter_heads", "4"), "'--adapter_heads'; it has: none"),
        (("--adapter", "perceptron"), "there is no adapter 'perceptron'"),
        (("--adapter_tokens", "8"), "the resampler adapter has no option"),
        (("--adapter_width", "30"), "--adapter_width must be a multiple of --adapter_heads"),
        (("--train_adapter", "some"), "--train_adapter is all or level_weights, not 'some'"),
        (("--train_adapter", "level_weights"), "goes on from a trained one: --init_from"),
        (("--num_workers", "-1"), "--num_workers is at least 1, not -1"),
        (("--max_windows", "0"), "--max_windows is at least 1, not 0"),
        (("--num_images", "-1"), "--num_images is at least 0, not -1"),
        (("--num_inference_steps", "0"), "--num_inference_steps is at least 1, not 0"),
        (("--remove_unused_columns", "true"), "would take the captions away"),
        (("--push_to_hub", "true"), "publish what is trained with python -m align.publish"),
        (("--label_smoothing_factor", "0.1"), "does nothing in an alignment"),
        (("--neftune_noise_alpha", "5"), "does nothing in an alignment"),
        (("--metric_for_best_model", "foo"), "is loss or centered_cosine, not 'foo'"),
        (("--time_mask_ratio", "0.2"), "does nothing here: it needs --time_masks above 0"),
        (
            ("--mix_same_label_prob", "1.5"),
            "--mix_same_label_prob is a probability, 0 to 1, not 1.5",
        ),
        (("--time_shift", "-0.1"), "--time_shift is a share from 0 to 1, not -0.1"),
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
def test_options_that_would_do_nothing_are_refused(
    line: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refusal(capsys, *line)


def test_an_encoder_that_does_not_fit_is_refused(
    first_stage: Path, tiny_base: str, tiny_clap: str, sound_folder: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    session(
        [*command(tiny_base, tiny_clap, sound_folder, plain), "--num_train_epochs", "1"]
    ).train()
    stage = ("--train_adapter", "level_weights")
    for line, said in (
        (second(tiny_base, plain, sound_folder, tmp_path / "o", *stage), "this one is resampler"),
        (second(tiny_base, tmp_path / "nowhere", sound_folder, tmp_path / "o"), "no trained"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(line)
        assert said in str(caught.value)
