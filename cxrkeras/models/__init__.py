"""Networks: a registry, the classifier around a backbone, its weights."""
