"""Pipelines that generate, edit and animate images from audio."""
