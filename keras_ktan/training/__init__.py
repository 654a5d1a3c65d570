"""One training step: the objectives, the optimizers and each backend's step."""
