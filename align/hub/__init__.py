"""Hugging Face Hub: provenance, model cards, uploads and required repositories."""
