"""The metric `retrieval`, for `evaluate`."""
