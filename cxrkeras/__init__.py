"""Multi-label chest X-ray classifiers in Keras 3 on TensorFlow: train, compare, explain."""

__version__ = "0.1.0"
