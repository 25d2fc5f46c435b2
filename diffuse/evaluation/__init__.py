"""Evaluate an adapter: generated images, CLIP metrics."""
