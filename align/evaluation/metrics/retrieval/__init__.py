"""The metric `retrieval_metrics`, for `evaluate`."""
