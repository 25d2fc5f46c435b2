"""Evaluation of an audio adapter: generated images and CLIP metrics."""
