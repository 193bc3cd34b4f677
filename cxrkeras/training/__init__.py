"""Training: augmentation, losses, optimisers, schedules and the training loop."""
