"""Compute features, audio tokens and text embeds once, and cache them on disk."""
