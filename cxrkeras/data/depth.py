"""Converts deep grey levels to 8 bits, by lookup tables and in strips so that memory stays bounded."""

from collections.abc import Iterator

import numpy as np

# Percentiles of the levels that become black and white in an image without a window of its own. With the minimum and
# maximum, a single hot pixel or a burnt-in marker would darken everything else; 0.1 % at each end is less than any
# anatomy covers.
WINDOW = (0.1, 99.9)
GREY_WEIGHTS = (19595, 38470, 7471)  # of red, green and blue, over 65,536: those of Pillow's convert("L")
_STRIP = 2**20  # values


def split_strips(length: int) -> Iterator[slice]:
    """Yield slices that cover the length, each of at most a megapixel."""
    for start in range(0, length, _STRIP):
        yield slice(start, start + _STRIP)


def count_words(words: np.ndarray, num: int) -> np.ndarray:
    """Count how often each of the words 0 to num - 1 occurs; int64 (num,)."""
    counts = np.zeros(num, np.int64)
    for strip in split_strips(words.size):
        counts += np.bincount(words[strip], minlength=num)
    return counts


def look_up(words: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each word (N,) by its entry in a uint8 table; uint8 (N,)."""
    grey = np.empty(words.size, np.uint8)
    for strip in split_strips(words.size):
        grey[strip] = table[words[strip]]
    return grey


def choose_window(levels: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Choose the levels that become black and white: the percentiles of WINDOW, interpolated as by `np.percentile`.

    levels (K,) occur counts (K,) times. Where the percentiles coincide, the minimum and maximum are used.
    """
    is_present = counts > 0
    levels, counts = levels[is_present], counts[is_present]
    if not levels.size:
        return 0.0, 0.0
    order = np.argsort(levels, kind="stable")
    levels, ends = levels[order].astype(np.float64), np.cumsum(counts[order])
    places = (ends[-1] - 1) * np.array(WINDOW) / 100
    below = np.floor(places)
    at, after = (levels[np.searchsorted(ends, np.minimum(below + k, ends[-1] - 1), side="right")] for k in (0, 1))
    low, high = at + (after - at) * (places - below)
    return (float(low), float(high)) if low < high else (float(levels[0]), float(levels[-1]))


def stretch(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    """Map levels from `low` to `high` to grey 0 to 255, not rounded; black if the two are equal."""
    return np.clip((levels - low) * (255 / (high - low)), 0, 255) if high > low else np.zeros(levels.shape)


def round_grey(grey: np.ndarray) -> np.ndarray:
    return np.round(grey).astype(np.uint8)
