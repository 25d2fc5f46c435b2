"""Pictures of held-out pairs: from text, from sound through the adapter, from both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from align.evaluation.generation import ImageGenerator, save_sample_sheet, select_per_label
from align.prompts.embeds import PromptEmbeds
from diffuse.data.pairs import AudioImagePairs
from diffuse.data.preprocessing import PreprocessedPairs
from diffuse.data.text_embeds import TextEmbeds
from diffuse.models.attach import AttachedAdapters
from diffuse.models.conditioning import AudioConditioning

BATCH_SIZE = 32


@dataclass
class PairImageGenerator:
    """A stock pipeline with an adapter attached, and what is drawn from.

    Attributes:
        artist: the pipeline and how it draws.
        attached: the adapter on its UNet.
        texts: all captions and prompts, encoded.
        prepared: the pairs' sounds.
        substitute: the adapter learned to stand in the text's place, and does so.
    """

    image_generator: ImageGenerator
    attached: AttachedAdapters
    texts: TextEmbeds
    prepared: PreprocessedPairs
    replace_text: bool = False

    def audio_conditioning(self, rows: Sequence[int]) -> AudioConditioning:
        """The sounds of some pairs, N of them."""
        which = self.prepared.audio_index[torch.tensor(list(rows))]
        prepared = self.prepared
        return AudioConditioning(
            prepared.tokens[which].float(), prepared.mask[which], prepared.embeds[which].float()
        )

    def level_tokens(self, rows: Sequence[int]) -> torch.Tensor:
        """The level tokens (N, J, D) of some pairs' sounds, by the only adapter."""
        (tokens,) = self.attached.project(self.audio_conditioning(rows)).values()
        return tokens

    def move_to_background(self, levels: torch.Tensor) -> torch.Tensor:
        """Level tokens (N, J, D) with what is heard in front put behind."""
        (adapter,) = self.attached.adapters.values()
        return adapter.move_to_background(levels)

    def generate_from_texts(
        self, texts: Sequence[str], seeds: Sequence[int], levels: torch.Tensor | None, title: str
    ) -> list[Image.Image]:
        """A picture for each text, with the level tokens (N, J, D) of a sound where given."""
        if self.replace_text and levels is not None:
            return self._generate(
                PromptEmbeds(levels.cpu(), self._unconditional_pooled(len(levels))),
                seeds,
                None,
                title,
            )
        found = [self.texts.get(text) for text in texts]
        pooled = [p for _, p in found if p is not None]
        prompts = PromptEmbeds(
            torch.stack([e for e, _ in found]), torch.stack(pooled) if pooled else None
        )
        return self._generate(prompts, seeds, levels, title)

    def generate_from_embeds(
        self, rows: Sequence[int], seeds: Sequence[int], title: str
    ) -> list[Image.Image]:
        """A picture of each pair's sound by its prompt embeds in the text's place, and no adapter.

        Of bases with pooled embeds these are their own null's.
        """
        embeds = self.audio_conditioning(rows).embeds
        return self._generate(
            PromptEmbeds(embeds, self._unconditional_pooled(len(embeds))), seeds, None, title
        )

    def _unconditional_pooled(self, count: int) -> torch.Tensor | None:
        """The null's pooled embeds, where the base takes any."""
        pooled = self.texts.unconditional[1]
        return None if pooled is None else pooled.expand(count, -1)

    def _generate(
        self, prompts: PromptEmbeds, seeds: Sequence[int], levels: torch.Tensor | None, title: str
    ) -> list[Image.Image]:
        unconditional = self.texts.unconditional[0][: prompts.embeds.shape[1]]
        (name,) = self.attached.adapters
        images: list[Image.Image] = []
        for start in tqdm(range(0, len(seeds), BATCH_SIZE), title, mininterval=2):
            part = slice(start, start + BATCH_SIZE)
            embeds = prompts.embeds[part]
            pooled = None if prompts.pooled is None else prompts.pooled[part]
            count = len(embeds)
            negative = PromptEmbeds(
                unconditional.expand(count, -1, -1), self._unconditional_pooled(count)
            )
            if levels is None:
                self.attached.clear_audio()
            else:
                self.attached.play({name: levels[part]})
            images += self.image_generator.generate(
                PromptEmbeds(embeds, pooled), negative, seeds[part]
            )
        self.attached.clear_audio()
        return images


def sample_rows(
    pair_generator: PairImageGenerator, pairs: AudioImagePairs, count: int
) -> list[int]:
    """The fixed rows: of as many different labels as there are, those of one thing first."""
    labels = [pairs.labels[i] for i in pair_generator.prepared.kept]
    names = [label if " + " not in label else f"~{label}" for label in labels]
    return select_per_label(names, count)


def save_pair_sheet(pair_generator: PairImageGenerator, pairs: AudioImagePairs, features: list[np.ndarray], rows: list[int],
               path: Path) -> None:  # fmt: skip
    """Writes the sheet: what is heard, the prompt, and pictures in three rows.

    Args:
        drawing: with the adapter.
        pairs: that the rows are of.
        features: of each row's recording a spectrogram, a frame a row.
        rows: which.
        path: of the PNG.
    """
    kept = pair_generator.prepared.kept
    prompts = [pairs.prompts[kept[i]] for i in rows]
    seeds, levels = list(range(len(rows))), pair_generator.level_tokens(rows)
    images = {"embeds swapped": pair_generator.generate_from_embeds(rows, seeds, "samples, before")}
    images["prompt and sound"] = pair_generator.generate_from_texts(
        prompts, seeds, levels, "samples"
    )
    pair_generator.attached.set_audio_scale(0.0)
    images["audio scale 0"] = pair_generator.generate_from_texts(
        prompts, seeds, levels, "samples, scale 0"
    )
    pair_generator.attached.set_audio_scale(1.0)
    titles = [f"{pairs.labels[kept[i]]}: “{text}”" for i, text in zip(rows, prompts, strict=True)]
    save_sample_sheet(path, features, titles, images)


def spectrograms_of(
    encoder: Any, pairs: AudioImagePairs, prepared: Any, rows: list[int]
) -> list[np.ndarray]:
    """The first window of each row's recording as a spectrogram, a frame a row."""
    processor = encoder.processor
    clips = (pairs.rows[prepared.kept[i]]["audio"] for i in rows)
    return [
        processor.spectrogram(np.asarray(processor.extract_features(clip)[0])) for clip in clips
    ]
