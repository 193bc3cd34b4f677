"""Out-of-distribution (OOD) check, based on features and grey-level statistics of the training images."""

import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cxrkeras.errors import InputError
from cxrkeras.models.classifier import LOGITS
from cxrkeras.progress import Advance
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import ADOPTED, OOD_CHECK

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
KINDS = ("features", "statistics", "rotated")  # of distances
PASSED = 0.995  # share of validation images within the limit of each distance
_SHRINK = {"features": 0.05, "statistics": 0.05}  # shrinkage: share of the mean variance added to the covariance
VERSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "its grey levels are inverted": lambda images: 255 - images,
    "it is rotated by 90 degrees to the left": lambda images: np.rot90(images, -1, axes=(1, 2)),
    "it is rotated by 90 degrees to the right": lambda images: np.rot90(images, 1, axes=(1, 2)),
    "it is upside down": lambda images: np.rot90(images, 2, axes=(1, 2)),
}


def describe_images(images: np.ndarray) -> np.ndarray:
    """Compute simple statistics of uint8 images (N, S, S, 1), float64 (N, 70), named by STATISTICS.

    Grey levels are divided by 255. The means of 8 x 8 cells, standardised by the image's mean and standard deviation,
    describe its coarse shape independently of the exposure.
    """
    x = images[..., 0] / 255
    shape = (x - x.mean((1, 2), keepdims=True)) / (x.std((1, 2), keepdims=True) + 0.02)
    rows = [band.mean(axis=1) for band in np.array_split(shape, _CELLS, axis=1)]
    cells = [cell.mean(axis=1) for row in rows for cell in np.array_split(row, _CELLS, axis=1)]
    columns = [
        x.mean((1, 2)),
        x.std((1, 2)),
        (x < 0.02).mean((1, 2)),
        (x > 0.98).mean((1, 2)),
        np.abs(np.diff(x, axis=2)).mean((1, 2)),
        np.abs(np.diff(x, axis=1)).mean((1, 2)),
        *cells,
    ]
    return np.stack(columns, axis=1)


def build_extractor(network: keras.Model) -> Callable[[np.ndarray], np.ndarray]:
    """Build a function of images, uint8 (N, S, S, 1), that returns the penultimate features, float64 (N, F)."""
    penultimate = keras.Model(network.input, network.get_layer(LOGITS).input)

    @tf.function(reduce_retracing=True, autograph=False)
    def extract(images: tf.Tensor) -> tf.Tensor:
        return penultimate(tf.cast(images, tf.float32), training=False)

    return lambda images: extract(images).numpy().astype(np.float64)


def fit_ood_check(
    network: keras.Model,
    training: Iterable[Iterable[tuple[Any, ...]]],
    validation: Iterable[tuple[Any, ...]],
    advance: Advance = lambda count=1: None,
) -> dict[str, np.ndarray]:
    """Fit the mean and covariance of penultimate features and simple statistics on training images, and the limits.

    training: evaluation batches of each training fold; validation: those of the held-out fold. Returns float64 arrays
    `features_mean` (F,), `features_covariance` (F, F), `statistics_mean`, `statistics_covariance`, the number of
    `images`, the names of the `statistics`, and the limits `cuts` (3,): the distances, in the order of KINDS, within
    which 99.5 % of the validation images lie.
    """
    extract = build_extractor(network)
    moments = {"features": _Moments(), "statistics": _Moments()}
    for batches in training:
        for images, *_ in batches:
            moments["features"].add(extract(images))
            moments["statistics"].add(describe_images(images.numpy()))
            advance()
    fitted = {"images": np.array(moments["features"].count), "statistics": np.array(STATISTICS)}
    for name, moment in moments.items():
        fitted |= {f"{name}_mean": moment.mean, f"{name}_covariance": moment.products / max(moment.count - 1, 1)}
    check = OodCheck(**{name: _Distance.of(fitted, name) for name in moments}, limits=np.full(len(KINDS), np.inf))
    measured = []
    for images, *_ in validation:
        measured.append(check.measure(images.numpy(), extract(images))[0])
        advance()
    return fitted | {"cuts": np.quantile(np.concatenate(measured), PASSED, axis=0)}


@dataclass(frozen=True)
class _Distance:
    """The Mahalanobis distance from a mean, with a shrunk covariance."""

    mean: np.ndarray
    whitening: np.ndarray

    @classmethod
    def of(cls, fitted: Mapping[str, np.ndarray], name: str) -> "_Distance":
        covariance = fitted[f"{name}_covariance"]
        size = len(fitted[f"{name}_mean"])
        if covariance.shape != (size, size) or not np.isfinite(covariance).all():
            raise ValueError(f"its covariance of {name} is invalid")
        shrunk = covariance + np.eye(size) * (_SHRINK[name] * np.trace(covariance) / size + 1e-12)
        return cls(fitted[f"{name}_mean"], np.linalg.inv(np.linalg.cholesky(shrunk)).T)

    def measure(self, rows: np.ndarray) -> np.ndarray:
        """Compute the distances (N,) of rows (N, F), divided by the root of F, so that typical ones are near 1."""
        distances: np.ndarray = np.linalg.norm((rows - self.mean) @ self.whitening, axis=1) / np.sqrt(len(self.mean))
        return distances


@dataclass(frozen=True)
class OodCheck:
    """Detects images that differ from those a network was trained on, and says how."""

    features: _Distance
    statistics: _Distance
    limits: np.ndarray

    def measure(self, images: np.ndarray, features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute the distances (N, 3) of images, uint8 (N, S, S, 1), and the index of the likeliest of VERSIONS (N,).

        The third distance is how much closer to the training images an inverted or rotated version of the image is.
        """
        own = self.statistics.measure(describe_images(images))
        others = np.stack([self.statistics.measure(describe_images(change(images))) for change in VERSIONS.values()])
        return np.stack([self.features.measure(features), own, own - others.min(axis=0)], axis=1), others.argmin(axis=0)

    def judge(self, images: np.ndarray, features: np.ndarray) -> list[list[str]]:
        """Per image, the reasons it looks out of distribution; an empty list means that it passed."""
        measured, likeliest = self.measure(images, features)
        verdicts = []
        for distances, version, image in zip(measured, likeliest, images, strict=True):
            is_above = distances > self.limits
            reasons = []
            if image.std() < 2:
                reasons.append("it is blank")
            elif is_above[2] and distances[1] - distances[2] <= self.limits[1]:  # the other version would pass
                reasons.append(f"it looks as if {list(VERSIONS)[version]}")
            elif is_above[1] or is_above[2]:
                reasons.append("its brightness and contrast are not those of a frontal chest radiograph")
            if is_above[0] and not reasons:
                reasons.append("it is unlike all images that the network was trained on")
            verdicts.append(reasons)
        return verdicts


def open_ood_check(fold: Fold, network: keras.Model) -> OodCheck | None:
    """Open the check of a fold; None for an adopted network that has none. Raises InputError if it does not fit."""
    path = fold.folder / OOD_CHECK
    if fold.kind == ADOPTED and not path.is_file():
        return None
    check = load_ood_check(path)
    if len(check.features.mean) != network.get_layer(LOGITS).input.shape[-1]:
        raise InputError(f"{path} is of another network: make it again with the network, or restore it")
    return check


def load_ood_check(path: Path) -> OodCheck:
    """Load input_check.npz of a fold. Raises InputError if it is missing, damaged or of a version without limits."""
    try:
        with np.load(path, allow_pickle=False) as file:
            fitted = dict(file)
        if tuple(fitted["statistics"]) != STATISTICS:
            raise ValueError("it has other statistics than this version")
        if fitted["cuts"].shape != (len(KINDS),) or not np.isfinite(fitted["cuts"]).all():
            raise ValueError("its limits are not three numbers")
        distances = {name: _Distance.of(fitted, name) for name in ("features", "statistics")}
        return OodCheck(**distances, limits=fitted["cuts"])
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, np.linalg.LinAlgError) as error:
        what = "an out-of-distribution check"
        raise InputError(f"{path} cannot be read as {what} ({error}): retrain the fold") from None


class _Moments:
    """Mean and summed products of deviations, updated batch by batch (Chan, Golub and LeVeque, 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.products = 0, np.zeros(()), np.zeros(())

    def add(self, rows: np.ndarray) -> None:
        total, mean = self.count + len(rows), rows.mean(axis=0)
        step = mean - self.mean
        inner = (rows - mean).T @ (rows - mean)
        self.products = self.products + inner + np.outer(step, step) * self.count * len(rows) / total
        self.mean = self.mean + step * len(rows) / total
        self.count = total
