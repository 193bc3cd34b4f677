"""What the images of the training folds look like, to a network and simply: for telling others from them."""

import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from cxrkeras.errors import InputError
from cxrkeras.models.classifier import LOGITS

_CELLS = 8
STATISTICS = (
    "mean",
    "deviation",
    "share of black",
    "share of white",
    "horizontal change",
    "vertical change",
    *(f"standardised mean of row {row}, column {column}" for row in range(_CELLS) for column in range(_CELLS)),
)
KINDS = ("features", "statistics", "turned")  # of distances
PASSED = 0.995  # share of validation images that each kind of check lets pass
_SHRINK = {"features": 0.05, "statistics": 0.05}  # share of the mean variance added to the covariance
VERSIONS = {
    "its grey levels are inverted": lambda images: 255 - images,
    "it is turned by 90 degrees to the left": lambda images: np.rot90(images, -1, axes=(1, 2)),
    "it is turned by 90 degrees to the right": lambda images: np.rot90(images, 1, axes=(1, 2)),
    "it is upside down": lambda images: np.rot90(images, 2, axes=(1, 2)),
}


def describe_images(images: np.ndarray) -> np.ndarray:
    """Simple statistics of uint8 images (N, S, S, 1) as float64 (N, 70), named by STATISTICS; grey levels over 255.

    Means of 8 x 8 cells, less the image's mean and over its deviation, show the coarse shape whatever the exposure.
    """
    x = images[..., 0] / 255
    shape = (x - x.mean((1, 2), keepdims=True)) / (x.std((1, 2), keepdims=True) + 0.02)
    rows = [part.mean(axis=1) for part in np.array_split(shape, _CELLS, axis=1)]
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


def build_extractor(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """A function of images, uint8 (N, S, S, 1), that gives the features before the logits, float64 (N, F)."""
    penultimate = keras.Model(network.input, network.get_layer(LOGITS).input)

    @tf.function(reduce_retracing=True, autograph=False)
    def extract(images):
        return penultimate(tf.cast(images, tf.float32), training=False)

    return lambda images: extract(images).numpy().astype(np.float64)


def fit_input_check(
    network: keras.Model,
    parts: Iterable[tf.data.Dataset],
    validation: tf.data.Dataset,
    advance: Callable[[int], None] = lambda count: None,
) -> dict[str, np.ndarray]:
    """Mean and covariance of the penultimate features and of the simple statistics of training images, and cuts.

    `parts` are evaluation batches of the training folds, `validation` those of the fold held out. Returns float64
    arrays `features_mean` (F,), `features_covariance` (F, F), `statistics_mean`, `statistics_covariance`, the number
    of `images`, the names of the `statistics`, and `cuts` (3,): the distances, in the order of KINDS, that 99.5 % of
    the validation images stay within.
    """
    extract = build_extractor(network)
    moments = {"features": _Moments(), "statistics": _Moments()}
    for batches in parts:
        for images, *_ in batches:
            moments["features"].add(extract(images))
            moments["statistics"].add(describe_images(images.numpy()))
            advance(1)
    fitted = {"images": np.array(moments["features"].count), "statistics": np.array(STATISTICS)}
    for name, moment in moments.items():
        fitted |= {f"{name}_mean": moment.mean, f"{name}_covariance": moment.products / max(moment.count - 1, 1)}
    check = InputCheck(**{name: _Distance.of(fitted, name) for name in moments}, cuts=np.full(len(KINDS), np.inf))
    measured = []
    for images, *_ in validation:
        measured.append(check.measure(images.numpy(), extract(images))[0])
        advance(1)
    return fitted | {"cuts": np.quantile(np.concatenate(measured), PASSED, axis=0)}


@dataclass(frozen=True)
class _Distance:
    """Mahalanobis' distance from a mean, by the inverse of a shrunk covariance's root."""

    mean: np.ndarray
    whitening: np.ndarray

    @classmethod
    def of(cls, fitted, name: str) -> "_Distance":
        covariance = fitted[f"{name}_covariance"]
        size = len(fitted[f"{name}_mean"])
        if covariance.shape != (size, size) or not np.isfinite(covariance).all():
            raise ValueError(f"its covariance of {name} is none")
        shrunk = covariance + np.eye(size) * (_SHRINK[name] * np.trace(covariance) / size + 1e-12)
        return cls(fitted[f"{name}_mean"], np.linalg.inv(np.linalg.cholesky(shrunk)).T)

    def measure(self, rows: np.ndarray) -> np.ndarray:
        """Distances (N,) of rows (N, F), over the root of F, so that 1 is common."""
        return np.linalg.norm((rows - self.mean) @ self.whitening, axis=1) / np.sqrt(len(self.mean))


@dataclass(frozen=True)
class InputCheck:
    """Tells images that are not like those a network was trained on, with a reason."""

    features: _Distance
    statistics: _Distance
    cuts: np.ndarray

    def measure(self, images: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Distances (N, 3) of images uint8 (N, S, S, 1) with their features, and the likeliest of VERSIONS (N,).

        The third is how much nearer to the training images an inverted or turned version is than the image itself.
        """
        own = self.statistics.measure(describe_images(images))
        others = np.stack([self.statistics.measure(describe_images(turn(images))) for turn in VERSIONS.values()])
        return np.stack([self.features.measure(features), own, own - others.min(axis=0)], axis=1), others.argmin(axis=0)

    def judge(self, images: np.ndarray, features: np.ndarray) -> list[list[str]]:
        """For each image the reasons against its being a chest radiograph like those of the training; none is well."""
        measured, likeliest = self.measure(images, features)
        verdicts = []
        for distances, version, image in zip(measured, likeliest, images, strict=True):
            strange = distances > self.cuts
            reasons = []
            if image.std() < 2:
                reasons.append("it is blank")
            elif strange[2] and distances[1] - distances[2] <= self.cuts[1]:  # the other version would pass
                reasons.append(f"it looks as if {list(VERSIONS)[version]}")
            elif strange[1] or strange[2]:
                reasons.append("its brightness and contrast are not those of a frontal chest radiograph")
            if strange[0] and not reasons:
                reasons.append("it is unlike all images that the network was trained on")
            verdicts.append(reasons)
        return verdicts


def load_input_check(path: Path) -> InputCheck:
    """Read input_check.npz of a fold; InputError if it is missing, damaged or was fitted before there were cuts."""
    try:
        with np.load(path, allow_pickle=False) as file:
            fitted = dict(file)
        if tuple(fitted["statistics"]) != STATISTICS:
            raise ValueError("it has other statistics than this version")
        if fitted["cuts"].shape != (len(KINDS),) or not np.isfinite(fitted["cuts"]).all():
            raise ValueError("its cuts are not three numbers")
        distances = {name: _Distance.of(fitted, name) for name in ("features", "statistics")}
        return InputCheck(**distances, cuts=fitted["cuts"])
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, np.linalg.LinAlgError) as error:
        raise InputError(f"{path} cannot be read as an input check ({error}): train the fold anew") from None


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
