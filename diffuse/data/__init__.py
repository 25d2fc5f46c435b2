"""Datasets of audio-image pairs and their preprocessing."""
