"""Training of the `mini` models: `python -m soundprompt.mini.build`."""
