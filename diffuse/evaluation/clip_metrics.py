"""Metrics of generated images in CLIP's features: FID, KID, IIS, AIC and AIS.

FID (Heusel et al. 2017, arXiv 1706.08500) and KID (Binkowski et al. 2018, arXiv 1801.01401) compare
sets of images. In CLIP's features their values are comparable with each other, but not with those
in Inception's. IIS, AIC and AIS are metrics of SonicDiffusion (arXiv 2405.00878), based on
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
MIN_TEXT_ENCODER_COSINE = 0.99  # between outputs of a text encoder in two precisions


def win_rate(similarity: torch.Tensor) -> torch.Tensor:
    """Return for each row the fraction of the other columns below its diagonal, (N,).

    Ties count half, so chance is one half.

    Args:
        similarity: Similarities (N, N).

    Raises:
        ValueError: If there is only one row.
    """
    n = len(similarity)
    if n < 2:
        raise ValueError("the win rate needs at least 2 images, not 1")
    diagonal = similarity.diagonal()[:, None]
    below = (similarity < diagonal).float() + 0.5 * (similarity == diagonal).float()
    return (below.sum(1) - 0.5) / (n - 1)  # without the tie of the diagonal with itself


class CLIPFeatures(nn.Module):
    """Image features of a CLIP model, as a feature extractor of torchmetrics.

    Args:
        name: CLIP model: short name, folder or Hub id.

    Raises:
        OSError: If there is no such model.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel

        super().__init__()
        path = lookup(CLIP_MODELS, name)
        self._clip: Any = CLIPModel.from_pretrained(path, dtype=torch.float32).eval()
        self._processor: Any = CLIPImageProcessor.from_pretrained(path)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
        self.num_features = int(self._clip.config.projection_dim)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return embeds (N, num_features) of images.

        Args:
            images: uint8 images (N, 3, H, W).
        """
        inputs = self._processor(images=list(images.cpu()), return_tensors="pt")
        pooled = self._clip.vision_model(pixel_values=inputs.pixel_values).pooler_output
        embeds: torch.Tensor = self._clip.visual_projection(pooled)
        return embeds

    def embed_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Return normalized embeds (N, num_features) of images.

        Args:
            images: Images of equal size.
        """
        parts = [
            self(to_uint8(images[i : i + BATCH_SIZE])) for i in range(0, len(images), BATCH_SIZE)
        ]
        return F.normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Return normalized embeds (N, num_features) of texts.

        Args:
            texts: Texts to encode.
        """
        inputs = self._tokenizer(
            list(texts), padding="max_length", truncation=True, return_tensors="pt",
            max_length=self._clip.config.text_config.max_position_embeddings,
        )  # fmt: skip
        pooled = self._clip.text_model(
            input_ids=inputs.input_ids, attention_mask=inputs.get("attention_mask")
        ).pooler_output
        return F.normalize(self._clip.text_projection(pooled), dim=1)

    @torch.no_grad()
    def embed_audio(self, embeds: torch.Tensor) -> torch.Tensor:
        """Return normalized embeds (N, num_features) of audio from its prompt embeds.

        An aligned encoder predicts outputs of the text encoder, so CLIP's text projection applies
        to them. The last position is used: it attends to all others, and the position of the end
        token is unknown.

        Args:
            embeds: Prompt embeds (N, L, D) of audio.
        """
        projected: torch.Tensor = self._clip.text_projection(embeds[:, -1].float().cpu())
        return F.normalize(projected, dim=1)

    @torch.no_grad()
    def matches_text_encoder(self, unconditional: torch.Tensor) -> bool:
        """Return whether the base model uses the text encoder of this CLIP.

        Args:
            unconditional: Unconditional embeds (1, L, D) of the base model.
        """
        length = unconditional.shape[1]
        inputs = self._tokenizer([""], padding="max_length", max_length=length, return_tensors="pt")
        ours = self._clip.text_model(input_ids=inputs.input_ids).last_hidden_state
        theirs = unconditional.float().cpu()
        same_shape = ours.shape == theirs.shape
        return same_shape and bool(
            F.cosine_similarity(ours, theirs, dim=-1).min() > MIN_TEXT_ENCODER_COSINE
        )


def to_uint8(images: Sequence[Image.Image]) -> torch.Tensor:
    """Convert images of equal size to a uint8 tensor (N, 3, H, W).

    Args:
        images: Images of equal size.
    """
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in images])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2)


def clip_distances(
    clip_features: nn.Module, real: Sequence[Image.Image], generated: Sequence[Image.Image]
) -> dict[str, float]:
    """Compute FID and KID between generated and real images.

    Args:
        clip_features: Feature extractor, such as `CLIPFeatures`.
        real: Real images.
        generated: Generated images.

    Raises:
        ValueError: If there are fewer than 3 images of either kind.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    least = min(len(real), len(generated))
    if least < 3:
        raise ValueError(f"FID and KID need at least 3 images of each kind, not {least}")
    shape = (3, real[0].height, real[0].width)
    fid = FrechetInceptionDistance(feature=clip_features, input_img_size=shape)
    kid = KernelInceptionDistance(
        feature=clip_features, subsets=KID_SUBSETS, subset_size=least // 2 + 1
    )
    for metric in (fid, kid):
        for images, is_real in ((real, True), (generated, False)):
            for start in range(0, len(images), BATCH_SIZE):
                metric.update(to_uint8(images[start : start + BATCH_SIZE]), real=is_real)
    torch.manual_seed(0)  # KID samples subsets
    return {"clip_fid": fid.compute().item(), "clip_kid": kid.compute()[0].item()}


def iis_and_aic(
    clip_features: CLIPFeatures,
    real: Sequence[Image.Image],
    generated: Sequence[Image.Image],
    labels: Sequence[str],
) -> dict[str, Estimate]:
    """Compute IIS and AIC of generated images.

    IIS is the fraction of the other pairs' real images that are less similar to a generated image
    than the real image of its own pair; chance is one half. AIC is the fraction of generated images
    whose nearest label is their own.

    Args:
        clip_features: Features of a CLIP model.
        real: Real image of each pair.
        generated: Image generated from the audio of each pair.
        labels: Label of each pair.
    """
    embeds, names = clip_features.embed_images(generated), sorted(set(labels))
    nearest = (embeds @ clip_features.embed_texts(names).T).argmax(1).tolist()
    correct = [names[i] == label for i, label in zip(nearest, labels, strict=True)]
    similarity = embeds @ clip_features.embed_images(real).T
    return {"iis": Estimate.mean(win_rate(similarity)), "aic": Estimate.proportion(correct)}


def ais(
    clip_features: CLIPFeatures,
    generated: Sequence[Image.Image],
    audio_embeds: torch.Tensor,
    unconditional: torch.Tensor,
) -> dict[str, Estimate]:
    """Compute AIS of generated images.

    AIS is the fraction of the other clips that are less similar to an image than its own clip.
    Chance is one half; clips of the same class are among the others, so the maximum is below one.
    SonicDiffusion uses Wav2CLIP embeds. Here they come from the aligned encoder, whose space is
    that of the base model's CLIP, so AIS measures whether the image shows what the encoder
    predicted, not whether the prediction is correct.

    Args:
        clip_features: Features of the CLIP model whose text encoder the base model uses.
        generated: Image generated from each clip.
        audio_embeds: Prompt embeds (N, L, D) of the clips.
        unconditional: Unconditional embeds (1, L, D) that identify the base model's text encoder.

    Returns:
        The metric, or an empty mapping if the base model uses another text encoder.
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
