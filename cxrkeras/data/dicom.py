"""DICOM radiographs: their pixels, and nothing else of what such a file knows about a person."""

import io
import warnings
import zlib
from collections.abc import MutableSequence

import numpy as np
from PIL import Image

from cxrkeras.errors import InputError

_TAGS = (b"\x02\x00", b"\x08\x00")  # groups that a file without a preamble begins with, little endian
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # transfer syntax of files that are packed as a whole
MAX_PIXELS = 80_000_000  # larger ones are bombs: a few kilobytes that unpack to gigabytes
MAX_RATIO = 10  # of the sides
_KINDS = ("MONOCHROME1", "MONOCHROME2")


def is_dicom(content: bytes) -> bool:
    """Whether the bytes are a DICOM file, by content: with its preamble, or beginning with an element of its header."""
    return content[128:132] == b"DICM" or (
        content[:2] in _TAGS and content[2:4] in (b"\x00\x00", b"\x01\x00", b"\x05\x00")
    )


def decode_dicom(content: bytes, max_pixels: int) -> np.ndarray:
    """Decode the one frame of a DICOM file to grey; uint8 (height, width), bright where little passed the body.

    Rescale and VOI LUT or window are applied, as the viewer of the hospital would; without either the darkest and the
    brightest pixel are the window. MONOCHROME1 is inverted, colour becomes grey. Pixels and frames are counted from the
    header before anything is decoded. Raises InputError; its text never quotes the file.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's quote values of the file
        return _decode(content, max_pixels)


def check_size(width: int, height: int, max_pixels: int) -> None:
    """InputError for an image that is no radiograph by its size alone, before it is decoded."""
    if width * height > max_pixels:
        raise InputError(f"{width} x {height}: more pixels than the limit of {max_pixels:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InputError(f"{width} x {height}: over {MAX_RATIO} times as long as wide, which no radiograph is")


def _decode(content: bytes, max_pixels: int) -> np.ndarray:
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    _check_deflated(content, max_pixels)
    try:
        dataset = pydicom.dcmread(io.BytesIO(content), force=True)
        has_pixels = "PixelData" in dataset
        height, width, frames, samples = (
            int(dataset.get(name) or missing)
            for name, missing in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1), ("SamplesPerPixel", 1))
        )
        kind = str(dataset.get("PhotometricInterpretation") or "")
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        is_compressed = syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed
        window = [_read_number(dataset, name) for name in ("WindowCenter", "WindowWidth")]
        rescale = [_read_number(dataset, name) for name in ("RescaleSlope", "RescaleIntercept")]
    except Exception:  # pydicom raises whatever a damaged file leads it into
        raise InputError("damaged DICOM file: its header cannot be read") from None
    if not has_pixels or height <= 0 or width <= 0:
        raise InputError("DICOM file without an image: a report, a plan or a waveform")
    if frames != 1:
        raise InputError(f"DICOM file with {frames:,} frames; a radiograph has one")
    if samples not in (1, 3):
        raise InputError(f"DICOM image of {samples:,} values a pixel; wanted 1, or 3 for colour")
    if kind and samples == 1 and kind not in (*_KINDS, "PALETTE COLOR"):
        raise InputError(f"DICOM image of kind {kind[:20]!r}; wanted {', '.join(_KINDS)} or colour")
    if any(value is not None and not np.isfinite(value) for value in rescale):
        raise InputError("the rescale slope or intercept of this DICOM file is no number")
    check_size(width, height, max_pixels // samples)
    if is_compressed:
        _check_frame(dataset, width, height)
    try:
        levels = dataset.pixel_array
        if kind == "PALETTE COLOR":
            levels = apply_color_lut(levels, dataset)
        if levels.ndim == 3:
            return np.asarray(Image.fromarray(_to_bytes(levels, 0, np.iinfo(levels.dtype).max)).convert("L"))
        levels = apply_modality_lut(levels, dataset)
        low, high = levels.min(), levels.max()
        has_lut = bool(dataset.get("VOILUTSequence"))
        if has_lut or (all(value is not None and np.isfinite(value) for value in window) and window[1] > 0):
            # The range of what comes out is what the least and the greatest level become.
            low, high = np.sort(_lut_range(dataset) if has_lut else apply_voi_lut(np.array([-1e9, 1e9]), dataset))
            levels = apply_voi_lut(levels, dataset)
        grey = _to_bytes(levels, float(low), float(high))
    except Exception:  # as above; decoders of compressed pixels too
        if is_compressed:
            reason = f"damaged, or compressed in a way ({syntax.name}) that needs another decoder, as pylibjpeg-libjpeg"
        else:
            reason = "damaged, or of an unusual kind"
        raise InputError(f"the pixels of this DICOM file cannot be decoded: {reason}") from None
    return 255 - grey if kind == "MONOCHROME1" else grey


def _read_number(dataset, name: str) -> float | None:
    """The first value of an element as a number, NaN where it is none; None where there is no element or no value."""
    value = dataset.get(name)
    if value is None or value == "":
        return None
    try:
        return float(value[0] if isinstance(value, MutableSequence) else value)
    except (TypeError, ValueError, IndexError):
        return float("nan")


def _check_deflated(content: bytes, max_pixels: int) -> None:
    """InputError for a file that is deflated as a whole and unpacks to more than any radiograph needs."""
    if _DEFLATED not in content[:1024]:
        return
    start = 144 + int.from_bytes(content[140:144], "little")
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpack.decompress(content[start:], 2 * max_pixels + 2**20)
    except zlib.error:
        raise InputError("damaged DICOM file: it cannot be unpacked") from None
    if unpack.unconsumed_tail:
        raise InputError(f"DICOM file that unpacks to more than {max_pixels:,} pixels of two bytes")


def _check_frame(dataset, width: int, height: int) -> None:
    """InputError where the compressed image inside is of another size than the header says."""
    from pydicom.encaps import get_frame

    try:
        with Image.open(io.BytesIO(get_frame(dataset.PixelData, 0, number_of_frames=1))) as inside:
            size = inside.size
    except Exception:  # a kind that Pillow does not know
        return
    if size != (width, height):
        raise InputError(
            f"damaged DICOM file: its header says {width} x {height}, the image in it {size[0]} x {size[1]}"
        )


def _lut_range(dataset) -> np.ndarray:
    """The range of a VOI lookup table's entries, from the number of their bits."""
    return np.array([0, 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1], float)


def _to_bytes(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (levels.astype(np.float32) - low) * (255 / max(high - low, 1e-6))
    return np.round(np.clip(scaled, 0, 255)).astype(np.uint8)
