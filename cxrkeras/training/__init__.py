"""Training: augmentation, schedules, the loop."""
