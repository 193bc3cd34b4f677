"""What a DICOM header says of grey levels: rescale, lookup tables, window, padding."""

from collections.abc import MutableSequence

import numpy as np

from cxrkeras.data.dicom_grey import LINEAR, LINEAR_EXACT, SIGMOID, Grading, Lookup, Window
from cxrkeras.data.dicom_header import find_first
from cxrkeras.errors import InputError


def _find(dataset, sequence: str, name: str):
    """An element of the dataset itself, or where an enhanced image has it, in a sequence of its functional groups."""
    if dataset.get(name) not in (None, ""):
        return dataset.get(name)
    for groups in ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence"):
        for group in (dataset.get(groups) or [])[:1]:
            for item in (group.get(sequence) or [])[:1]:
                if item.get(name) not in (None, ""):
                    return item.get(name)
    return None


def _find_number(dataset, sequence: str, name: str) -> float | None:
    """The first value of an element as a number, NaN where it is none; None where there is no element or no value."""
    value = _find(dataset, sequence, name)
    if value is None or (isinstance(value, MutableSequence) and not len(value)):
        return None
    try:
        return float(find_first(value))
    except (TypeError, ValueError):
        return float("nan")


def read_grading(dataset, facts: dict) -> Grading:
    bits, is_signed = facts["BitsStored"], facts["PixelRepresentation"] == 1
    lowest = -(1 << (bits - 1)) if is_signed else 0
    reached = (lowest, lowest + (1 << bits) - 1)
    transform = "PixelValueTransformationSequence"
    slope, intercept = (_find_number(dataset, transform, name) for name in ("RescaleSlope", "RescaleIntercept"))
    modality = _read_lookup(dataset.get("ModalityLUTSequence"), reached)
    if modality is None:
        modality = (1.0 if slope is None else slope, 0.0 if intercept is None else intercept)
        if not np.isfinite(modality).all():
            raise InputError("the rescale slope or intercept of this DICOM file is not a number")
        ends = [value * modality[0] + modality[1] for value in reached]
        reached = (min(ends), max(ends))
    else:
        reached = (float(modality.entries.min()), float(modality.entries.max()))
    voi = _read_lookup(dataset.get("VOILUTSequence"), reached)
    if voi is None:
        center, width = (_find_number(dataset, "FrameVOILUTSequence", name) for name in ("WindowCenter", "WindowWidth"))
        if center is not None and width is not None and np.isfinite([center, width]).all() and width > 0:
            function = str(_find(dataset, "FrameVOILUTSequence", "VOILUTFunction") or LINEAR).strip().upper()
            voi = Window(center, width, function if function in (LINEAR_EXACT, SIGMOID) else LINEAR)
    padding = None
    if (value := find_first(dataset.get("PixelPaddingValue"))) not in (None, ""):
        ends = [value, find_first(dataset.get("PixelPaddingRangeLimit"))]
        ends = [_wrap(int(end), bits, is_signed) for end in ends if end not in (None, "")]
        padding = (min(ends), max(ends))
    shift = facts["HighBit"] + 1 - bits
    return Grading(bits, shift, is_signed, modality, voi, facts["PhotometricInterpretation"] == "MONOCHROME1", padding)


def _wrap(value: int, bits: int, is_signed: bool) -> int:
    """A stored value that was written with the other sign, or with bits above those stored, as it is meant."""
    lowest = -(1 << (bits - 1)) if is_signed else 0
    if lowest <= value < lowest + (1 << bits):
        return value
    for size in (bits, 16, 32):
        turned = (value - lowest) % (1 << size) + lowest
        if lowest <= turned < lowest + (1 << bits):
            return turned
    return value


def _read_lookup(sequence, reached: tuple[float, float]) -> Lookup | None:
    """The first table of a sequence, if it has entries; `reached` are the least and greatest value that it is for."""
    for item in (sequence or [])[:1]:
        descriptor, data = item.get("LUTDescriptor"), item.get("LUTData")
        if descriptor is None or data is None or len(descriptor) != 3:
            continue
        entries = read_entries(data, int(descriptor[0]) % 65536 or 65536, int(descriptor[2]))
        if not len(entries):
            continue
        # The first value is written as signed or unsigned, often the wrong one of them.
        first, length = int(descriptor[1]), len(entries)
        candidates = (first, first - 65536, first + 65536)
        overlaps = [min(start + length - 1, reached[1]) - max(start, reached[0]) for start in candidates]
        return Lookup(entries, candidates[int(np.argmax(overlaps))])
    return None


def read_entries(data, count: int, bits: int) -> np.ndarray:
    """The entries of a table, integers (count,) or fewer where it is cut short."""
    if isinstance(data, (bytes, bytearray)):
        data = bytes(data)
        one_byte = bits <= 8 and len(data) < 2 * count
        return np.frombuffer(data, "u1" if one_byte else "<u2", min(count, len(data) // (1 if one_byte else 2)))
    values = np.atleast_1d(np.asarray(data, np.int64)) & 0xFFFF
    if bits <= 8 and len(values) < count:  # two entries in each word, the low one first
        values = values.astype("<u2").view("u1").astype(np.int64)
    return values[:count]
