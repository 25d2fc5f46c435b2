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

from align.evaluation.generation import Artist, first_of_each, sample_sheet
from align.prompts.embeds import Prompts
from diffuse.data.pairs import Pairs
from diffuse.data.preprocessing import Prepared
from diffuse.data.text_embeds import Texts
from diffuse.models.attach import Attachment
from diffuse.models.conditioning import Heard

BATCH = 32


@dataclass
class Drawing:
    """A stock pipeline with an adapter attached, and what is drawn from.

    Attributes:
        artist: the pipeline and how it draws.
        attached: the adapter on its UNet.
        texts: all captions and prompts, encoded.
        prepared: the pairs' sounds.
        substitute: the adapter learned to stand in the text's place, and does so.
    """

    artist: Artist
    attached: Attachment
    texts: Texts
    prepared: Prepared
    substitute: bool = False

    def heard(self, rows: Sequence[int]) -> Heard:
        """The sounds of some pairs, N of them."""
        which = self.prepared.sound[torch.tensor(list(rows))]
        prepared = self.prepared
        return Heard(
            prepared.tokens[which].float(), prepared.mask[which], prepared.embeds[which].float()
        )

    def levels(self, rows: Sequence[int]) -> torch.Tensor:
        """The level tokens (N, J, D) of some pairs' sounds, by the only adapter."""
        (tokens,) = self.attached.project(self.heard(rows)).values()
        return tokens

    def behind(self, levels: torch.Tensor) -> torch.Tensor:
        """Level tokens (N, J, D) with what is heard in front put behind."""
        (adapter,) = self.attached.adapters.values()
        return adapter.behind(levels)

    def from_texts(
        self, texts: Sequence[str], seeds: Sequence[int], levels: torch.Tensor | None, title: str
    ) -> list[Image.Image]:
        """A picture for each text, with the level tokens (N, J, D) of a sound where given."""
        if self.substitute and levels is not None:
            return self._drawn(
                Prompts(levels.cpu(), self._nothing(len(levels))), seeds, None, title
            )
        found = [self.texts.of(text) for text in texts]
        pooled = [p for _, p in found if p is not None]
        prompts = Prompts(
            torch.stack([e for e, _ in found]), torch.stack(pooled) if pooled else None
        )
        return self._drawn(prompts, seeds, levels, title)

    def from_embeds(
        self, rows: Sequence[int], seeds: Sequence[int], title: str
    ) -> list[Image.Image]:
        """A picture of each pair's sound by its prompt embeds in the text's place, and no adapter.

        Of bases with pooled embeds these are their own null's.
        """
        embeds = self.heard(rows).embeds
        return self._drawn(Prompts(embeds, self._nothing(len(embeds))), seeds, None, title)

    def _nothing(self, count: int) -> torch.Tensor | None:
        """The null's pooled embeds, where the base takes any."""
        pooled = self.texts.null[1]
        return None if pooled is None else pooled.expand(count, -1)

    def _drawn(
        self, prompts: Prompts, seeds: Sequence[int], levels: torch.Tensor | None, title: str
    ) -> list[Image.Image]:
        null = self.texts.null[0][: prompts.embeds.shape[1]]
        (name,) = self.attached.adapters
        images: list[Image.Image] = []
        for start in tqdm(range(0, len(seeds), BATCH), title, mininterval=2):
            part = slice(start, start + BATCH)
            embeds = prompts.embeds[part]
            pooled = None if prompts.pooled is None else prompts.pooled[part]
            count = len(embeds)
            unasked = Prompts(null.expand(count, -1, -1), self._nothing(count))
            if levels is None:
                self.attached.silence()
            else:
                self.attached.play({name: levels[part]})
            images += self.artist.draw(Prompts(embeds, pooled), unasked, seeds[part])
        self.attached.silence()
        return images


def sample_rows(drawing: Drawing, pairs: Pairs, count: int) -> list[int]:
    """The fixed rows: of as many different labels as there are, those of one thing first."""
    labels = [pairs.labels[i] for i in drawing.prepared.kept]
    names = [label if " + " not in label else f"~{label}" for label in labels]
    return first_of_each(names, count)


def draw_sheet(drawing: Drawing, pairs: Pairs, features: list[np.ndarray], rows: list[int],
               path: Path) -> None:  # fmt: skip
    """Writes the sheet: what is heard, the prompt, and pictures in three rows.

    Args:
        drawing: with the adapter.
        pairs: that the rows are of.
        features: of each row's recording a spectrogram, a frame a row.
        rows: which.
        path: of the PNG.
    """
    kept = drawing.prepared.kept
    prompts = [pairs.prompts[kept[i]] for i in rows]
    seeds, levels = list(range(len(rows))), drawing.levels(rows)
    pictures = {"embeds swapped": drawing.from_embeds(rows, seeds, "samples, before")}
    pictures["prompt and sound"] = drawing.from_texts(prompts, seeds, levels, "samples")
    drawing.attached.set_audio_scale(0.0)
    pictures["audio scale 0"] = drawing.from_texts(prompts, seeds, levels, "samples, scale 0")
    drawing.attached.set_audio_scale(1.0)
    titles = [f"{pairs.labels[kept[i]]}: “{text}”" for i, text in zip(rows, prompts, strict=True)]
    sample_sheet(path, features, titles, pictures)


def features_of(encoder: Any, pairs: Pairs, prepared: Any, rows: list[int]) -> list[np.ndarray]:
    """The first window of each row's recording as a spectrogram, a frame a row."""
    ear = encoder.ear
    sounds = (pairs.rows[prepared.kept[i]]["recording"] for i in rows)
    return [ear.spectrogram(np.asarray(ear.features(sound)[0])) for sound in sounds]
