"""Prompt spaces: prompt embeds of diffusers pipelines, their statistics and combinations."""
