"""The `retrieval` metric for `evaluate`."""
