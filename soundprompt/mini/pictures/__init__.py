"""Rendering of views as 64x64 images."""

from __future__ import annotations

from soundprompt.mini.pictures.compose import SIZE, render

__all__ = ["SIZE", "render"]
