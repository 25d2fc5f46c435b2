"""Pictures of held-out pairs: from text, from sound through the adapter, from both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from tqdm import tqdm

from align.drawing import Artist
from align.prompts import Prompts
from diffuse.attachment import Attachment
from diffuse.batches import Texts
from diffuse.latents import Prepared
from diffuse.recordings import Heard

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
