"""Procedural pictures of a view, 64x64."""

from __future__ import annotations

from soundprompt.mini.pictures.compose import SIZE, render

__all__ = ["SIZE", "render"]
