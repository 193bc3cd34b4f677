"""Renders the stored values of a DICOM image: modality, VOI and polarity, as in PS3.3 C.7.6.3 and C.11.

`pydicom`'s functions for this invert negative slopes, let the index of 8-bit tables wrap, reject files that viewers
show, and need gigabytes.
"""

from collections.abc import Callable, Iterable, Iterator, MutableSequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cxrkeras.data.depth import choose_window, count_words, look_up, round_grey, split_strips, stretch
from cxrkeras.errors import InputError

Levels = Callable[[np.ndarray], np.ndarray]  # of float64 values, elementwise
_SAMPLE = 2**22  # pixels from which percentiles of more than 16 bits are computed


@dataclass(frozen=True)
class Depth:
    """Layout of a value in its word: bits allocated and stored, the high bit, and whether it is signed."""

    allocated: int
    stored: int
    high: int
    is_signed: bool

    @property
    def limits(self) -> tuple[int, int]:
        """The smallest and largest value that can be stored."""
        half = 1 << (self.stored - 1)
        return (-half, half - 1) if self.is_signed else (0, 2 * half - 1)

    def read(self, words: np.ndarray) -> np.ndarray:
        """Extract the values of unsigned words, int64; bits outside the stored ones are ignored."""
        values = words.astype(np.int64) >> (self.high + 1 - self.stored) & ((1 << self.stored) - 1)
        return values - ((values >> (self.stored - 1)) << self.stored) if self.is_signed else values


@dataclass(frozen=True)
class Table:
    """A lookup table: `entries` (N,) of `bits` each, the first for level `first` and all levels below."""

    first: int
    entries: np.ndarray
    bits: int

    def __call__(self, levels: np.ndarray) -> np.ndarray:
        return self.entries[np.clip(np.rint(levels) - self.first, 0, len(self.entries) - 1).astype(np.int64)]

    @property
    def top(self) -> int:
        """The value of white: the maximum of its bits, or its largest entry if that needs fewer bits than declared.

        Agfa's tables declare 16 bits and end at 4095.
        """
        largest = int(self.entries.max())
        return (1 << self.bits) - 1 if largest.bit_length() == self.bits else largest


def render_grey(words: np.ndarray, depth: Depth, dataset: Any, *, is_inverted: bool) -> np.ndarray:
    """Render stored words (N,) to grey as a viewer does; uint8 (N,).

    Rescale or modality table, then VOI table or window, then inversion (MONOCHROME1); padding becomes black last.
    Without a table or window, percentiles of the levels other than padding become black and white (`depth.WINDOW`).
    Unsigned values of 8 stored bits without a rescale, as in secondary captures, are already rendered and stay as they
    are: in the standard, an identity over the whole range. Raises InputError.
    """
    modality = _read_modality(dataset, depth)
    levels_of = modality or (lambda values: values)
    is_padding = _read_padding(dataset, depth)
    show = _read_voi(dataset, sorted(levels_of(np.array(depth.limits, np.float64)).tolist()))
    if show is None and (depth.stored, depth.is_signed, modality) == (8, False, None):
        show = lambda levels: levels  # noqa: E731
    all_words = np.arange(1 << depth.allocated, dtype=np.uint32) if depth.allocated <= 16 else None

    def choose() -> Levels:
        if all_words is not None:
            some, counts = all_words, count_words(words, len(all_words))
        else:
            some = words[:: -(-words.size // _SAMPLE)]
            counts = np.ones(some.size, np.int64)
        low, high = choose_window(levels_of(depth.read(some)), np.where(is_padding(some), 0, counts))
        return lambda levels: stretch(levels, low, high)

    show = show or choose()

    def render(some_words: np.ndarray) -> np.ndarray:
        grey = round_grey(show(levels_of(depth.read(some_words).astype(np.float64))))
        return np.where(is_padding(some_words), 0, 255 - grey if is_inverted else grey).astype(np.uint8)

    return _render_words(words, depth, render)


def render_range(words: np.ndarray, depth: Depth, *, is_inverted: bool) -> np.ndarray:
    """Render stored words (N,) to grey by the full range of the stored bits, whatever the header says; uint8 (N,)."""

    def render(some_words: np.ndarray) -> np.ndarray:
        grey = round_grey(stretch(depth.read(some_words).astype(np.float64), *depth.limits))
        return 255 - grey if is_inverted else grey

    return _render_words(words, depth, render)


def _render_words(words: np.ndarray, depth: Depth, render: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Render words (N,) by a table where that is small, else in strips; uint8 (N,)."""
    if depth.allocated <= 16:
        return look_up(words, render(np.arange(1 << depth.allocated, dtype=np.uint32)))
    grey = np.empty(words.size, np.uint8)
    for strip in split_strips(words.size):
        grey[strip] = render(words[strip])
    return grey


def read_table(item: Any, descriptor: str, data: str, limits: Iterable[float]) -> Table | None:
    """Read a lookup table, None if it is empty; `limits` are the smallest and largest level that it applies to.

    Reads raw bytes, because files often declare signed words as unsigned, or the reverse.
    """
    described, raw = _read_words(item, descriptor), _read_raw(item, data)
    if described is None or len(described) < 3 or not raw:
        return None
    count, first, bits = int(described[0]) or 2**16, int(described[1]), int(described[2])
    is_little = item.get_item(data).is_little_endian
    words = np.frombuffer(raw, "<u2" if is_little else ">u2", len(raw) // 2)
    if count <= len(raw) < 2 * count and (bits <= 8 or len(raw) <= count + 1):
        is_swapped = not is_little and item.get_item(data).VR != "OB"
        entries = np.frombuffer(words.astype("<u2").tobytes() if is_swapped else raw, np.uint8)
    else:
        entries = words
    entries = entries[:count].astype(np.float64)
    if not entries.size:
        return None
    # The first level may be signed or not: take the reading under which the table covers more levels.
    low, high = limits
    first = max((first, first - 2**16), key=lambda start: min(high, start + count - 1) - max(low, start))
    return Table(first, entries, bits if 0 < bits <= 16 else max(int(entries.max()).bit_length(), 1))


def read_number(dataset: Any, name: str) -> float | None:
    """Read the first value of an element as a number; NaN if it is not a number, None if it is missing or empty."""
    raw = _read_raw(dataset, name)
    try:
        value = dataset.get(name)
        return float(value[0] if isinstance(value, MutableSequence) else value) if value not in (None, "") else None
    except Exception:  # pydicom raises exceptions of any type, even if only another value of the element is invalid
        try:
            return float(raw.split(b"\\")[0]) if raw is not None else float("nan")
        except ValueError:
            return float("nan")


def _read_raw(dataset: Any, name: str) -> bytes | None:
    """Read the bytes of an element that pydicom has not converted to values yet."""
    from pydicom.datadict import tag_for_keyword

    tag = tag_for_keyword(name)
    value = dataset.get_item(tag).value if tag in dataset else None
    return value if isinstance(value, bytes) else None


def _read_words(dataset: Any, name: str) -> np.ndarray | None:
    """Read the unsigned 16-bit words of an element; None if there are none."""
    from pydicom.datadict import tag_for_keyword

    raw = _read_raw(dataset, name)
    if not raw or len(raw) % 2:
        return None
    return np.frombuffer(raw, "<u2" if dataset.get_item(tag_for_keyword(name)).is_little_endian else ">u2")


def _first_items(dataset: Any, sequence: str) -> Iterator[Any]:
    """Yield the items of a sequence in the header, in the shared functional groups, and in those of the first frame."""
    yield from dataset.get(sequence) or ()
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or ())[:1]:
            yield from group.get(sequence) or ()


def _read_modality(dataset: Any, depth: Depth) -> Levels | None:
    """Read the map from stored values to levels, a table or a line; None for neither, or for the identity."""
    for item in _first_items(dataset, "ModalityLUTSequence"):
        if table := read_table(item, "LUTDescriptor", "LUTData", depth.limits):
            return table
    for source in (dataset, *_first_items(dataset, "PixelValueTransformationSequence")):
        slope, intercept = read_number(source, "RescaleSlope"), read_number(source, "RescaleIntercept")
        if slope is None and intercept is None:
            continue
        slope, intercept = 1.0 if slope is None else slope, 0.0 if intercept is None else intercept
        if not (np.isfinite(slope) and np.isfinite(intercept)) or slope == 0:
            raise InputError("the rescale slope or intercept of this DICOM file is not a number, or the slope is 0")
        return None if (slope, intercept) == (1, 0) else partial(_rescale, slope, intercept)
    return None


def _rescale(slope: float, intercept: float, values: np.ndarray) -> np.ndarray:
    return values * slope + intercept


def _read_voi(dataset: Any, limits: list[float]) -> Levels | None:
    """Read the map from levels within `limits` to grey 0 to 255; None without a table or window."""
    sources = (dataset, *_first_items(dataset, "FrameVOILUTSequence"))
    for source in sources:
        for item in source.get("VOILUTSequence") or ():
            if table := read_table(item, "LUTDescriptor", "LUTData", limits):
                return lambda levels: stretch(table(levels), 0, table.top)
    for source in sources:
        center, width = read_number(source, "WindowCenter"), read_number(source, "WindowWidth")
        if center is not None and width is not None and np.isfinite([center, width]).all() and width > 0:
            return _build_window(center, width, str(source.get("VOILUTFunction") or "").strip().upper())
    return None


def _build_window(center: float, width: float, function: str) -> Levels:
    """Build a window function of PS3.3 C.11.2.1.2; an unknown or empty name means LINEAR.

    LINEAR needs a width of at least 1. Narrower windows, in images of calibrated units, are shown as LINEAR_EXACT.
    """
    if function == "SIGMOID":
        return lambda levels: 255 / (1 + np.exp(np.clip(-4 * (levels - center) / width, -700, 700)))
    if function == "LINEAR_EXACT" or width < 1:
        return lambda levels: stretch(levels, center - width / 2, center + width / 2)
    if width == 1:
        return lambda levels: np.where(levels > center - 0.5, 255.0, 0.0)
    return lambda levels: stretch(levels, center - 0.5 - (width - 1) / 2, center - 0.5 + (width - 1) / 2)


def _read_padding(dataset: Any, depth: Depth) -> Levels:
    """Build a function that marks the padding in words, by PixelPaddingValue and PixelPaddingRangeLimit."""
    raw, limit = _read_words(dataset, "PixelPaddingValue"), _read_words(dataset, "PixelPaddingRangeLimit")
    if raw is None:
        return lambda words: np.zeros(words.shape, bool)
    ends = [int(words.astype("i2")[0] if depth.is_signed else words[0]) for words in (raw, limit) if words is not None]
    low, high = min(ends), max(ends)

    def is_padding(words: np.ndarray) -> np.ndarray:
        values = depth.read(words)
        # Some files pad with a word of more bits than they store.
        return (values >= low) & (values <= high) | (words == raw[0])

    return is_padding
