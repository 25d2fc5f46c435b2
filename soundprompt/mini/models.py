"""Folders of the weights of the `mini` models."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
STABLE_DIFFUSION = str(WEIGHTS / "stable-diffusion")
CLIP = str(WEIGHTS / "clip")
CLAP = str(WEIGHTS / "clap")
W2V_BERT = str(WEIGHTS / "w2v-bert")
IMAGE_CLASSIFIER = str(WEIGHTS / "image_classifier")
CONTROLNET = str(WEIGHTS / "controlnet")
