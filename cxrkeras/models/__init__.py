"""Networks: a registry, the classifier built around a backbone, and its weights."""
