"""Hugging Face hub: provenance, model cards, upload, required repositories."""
