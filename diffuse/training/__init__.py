"""Train an adapter: UNet with audio, losses, trainer, the run."""
