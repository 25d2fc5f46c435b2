"""Options: dataclasses and the stages of training."""
