"""The `mini` models: toy models of synthetic sounds and images that ship with the package."""
