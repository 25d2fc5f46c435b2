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

from align.evaluation.statistics import Estimate
from align.registry import CLIP_MODELS, lookup

BATCH_SIZE = 64
KID_SUBSETS = 50
MIN_TEXT_ENCODER_COSINE = 0.99  # least cosine of one text encoder's answers in two precisions


def win_rate(similarity: torch.Tensor) -> torch.Tensor:
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


class CLIPFeatures(nn.Module):
    """A CLIP's image side, as torchmetrics takes a feature extractor.

    Args:
        name: a short name, a folder or a hub id of a CLIPModel.

    Raises:
        OSError: there is none.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        super().__init__()
        where = lookup(CLIP_MODELS, name)
        self._clip: Any = CLIPModel.from_pretrained(where, dtype=torch.float32).eval()
        self._processor: Any = CLIPImageProcessor.from_pretrained(where)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(where)
        self.num_features = int(self._clip.config.projection_dim)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embeds (N, num_features) of pictures (N, 3, H, W), uint8."""
        given = self._processor(images=list(images.cpu()), return_tensors="pt")
        pooled = self._clip.vision_model(pixel_values=given.pixel_values).pooler_output
        found: torch.Tensor = self._clip.visual_projection(pooled)
        return found

    def embed_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Unit embeds (N, num_features) of images."""
        parts = [
            self(to_uint8(images[i : i + BATCH_SIZE])) for i in range(0, len(images), BATCH_SIZE)
        ]
        return F.normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit embeds (N, num_features) of texts."""
        given = self._tokenizer(list(texts), padding="max_length", truncation=True,
                                max_length=self._clip.config.text_config.max_position_embeddings,
                                return_tensors="pt")  # fmt: skip
        pooled = self._clip.text_model(
            input_ids=given.input_ids, attention_mask=given.get("attention_mask")
        ).pooler_output
        return F.normalize(self._clip.text_projection(pooled), dim=1)

    @torch.no_grad()
    def embed_audio(self, embeds: torch.Tensor) -> torch.Tensor:
        """Unit embeds (N, num_features) of sounds, from their prompt embeds (N, L, D).

        An aligned encoder answers in the place of the text encoder, so its answer's end goes
        where the text's does: through the CLIP's text projection. The last position is taken, as
        it has read all others; where a sound's words would end, nobody knows.
        """
        found: torch.Tensor = self._clip.text_projection(embeds[:, -1].float().cpu())
        return F.normalize(found, dim=1)

    @torch.no_grad()
    def matches_text_encoder(self, unconditional: torch.Tensor) -> bool:
        """Whether this CLIP's text encoder is the one that gave a base its null, (1, L, D)."""
        length = unconditional.shape[1]
        given = self._tokenizer([""], padding="max_length", max_length=length, return_tensors="pt")
        own = self._clip.text_model(input_ids=given.input_ids).last_hidden_state
        theirs = unconditional.float().cpu()
        same = own.shape == theirs.shape
        return same and bool(
            F.cosine_similarity(own, theirs, dim=-1).min() > MIN_TEXT_ENCODER_COSINE
        )


def to_uint8(images: Sequence[Image.Image]) -> torch.Tensor:
    """Images of one size as (N, 3, H, W), uint8."""
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def clip_distances(
    clip_features: nn.Module, real: Sequence[Image.Image], generated: Sequence[Image.Image]
) -> dict[str, float]:
    """FID and KID of drawn pictures to real ones.

    Raises:
        ValueError: there are too few of either for a covariance.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    least = min(len(real), len(generated))
    if least < 3:
        raise ValueError(f"FID and KID need at least 3 pictures of each kind, not {least}")
    shape = (3, real[0].height, real[0].width)
    fid = FrechetInceptionDistance(feature=clip_features, input_img_size=shape)
    kid = KernelInceptionDistance(
        feature=clip_features, subsets=KID_SUBSETS, subset_size=least // 2 + 1
    )
    for metric in (fid, kid):
        for images, is_real in ((real, True), (generated, False)):
            for start in range(0, len(images), BATCH_SIZE):
                metric.update(to_uint8(images[start : start + BATCH_SIZE]), real=is_real)
    torch.manual_seed(0)  # KID draws subsets
    return {"clip_fid": fid.compute().item(), "clip_kid": kid.compute()[0].item()}


def iis_and_aic(
    clip_features: CLIPFeatures,
    real: Sequence[Image.Image],
    generated: Sequence[Image.Image],
    labels: Sequence[str],
) -> dict[str, Estimate]:
    """IIS and AIC of drawn pictures.

    IIS is the share of the other pairs' real pictures that are less like a drawn picture than its
    own pair's; chance is one half. AIC is the share whose nearest bare label is its own.

    Args:
        eyes: a CLIP.
        real: of each pair.
        drawn: from each pair's sound.
        labels: of each pair.
    """
    embeds, names = clip_features.embed_images(generated), sorted(set(labels))
    nearest = (embeds @ clip_features.embed_texts(names).T).argmax(1).tolist()
    right = [names[i] == label for i, label in zip(nearest, labels, strict=True)]
    similarity = embeds @ clip_features.embed_images(real).T
    return {"iis": Estimate.mean(win_rate(similarity)), "aic": Estimate.proportion(right)}


def ais(
    clip_features: CLIPFeatures,
    generated: Sequence[Image.Image],
    audio_embeds: torch.Tensor,
    unconditional: torch.Tensor,
) -> dict[str, Estimate]:
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
    if not clip_features.matches_text_encoder(unconditional):
        return {}
    return {
        "ais": Estimate.mean(
            win_rate(
                clip_features.embed_images(generated) @ clip_features.embed_audio(audio_embeds).T
            )
        )
    }
