"""Multi-label losses on logits; labels that are not known are masked.

All built-in losses have the form y * positive(z) + (1 - y) * negative(z) for a logit z and its target y, with
p = sigmoid(z).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import tensorflow as tf
from keras import ops

from cxrkeras.config import REGISTERED_LOSSES, Loss
from cxrkeras.errors import InputError


@dataclass(frozen=True)
class TargetCounts:
    """Counts of each label in the training images: `positives`, and images where it is `known`, int (L,), both without
    uncertain ones; `targets_per_image`, the mean number of labels per image that count in the loss, float."""

    images: int
    positives: np.ndarray
    known: np.ndarray
    targets_per_image: float


def require_counts(counts: TargetCounts | None, setting: str) -> TargetCounts:
    """Return the counts. Raises ValueError without them."""
    if counts is None:
        raise ValueError(f"{setting} needs the counts of the labels in the training folds")
    return counts


def build_elements(loss: Loss, counts: TargetCounts | None = None) -> Callable:
    """Build the elementwise loss: a function of targets (N, L), 0 to 1 or NaN, and logits (N, L).

    The loss has the shape and dtype of the logits; where the target is NaN, it and its gradient are 0. `counts` are
    those of the training folds, for default weights.

    - bce: log(1 + e^-z) and log(1 + e^z).
    - weighted_bce: as bce, the former times the weight of the label, as PyTorch's pos_weight.
    - focal: -alpha (1 - p)^gamma log p and -(1 - alpha) p^gamma log(1 - p); Lin et al., ICCV 2017, arXiv 1708.02002.
    - hamming: 1 - p and p, the expected share of wrong labels.
    - asymmetric: -(1 - p)^gamma_positive log p and -q^gamma_negative log(1 - q) with q = max(p - margin, 0);
      Ridnik et al., ICCV 2021, arXiv 2009.14119.
    - any other: the function passed to `register_loss`.
    """
    registered = REGISTERED_LOSSES.get(loss.name)
    positive, negative = _build_sides(loss, counts)

    def elements(targets, logits):
        is_known = ops.logical_not(ops.isnan(targets))
        # Both branches of a `where` are differentiated: NaN must be replaced before the loss is computed.
        targets = ops.cast(ops.where(is_known, targets, 0.0), logits.dtype)
        logits = ops.where(is_known, logits, ops.zeros_like(logits))
        targets = targets * (1 - loss.label_smoothing) + loss.label_smoothing / 2
        values = (
            registered(targets, logits) if registered else targets * positive(logits) + (1 - targets) * negative(logits)
        )
        return ops.where(is_known, values, ops.zeros_like(values))

    return elements


def check_registered(loss: Loss, num_labels: int) -> None:
    """Try a registered loss. Raises InputError if it fails or does not return the loss of each element."""
    if (elements := REGISTERED_LOSSES.get(loss.name)) is None:
        return
    shape = (2, num_labels)
    try:
        found = tf.convert_to_tensor(elements(tf.zeros(shape), tf.zeros(shape))).shape
    except Exception as error:  # whatever a function of the user raises
        raise InputError(f"the loss {loss.name} fails on targets and logits of shape {shape}: {error}") from error
    if tuple(found) != shape:
        raise InputError(
            f"the loss {loss.name} must return the loss of each element, {shape} for logits of that shape; got "
            f"{tuple(found)}"
        )


def build_loss(loss: Loss, num_labels: int, counts: TargetCounts | None = None) -> Callable:
    """Build the training loss: a function like that of `build_elements`, whose mean over a batch is the sum over the
    known elements, divided by the number of images times the mean number of targets per training image.

    The divisor does not depend on which labels of a batch are known, so that the sums over slices of a batch add up,
    also on several devices. If all labels are known, it is the mean over images and labels.
    """
    elements = build_elements(loss, counts)
    scale = num_labels / counts.targets_per_image if counts and counts.targets_per_image else 1.0

    def scaled(targets, logits):
        values = elements(targets, logits) * ops.cast(scale, logits.dtype)
        return values * _balance_devices(values)

    return scaled


def _balance_devices(values):
    """Compute the factor that weights the mean of this device by its share of the images in the batch."""
    num_devices = tf.distribute.get_strategy().num_replicas_in_sync
    context = tf.distribute.get_replica_context()
    if num_devices == 1 or context is None:
        return ops.ones((), values.dtype)
    num_images = tf.cast(ops.shape(values)[0], tf.float32)
    total = context.all_reduce(tf.distribute.ReduceOp.SUM, num_images)
    return ops.cast(num_images * num_devices / total, values.dtype)


def mean_loss(elements: Callable, targets: np.ndarray, logits: np.ndarray) -> float:
    """Compute the mean of a loss over the elements with a target; NaN if there are none."""
    known = int(np.isfinite(targets).sum())
    return float(np.sum(elements(targets, tf.constant(logits)))) / known if known else np.nan


def _build_sides(loss: Loss, counts: TargetCounts | None) -> tuple[Callable, Callable]:
    if loss.name == "weighted_bce":
        weights = np.array(loss.weights or _default_weights(counts))
        return (lambda z: ops.cast(weights, z.dtype) * ops.softplus(-z)), ops.softplus
    if loss.name == "focal":
        alpha, gamma = np.array(loss.alpha), loss.gamma
        # (1 - p)^gamma from its logarithm, because a power of 0 has no gradient
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


def _default_weights(counts: TargetCounts | None) -> list[float]:
    counts = require_counts(counts, "weighted_bce without loss.weights")
    return weigh_positives(counts.positives, counts.known).tolist()


def _asymmetric_negative(z, gamma: float, margin: float):
    if not margin:
        return ops.exp(-gamma * ops.softplus(-z)) * ops.softplus(z)
    is_above = ops.sigmoid(z) > margin
    q = ops.where(is_above, ops.sigmoid(z) - margin, 1.0)  # a power of 0 has no gradient
    return ops.where(is_above, -ops.power(q, gamma) * ops.log(ops.where(is_above, ops.sigmoid(-z) + margin, 1.0)), 0.0)


def weigh_positives(positives: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Compute the ratio of negatives to positives per label (L,), which balances them; 1 without positives."""
    return np.where(positives > 0, (known - positives) / np.maximum(positives, 1), 1.0)
