"""Builds the miniature's weights, stage by stage: `python -m soundprompt.mini.build`."""
