"""From deep grey levels to the eight bits of a picture: by tables, and in strips, so that memory stays bounded."""

from collections.abc import Iterator

import numpy as np

# Percentiles of the levels that become black and white where an image brings no window of its own. By the least and
# the greatest level one hot pixel, or a marker burnt into a corner, would darken all the rest; a thousandth at each end
# is less than any anatomy covers.
WINDOW = (0.1, 99.9)
GREY_WEIGHTS = (19595, 38470, 7471)  # of red, green and blue, over 65,536: those of Pillow's convert("L")
_STRIP = 2**20  # values


def split_strips(length: int) -> Iterator[slice]:
    """Slices that cover the length, each of a megapixel at most."""
    for start in range(0, length, _STRIP):
        yield slice(start, start + _STRIP)


def count_words(words: np.ndarray, num: int) -> np.ndarray:
    """How often each of the words 0 to num - 1 occurs; int64 (num,)."""
    counts = np.zeros(num, np.int64)
    for part in split_strips(words.size):
        counts += np.bincount(words[part], minlength=num)
    return counts


def look_up(words: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Replace each word (N,) by its entry in a uint8 table; uint8 (N,)."""
    grey = np.empty(words.size, np.uint8)
    for part in split_strips(words.size):
        grey[part] = table[words[part]]
    return grey


def choose_window(levels: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The levels that become black and white: the percentiles of WINDOW, as `np.percentile` interpolates them.

    levels (K,) occur counts (K,) times. The least and the greatest where the percentiles coincide.
    """
    is_there = counts > 0
    levels, counts = levels[is_there], counts[is_there]
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
    """Grey 0 to 255, not rounded, of levels from `low` to `high`; black where the two are one."""
    return np.clip((levels - low) * (255 / (high - low)), 0, 255) if high > low else np.zeros(levels.shape)


def round_grey(grey: np.ndarray) -> np.ndarray:
    return np.round(grey).astype(np.uint8)
