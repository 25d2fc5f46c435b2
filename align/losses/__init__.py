"""Losses of the alignment."""
