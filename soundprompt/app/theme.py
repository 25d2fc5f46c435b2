"""Theme of the app: light and dark mode with system fonts."""

from __future__ import annotations

from pathlib import Path

import gradio as gr

CSS = Path(__file__).with_name("page.css")
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONO = ("ui-monospace", "Menlo", "Consolas", "monospace")


def theme() -> gr.themes.Base:
    """Gradio's soft theme with plain labels, sufficient contrast and no external resources."""
    calm = gr.themes.Soft(
        primary_hue="indigo", secondary_hue="indigo", neutral_hue="slate", font=FONTS,
        font_mono=MONO,
    )  # fmt: skip
    labels = {}
    for name in ("block_label", "block_title"):
        for mode in ("", "_dark"):
            labels[f"{name}_background_fill{mode}"] = "none"
            labels[f"{name}_text_color{mode}"] = "*body_text_color"
    return calm.set(
        **labels,
        block_title_padding="0",
        body_background_fill="*neutral_100",
        block_background_fill="white",
        body_text_color_subdued="*neutral_600",
        block_info_text_color="*neutral_600",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
    )
