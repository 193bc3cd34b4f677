"""From the stored values of a DICOM image to grey levels, as DICOM PS3.3 C.11 says.

In this order: modality LUT or rescale (C.11.1), VOI LUT or window (C.11.2), MONOCHROME1 turned round. Padding is shown
black. All is computed once for each value that can be stored, and looked up.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

LOW, HIGH = 0.001, 0.999  # one hot pixel, or a marker, must not darken the rest; nor a few dead ones brighten it
STRIP = 1 << 20  # pixels at a time, which bounds the memory
LINEAR, LINEAR_EXACT, SIGMOID = "LINEAR", "LINEAR_EXACT", "SIGMOID"


@dataclass(frozen=True)
class Lookup:
    """A lookup table: `entries` for input values from `first` on; those before and after take the first and last."""

    entries: np.ndarray
    first: int

    def apply(self, values: np.ndarray) -> np.ndarray:
        places = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[places.astype(np.int64)].astype(np.float64)


@dataclass(frozen=True)
class Window:
    """A VOI window; `apply` gives 0 to 1."""

    center: float
    width: float
    function: str = LINEAR

    def apply(self, values: np.ndarray) -> np.ndarray:
        if self.function == SIGMOID:
            with np.errstate(over="ignore"):
                return 1 / (1 + np.exp(-4 * (values - self.center) / self.width))
        # Widths under 1 are not allowed for LINEAR; images in calibrated units have them and mean the exact one.
        if self.function == LINEAR_EXACT or self.width < 1:
            return np.clip((values - self.center) / self.width + 0.5, 0, 1)
        if self.width == 1:
            return (values > self.center - 0.5).astype(np.float64)
        return np.clip((values - (self.center - 0.5)) / (self.width - 1) + 0.5, 0, 1)


@dataclass(frozen=True)
class Grading:
    """How stored values become grey levels.

    bits: of a stored value, of which the lowest is the bit number `shift` of a pixel; is_signed: of the stored values;
    modality: slope and intercept, or a table; voi: a table, a window, or None for the percentiles of the image itself;
    is_inverted: MONOCHROME1; padding: the first and the last stored value that is no part of the image.
    """

    bits: int
    shift: int
    is_signed: bool
    modality: tuple[float, float] | Lookup
    voi: Lookup | Window | None
    is_inverted: bool
    padding: tuple[int, int] | None

    def apply(self, patterns: np.ndarray) -> np.ndarray:
        """Grey levels, uint8 (height, width), of the bits of each pixel as they are stored: uint8, uint16 or uint32."""
        if patterns.itemsize == 4 and self.bits <= 16:
            narrow = np.empty(patterns.shape, np.uint16)
            for rows in _strips(patterns):
                narrow[rows] = (patterns[rows] >> self.shift) & ((1 << self.bits) - 1)
            return replace(self, shift=0).apply(narrow)
        if patterns.itemsize == 4:
            return self._apply_directly(patterns)
        every = np.arange(1 << (8 * patterns.itemsize))
        counts = _count(patterns, len(every)) if self.voi is None else np.ones(len(every))
        table = self._grade(self._read_bits(every), counts)
        out = np.empty(patterns.shape, np.uint8)
        for rows in _strips(patterns):
            np.take(table, patterns[rows], out=out[rows], mode="clip")
        return out

    def _read_bits(self, patterns: np.ndarray) -> np.ndarray:
        """The stored values of bits, int64: those above and below the stored ones are left out."""
        values = (patterns.astype(np.int64) >> self.shift) & ((1 << self.bits) - 1)
        return values - ((values >> (self.bits - 1)) << self.bits) if self.is_signed else values

    def _grade(self, stored: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Grey levels, uint8, of stored values that occur so often."""
        values = self._rescale(stored)
        is_padding = self._is_padding(stored)
        shown = np.where(is_padding, 0, counts)
        shares = self._scale(values, shown)
        grey = np.round(255 * (1 - shares if self.is_inverted else shares)).astype(np.uint8)
        grey[is_padding] = 0
        return grey

    def _apply_directly(self, patterns: np.ndarray) -> np.ndarray:
        """The same for so many bits that no table holds them all."""
        grading = self
        if self.voi is None:
            values, counts = np.unique(patterns, return_counts=True)
            stored = self._read_bits(values)
            low, high = find_percentiles(self._rescale(stored), np.where(self._is_padding(stored), 0, counts))
            grading = replace(self, voi=Window((low + high) / 2, max(high - low, 1e-9), LINEAR_EXACT))
        out = np.empty(patterns.shape, np.uint8)
        for rows in _strips(patterns):
            out[rows] = grading._grade(self._read_bits(patterns[rows]), np.ones(1))
        return out

    def _rescale(self, stored: np.ndarray) -> np.ndarray:
        if isinstance(self.modality, Lookup):
            return self.modality.apply(stored)
        slope, intercept = self.modality
        return stored * slope + intercept

    def _is_padding(self, stored: np.ndarray) -> np.ndarray:
        if self.padding is None:
            return np.zeros(stored.shape, bool)
        return (stored >= self.padding[0]) & (stored <= self.padding[1])

    def _scale(self, values: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Values that occur so often to 0..1."""
        if isinstance(self.voi, Window):
            return self.voi.apply(values)
        if isinstance(self.voi, Lookup):
            return np.clip(self.voi.apply(values) / max(float(self.voi.entries.max()), 1), 0, 1)
        if self.bits <= 8 and not isinstance(self.modality, Lookup) and self.modality == (1.0, 0.0):
            low = -(1 << (self.bits - 1)) if self.is_signed else 0  # shown as it is stored, like an 8-bit PNG
            return (values - low) / ((1 << self.bits) - 1)
        low, high = find_percentiles(values, counts)
        return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(values.shape)


def find_percentiles(values: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """The percentiles 0.1 and 99.9 of values (V,) that occur so often, interpolated as np.percentile does."""
    order = np.argsort(values, kind="stable")
    values, reached = values[order], np.cumsum(counts[order])
    if not len(reached) or not reached[-1]:
        return 0.0, 0.0
    found = []
    for share in (LOW, HIGH):
        place = share * (reached[-1] - 1)
        below, above = (values[np.searchsorted(reached, n, "right")] for n in (math.floor(place), math.ceil(place)))
        found.append(float(below + (above - below) * (place % 1)))
    return found[0], found[1]


def window_deep(levels: np.ndarray) -> np.ndarray:
    """Grey levels of more than 8 bits, uint16 (height, width), to uint8 by their percentiles."""
    return Grading(16, 0, False, (1.0, 0.0), None, False, None).apply(levels)


def _count(patterns: np.ndarray, num_values: int) -> np.ndarray:
    counts = np.zeros(num_values, np.int64)
    for rows in _strips(patterns):
        counts += np.bincount(patterns[rows].ravel(), minlength=num_values)
    return counts


def _strips(levels: np.ndarray) -> Iterator[slice]:
    step = max(1, STRIP // max(levels[:1].size, 1))
    for start in range(0, len(levels), step):
        yield slice(start, start + step)
