"""What the images of the training folds look like, to a network and simply: for telling others from them later."""

from collections.abc import Callable, Iterable

import keras
import numpy as np
import tensorflow as tf

from cxrkeras.models.classifier import LOGITS

_CELLS = 4
STATISTICS = (
    "mean",
    "deviation",
    "share of black",
    "share of white",
    "horizontal change",
    "vertical change",
    *(f"mean of row {row}, column {column}" for row in range(_CELLS) for column in range(_CELLS)),
)


def describe_images(images: np.ndarray) -> np.ndarray:
    """Simple statistics of uint8 images (N, S, S, 1) as float64 (N, 22), named by STATISTICS; grey levels over 255."""
    x = images[..., 0] / 255
    rows = [part.mean(axis=1) for part in np.array_split(x, _CELLS, axis=1)]
    cells = [part.mean(axis=1) for row in rows for part in np.array_split(row, _CELLS, axis=1)]
    parts = [
        x.mean((1, 2)),
        x.std((1, 2)),
        (x < 0.02).mean((1, 2)),
        (x > 0.98).mean((1, 2)),
        np.abs(np.diff(x, axis=2)).mean((1, 2)),
        np.abs(np.diff(x, axis=1)).mean((1, 2)),
        *cells,
    ]
    return np.stack(parts, axis=1)


def fit_input_check(
    network: keras.Model, parts: Iterable[tf.data.Dataset], advance: Callable[[int], None] = lambda count: None
) -> dict[str, np.ndarray]:
    """Mean and covariance of the penultimate features and of the simple statistics of all images.

    `parts` are evaluation batches of records. Returns float64 arrays `features_mean` (F,), `features_covariance`
    (F, F), `statistics_mean`, `statistics_covariance`, the number of `images`, and the names of the `statistics`.
    """
    penultimate = keras.Model(network.input, network.get_layer(LOGITS).input)
    extract = tf.function(
        lambda images: penultimate(tf.cast(images, tf.float32), training=False), reduce_retracing=True
    )
    moments = {"features": _Moments(), "statistics": _Moments()}
    for batches in parts:
        for images, *_ in batches:
            moments["features"].add(extract(images).numpy().astype(np.float64))
            moments["statistics"].add(describe_images(images.numpy()))
            advance(1)
    fitted = {"images": np.array(moments["features"].count), "statistics": np.array(STATISTICS)}
    for name, moment in moments.items():
        fitted |= {f"{name}_mean": moment.mean, f"{name}_covariance": moment.products / max(moment.count - 1, 1)}
    return fitted


class _Moments:
    """Mean and summed products of deviations, batch by batch (Chan, Golub and LeVeque, 1979)."""

    count, mean, products = 0, 0.0, 0.0

    def add(self, rows: np.ndarray) -> None:
        total, mean = self.count + len(rows), rows.mean(axis=0)
        step = mean - self.mean
        inner = (rows - mean).T @ (rows - mean)
        self.products = self.products + inner + np.outer(step, step) * self.count * len(rows) / total
        self.mean = self.mean + step * len(rows) / total
        self.count = total
