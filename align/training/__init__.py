"""Train an alignment: data sets, trainer, checkpoints, the run."""
