"""How often each image is seen in an epoch."""

import numpy as np

from cxrkeras.config import Sampling


def expect_copies(hot: np.ndarray, sampling: Sampling) -> np.ndarray:
    """Copies of each image to be expected in a balanced epoch, (N,), N in all.

    hot: 0 or 1, (N, L), L labels. An image counts in proportion to 1 / (sum over its positive labels of that label's
    count), as in the original; one without a positive label as the most common label's would. The copies are kept
    between `least` and `most`, and the rest is scaled so that the epoch keeps its length.
    """
    counts = hot.sum(axis=0)
    weights = 1 / np.where(hot.any(axis=1), hot @ counts, counts.max())
    least, most = sampling.least, sampling.most or np.inf
    low, high = 0.0, len(hot) / weights.min()
    for _ in range(200):  # bisection: the sum of the copies grows with the scale
        scale = (low + high) / 2
        copies = np.clip(scale * weights, least, most)
        low, high = (scale, high) if copies.sum() < len(hot) else (low, scale)
    return copies


def draw_copies(expected: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the copies of each image in one epoch, int64 (N,), N in all: what N draws with replacement would give."""
    return rng.multinomial(len(expected), expected / expected.sum())


def split_passes(copies: np.ndarray, num_passes: int, rng: np.random.Generator) -> np.ndarray:
    """Spread the copies of each image evenly over passes through the data: int64 (num_passes, N)."""
    starts = rng.integers(num_passes, size=len(copies))
    return (copies + (starts - np.arange(num_passes)[:, None]) % num_passes) // num_passes
