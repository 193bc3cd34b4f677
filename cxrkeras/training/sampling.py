"""Weighted sampling: how often each image occurs in an epoch."""

import numpy as np

from cxrkeras.config import Sampling


def is_weighted(sampling: Sampling) -> bool:
    """Whether some images occur more often than others."""
    return sampling.name == "balanced" or sampling.sources == "equal"


def expect_copies(is_positive: np.ndarray, sampling: Sampling, sources: np.ndarray | None = None) -> np.ndarray:
    """Compute the expected copies of each image in an epoch, (N,), N in total.

    is_positive: bool (N, L), false where a label is absent, uncertain or not known. balanced: copies are proportional
    to 1 / (sum of the counts of the image's positive labels), as in the original implementation; an image without
    positive labels counts like one with the most common label. Copies are clipped to `least` and `most`, and the others
    scaled so that the epoch keeps its length. With equal sources each of `sources` (N,) gets the same share of the
    epoch.
    """
    weights = np.ones(len(is_positive))
    if sampling.name == "balanced":
        is_positive = is_positive.astype(float)
        counts = is_positive.sum(axis=0)
        weights = 1 / np.where(is_positive.any(axis=1), is_positive @ counts, max(counts.max(), 1))
    least, most = sampling.least, sampling.most or np.inf
    if sampling.sources != "equal" or sources is None:
        return _scale(weights, len(weights), least, most)
    names, of_image = np.unique(sources.astype(str), return_inverse=True)
    copies = np.empty(len(weights))
    for number in range(len(names)):
        here = of_image == number
        copies[here] = _scale(weights[here], len(weights) / len(names), least, most)
    return copies


def _scale(weights: np.ndarray, total: float, least: float, most: float) -> np.ndarray:
    """Scale weights so that they sum to `total` after clipping to `least` and `most`, as far as these allow it."""
    low, high = 0.0, total / weights.min()
    for _ in range(200):  # bisection: the sum of the copies grows with the scale
        scale = (low + high) / 2
        copies = np.clip(scale * weights, least, most)
        low, high = (scale, high) if copies.sum() < total else (low, scale)
    return copies


def sample_copies(expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Sample the copies of each image in an epoch, int64 (N,), N in total, as by N draws with replacement."""
    return rng.multinomial(len(expected), expected / expected.sum())


def split_passes(copies: np.ndarray, num_passes: int, rng: np.random.Generator) -> np.ndarray:
    """Spread the copies of each image evenly over passes over the data; int64 (num_passes, N)."""
    starts = rng.integers(num_passes, size=len(copies))
    return (copies + (starts - np.arange(num_passes)[:, None]) % num_passes) // num_passes
