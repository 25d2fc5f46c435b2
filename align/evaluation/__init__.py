"""Evaluate an encoder: embedding metrics and generated images."""
