"""How real drawn pictures look and how well they fit, by a CLIP: FID, KID, IIS, AIC, AIS.

FID (Heusel et al. 2017, arXiv 1706.08500) and KID (Binkowski et al. 2018, arXiv 1801.01401) compare
sets of pictures, here in CLIP's image space: their values compare with each other and not with
those of Inception's. IIS, AIC and AIS are SonicDiffusion's measures (arXiv 2405.00878), after
AudioToken (Yariv et al. 2023, arXiv 2305.13050).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from align.evaluation.statistics import Measured
from align.registry import CLIPS, lookup

BATCH = 64
KID_SUBSETS = 50
SAME_TEXT = 0.99  # least cosine of one text encoder's answers in two precisions


def wins(similarity: torch.Tensor) -> torch.Tensor:
    """For each row of similarities (N, N), the share of the others that are below its own: (N,).

    Ties count half, so that chance is one half.

    Raises:
        ValueError: there are no others.
    """
    n = len(similarity)
    if n < 2:
        raise ValueError("one picture alone has no others to be compared with")
    own = similarity.diagonal()[:, None]
    below = (similarity < own).float() + 0.5 * (similarity == own).float()
    return (below.sum(1) - 0.5) / (n - 1)  # the row's tie with itself does not count


class Eyes(nn.Module):
    """A CLIP's image side, as torchmetrics takes a feature extractor.

    Args:
        name: a short name, a folder or a hub id of a CLIPModel.

    Raises:
        OSError: there is none.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        super().__init__()
        where = lookup(CLIPS, name)
        self._clip: Any = CLIPModel.from_pretrained(where, dtype=torch.float32).eval()
        self._processor: Any = CLIPImageProcessor.from_pretrained(where)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(where)
        self.num_features = int(self._clip.config.projection_dim)

    @torch.no_grad()
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Embeds (N, num_features) of pictures (N, 3, H, W), uint8."""
        given = self._processor(images=list(pictures.cpu()), return_tensors="pt")
        seen = self._clip.vision_model(pixel_values=given.pixel_values).pooler_output
        found: torch.Tensor = self._clip.visual_projection(seen)
        return found

    def look(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Unit embeds (N, num_features) of images."""
        parts = [self(as_bytes(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]
        return F.normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit embeds (N, num_features) of texts."""
        given = self._tokenizer(list(texts), padding="max_length", truncation=True,
                                max_length=self._clip.config.text_config.max_position_embeddings,
                                return_tensors="pt")  # fmt: skip
        said = self._clip.text_model(
            input_ids=given.input_ids, attention_mask=given.get("attention_mask")
        ).pooler_output
        return F.normalize(self._clip.text_projection(said), dim=1)

    @torch.no_grad()
    def hear(self, embeds: torch.Tensor) -> torch.Tensor:
        """Unit embeds (N, num_features) of sounds, from their prompt embeds (N, L, D).

        An aligned encoder answers in the place of the text encoder, so its answer's end goes
        where the text's does: through the CLIP's text projection. The last position is taken, as
        it has read all others; where a sound's words would end, nobody knows.
        """
        found: torch.Tensor = self._clip.text_projection(embeds[:, -1].float().cpu())
        return F.normalize(found, dim=1)

    @torch.no_grad()
    def reads_as(self, unconditional: torch.Tensor) -> bool:
        """Whether this CLIP's text encoder is the one that gave a base its null, (1, L, D)."""
        length = unconditional.shape[1]
        given = self._tokenizer([""], padding="max_length", max_length=length, return_tensors="pt")
        own = self._clip.text_model(input_ids=given.input_ids).last_hidden_state
        theirs = unconditional.float().cpu()
        same = own.shape == theirs.shape
        return same and bool(F.cosine_similarity(own, theirs, dim=-1).min() > SAME_TEXT)


def as_bytes(images: Sequence[Image.Image]) -> torch.Tensor:
    """Images of one size as (N, 3, H, W), uint8."""
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def distances(
    eyes: nn.Module, real: Sequence[Image.Image], drawn: Sequence[Image.Image]
) -> dict[str, float]:
    """FID and KID of drawn pictures to real ones.

    Raises:
        ValueError: there are too few of either for a covariance.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    least = min(len(real), len(drawn))
    if least < 3:
        raise ValueError(f"FID and KID need at least 3 pictures of each kind, not {least}")
    shape = (3, real[0].height, real[0].width)
    fid = FrechetInceptionDistance(feature=eyes, input_img_size=shape)
    kid = KernelInceptionDistance(feature=eyes, subsets=KID_SUBSETS, subset_size=least // 2 + 1)
    for metric in (fid, kid):
        for images, is_real in ((real, True), (drawn, False)):
            for start in range(0, len(images), BATCH):
                metric.update(as_bytes(images[start : start + BATCH]), real=is_real)
    torch.manual_seed(0)  # KID draws subsets
    return {"fid": fid.compute().item(), "kid": kid.compute()[0].item()}


def fitting(
    eyes: Eyes,
    real: Sequence[Image.Image],
    drawn: Sequence[Image.Image],
    labels: Sequence[str],
) -> dict[str, Measured]:
    """IIS and AIC of drawn pictures.

    IIS is the share of the other pairs' real pictures that are less like a drawn picture than its
    own pair's; chance is one half. AIC is the share whose nearest bare label is its own.

    Args:
        eyes: a CLIP.
        real: of each pair.
        drawn: from each pair's sound.
        labels: of each pair.
    """
    seen, names = eyes.look(drawn), sorted(set(labels))
    nearest = (seen @ eyes.read(names).T).argmax(1).tolist()
    right = [names[i] == label for i, label in zip(nearest, labels, strict=True)]
    likeness = seen @ eyes.look(real).T
    return {"iis": Measured.mean(wins(likeness)), "aic": Measured.share(right)}


def hearing(
    eyes: Eyes, drawn: Sequence[Image.Image], sounds: torch.Tensor, unconditional: torch.Tensor
) -> dict[str, Measured]:
    """AIS of drawn pictures: the share of the other sounds that fit a picture less than its own.

    Chance is one half, and sounds of the same thing are among the others, so that the best is
    below one. SonicDiffusion takes Wav2CLIP's embeds of sounds; ours come from the aligned
    encoder, which lies in the space of the base's CLIP already. It judges what it has drawn: AIS
    says whether the picture shows what the encoder heard, not whether it heard right.

    Args:
        eyes: the CLIP whose text encoder the base has.
        drawn: from each sound.
        sounds: their prompt embeds (N, L, D).
        unconditional: the base's (1, L, D), by which its text encoder is known.

    Returns:
        nothing where the base has another text encoder: no measure of this kind is known.
    """
    if not eyes.reads_as(unconditional):
        return {}
    return {"ais": Measured.mean(wins(eyes.look(drawn) @ eyes.hear(sounds).T))}
