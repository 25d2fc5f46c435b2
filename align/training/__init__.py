"""Training: datasets, augmentation, trainer, checkpoints and runs."""
