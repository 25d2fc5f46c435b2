"""Training of audio adapters: model, datasets, losses, trainer and run."""
