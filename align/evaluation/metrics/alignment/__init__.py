"""The `alignment` metric for `evaluate`."""
