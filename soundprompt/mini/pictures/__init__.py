"""Procedural pictures of a view, 64x64."""

from __future__ import annotations

from soundprompt.mini.pictures.compose import SIZE, draw

__all__ = ["SIZE", "draw"]
