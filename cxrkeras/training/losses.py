"""Losses for many labels, each by itself, on logits.

All have the form y * positive(z) + (1 - y) * negative(z) for a logit z and its truth y, p = sigmoid(z).
"""

from collections.abc import Callable

import numpy as np
from keras import ops

from cxrkeras.config import Loss


def build_loss(loss: Loss, positives: np.ndarray | None = None, num_images: int = 0) -> Callable:
    """Build the loss of each element, to be averaged: a function of truth (N, 15), 0 or 1, and logits (N, 15).

    Returns what has the shape and dtype of the logits. `positives` (15,) counts those of the training folds among
    `num_images`, for weights that are not given.

    - bce: log(1 + e^-z) and log(1 + e^z).
    - weighted_bce: the former times the label's weight, as PyTorch's pos_weight.
    - focal: alpha (1 - p)^gamma -log p and (1 - alpha) p^gamma -log(1 - p); Lin et al., ICCV 2017, arXiv 1708.02002.
    - hamming: 1 - p and p, the share of labels that are wrong in expectation.
    - asymmetric: (1 - p)^gamma_positive -log p and q^gamma_negative -log(1 - q) with q = max(p - margin, 0);
      Ridnik et al., ICCV 2021, arXiv 2009.14119.
    """
    positive, negative = _build_sides(loss, positives, num_images)

    def each(truth, logits):
        truth = ops.cast(truth, logits.dtype) * (1 - loss.label_smoothing) + loss.label_smoothing / 2
        return truth * positive(logits) + (1 - truth) * negative(logits)

    return each


def _build_sides(loss: Loss, positives: np.ndarray | None, num_images: int) -> tuple[Callable, Callable]:
    if loss.name == "weighted_bce":
        weights = np.array(loss.weights if loss.weights else weigh_positives(positives, num_images))
        return (lambda z: ops.cast(weights, z.dtype) * ops.softplus(-z)), ops.softplus
    if loss.name == "focal":
        alpha, gamma = np.array(loss.alpha), loss.gamma
        # (1 - p)^gamma from its logarithm: a power of nought has no gradient
        return (
            lambda z: ops.cast(alpha, z.dtype) * ops.exp(-gamma * ops.softplus(z)) * ops.softplus(-z),
            lambda z: ops.cast(1 - alpha, z.dtype) * ops.exp(-gamma * ops.softplus(-z)) * ops.softplus(z),
        )
    if loss.name == "hamming":
        return (lambda z: ops.sigmoid(-z)), ops.sigmoid
    if loss.name == "asymmetric":
        return (
            lambda z: ops.exp(-loss.gamma_positive * ops.softplus(z)) * ops.softplus(-z),
            lambda z: _asymmetric_negative(z, loss.gamma_negative, loss.margin),
        )
    return (lambda z: ops.softplus(-z)), ops.softplus


def _asymmetric_negative(z, gamma: float, margin: float):
    if not margin:
        return ops.exp(-gamma * ops.softplus(-z)) * ops.softplus(z)
    counts = ops.sigmoid(z) > margin
    q = ops.where(counts, ops.sigmoid(z) - margin, 1.0)  # a power of nought has no gradient
    return ops.where(counts, -ops.power(q, gamma) * ops.log(ops.where(counts, ops.sigmoid(-z) + margin, 1.0)), 0.0)


def weigh_positives(positives: np.ndarray, num_images: int) -> np.ndarray:
    """Negatives to positives of each label (15,), so that both weigh the same together; of a label without any, 1."""
    return np.where(positives > 0, (num_images - positives) / np.maximum(positives, 1), 1.0)
