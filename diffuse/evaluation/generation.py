"""Image generation for held-out pairs: from text, from audio through the adapter, and from both."""

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
    """Generates images of preprocessed pairs with an attached adapter.

    Attributes:
        image_generator: Pipeline and its generation settings.
        attached: Adapter on its UNet, exactly one.
        texts: Embeds of all captions and prompts.
        prepared: Preprocessed pairs.
        replace_text: Whether the adapter was trained to replace the text, and is used so.
    """

    image_generator: ImageGenerator
    attached: AttachedAdapters
    texts: TextEmbeds
    prepared: PreprocessedPairs
    replace_text: bool = False

    def audio_conditioning(self, rows: Sequence[int]) -> AudioConditioning:
        """Return the audio conditioning of N pairs.

        Args:
            rows: Rows of the pairs.
        """
        index = self.prepared.audio_index[torch.tensor(list(rows))]
        prepared = self.prepared
        return AudioConditioning(
            prepared.tokens[index].float(), prepared.mask[index], prepared.embeds[index].float()
        )

    def level_tokens(self, rows: Sequence[int]) -> torch.Tensor:
        """Return the level tokens (N, J, D) of the audio of N pairs.

        Args:
            rows: Rows of the pairs.
        """
        (tokens,) = self.attached.project(self.audio_conditioning(rows)).values()
        return tokens

    def move_to_background(self, levels: torch.Tensor) -> torch.Tensor:
        """Return level tokens with the foreground moved to the background.

        Args:
            levels: Level tokens (N, J, D).
        """
        (adapter,) = self.attached.adapters.values()
        return adapter.move_to_background(levels)

    def generate_from_texts(
        self, texts: Sequence[str], seeds: Sequence[int], levels: torch.Tensor | None, title: str
    ) -> list[Image.Image]:
        """Generate an image for each text.

        Args:
            texts: Encoded texts.
            seeds: Seed of each image.
            levels: Level tokens (N, J, D) of the audio, or None.
            title: Title of the progress bar.
        """
        if self.replace_text and levels is not None:
            return self._generate(
                PromptEmbeds(levels.cpu(), self._unconditional_pooled(len(levels))),
                seeds,
                None,
                title,
            )
        embeds = [self.texts.get(text) for text in texts]
        pooled = [p for _, p in embeds if p is not None]
        prompts = PromptEmbeds(
            torch.stack([e for e, _ in embeds]), torch.stack(pooled) if pooled else None
        )
        return self._generate(prompts, seeds, levels, title)

    def generate_from_embeds(
        self, rows: Sequence[int], seeds: Sequence[int], title: str
    ) -> list[Image.Image]:
        """Generate images from the prompt embeds of the audio, without the adapter.

        Pooled embeds are the unconditional ones.

        Args:
            rows: Rows of the pairs.
            seeds: Seed of each image.
            title: Title of the progress bar.
        """
        embeds = self.audio_conditioning(rows).embeds
        return self._generate(
            PromptEmbeds(embeds, self._unconditional_pooled(len(embeds))), seeds, None, title
        )

    def _unconditional_pooled(self, count: int) -> torch.Tensor | None:
        """Return the unconditional pooled embeds, or None if the base model has none."""
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
    """Return the rows of the sample sheet, with distinct labels if possible, single sources first.

    Args:
        pair_generator: Generator of the pairs.
        pairs: Pairs.
        count: Number of rows.
    """
    labels = [pairs.labels[i] for i in pair_generator.prepared.kept]
    names = [label if " + " not in label else f"~{label}" for label in labels]
    return select_per_label(names, count)


def save_pair_sheet(
    pair_generator: PairImageGenerator,
    pairs: AudioImagePairs,
    features: list[np.ndarray],
    rows: list[int],
    path: Path,
) -> None:
    """Save a sample sheet: spectrograms, prompts, and three images per clip.

    Args:
        pair_generator: Generator with the adapter attached.
        pairs: Pairs of the rows.
        features: Spectrogram of the audio of each row, one frame per row.
        rows: Rows to generate images of.
        path: Output PNG file.
    """
    kept = pair_generator.prepared.kept
    prompts = [pairs.prompts[kept[i]] for i in rows]
    seeds, levels = list(range(len(rows))), pair_generator.level_tokens(rows)
    images = {
        "audio embeds only": pair_generator.generate_from_embeds(rows, seeds, "samples, embeds")
    }
    images["prompt and audio"] = pair_generator.generate_from_texts(
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
    """Return spectrograms of the first window of clips, one frame per row.

    Args:
        encoder: Audio encoder.
        pairs: Pairs.
        prepared: Their preprocessed tensors.
        rows: Rows of the clips.
    """
    processor = encoder.processor
    clips = (pairs.rows[prepared.kept[i]]["audio"] for i in rows)
    return [
        processor.spectrogram(np.asarray(processor.extract_features(clip)[0])) for clip in clips
    ]
