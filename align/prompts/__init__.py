"""Prompt spaces: what a pipeline accepts as prompt embeds, and the targets from its text side."""
