"""Procedural pictures of a view, 64x64."""

from mini.pictures.compose import SIZE, draw

__all__ = ["SIZE", "draw"]
