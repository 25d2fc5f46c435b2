"""The metric `alignment`, for `evaluate`."""
