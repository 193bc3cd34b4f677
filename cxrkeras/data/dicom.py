"""DICOM radiographs: their pixels, and nothing else of what such a file knows about a person."""

import io
import warnings

import numpy as np
from PIL import Image

from cxrkeras.errors import InputError

_TAGS = (b"\x02\x00", b"\x08\x00")  # groups that a file without a preamble begins with, little endian
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


def _decode(content: bytes, max_pixels: int) -> np.ndarray:
    import pydicom
    from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    try:
        dataset = pydicom.dcmread(io.BytesIO(content), force=True)
        has_pixels = "PixelData" in dataset
        height, width, frames, samples = (
            int(dataset.get(name) or missing)
            for name, missing in (("Rows", 0), ("Columns", 0), ("NumberOfFrames", 1), ("SamplesPerPixel", 1))
        )
        kind = str(dataset.get("PhotometricInterpretation", ""))
    except Exception:  # pydicom raises whatever a damaged file leads it into
        raise InputError("damaged DICOM file: its header cannot be read") from None
    if not has_pixels or height <= 0 or width <= 0:
        raise InputError("DICOM file without an image: a report, a plan or a waveform")
    if frames != 1:
        raise InputError(f"DICOM file with {frames:,} frames; a radiograph has one")
    if height * width * samples > max_pixels:
        raise InputError(f"{width} x {height}: more pixels than the limit of {max_pixels:,}")
    try:
        levels = dataset.pixel_array
        if kind == "PALETTE COLOR":
            levels = apply_color_lut(levels, dataset)
        if levels.ndim == 3:
            return np.asarray(Image.fromarray(_to_bytes(levels, 0, np.iinfo(levels.dtype).max)).convert("L"))
        levels = apply_modality_lut(levels, dataset)
        low, high = levels.min(), levels.max()
        if "VOILUTSequence" in dataset or "WindowWidth" in dataset:
            # The range of what comes out is what the least and the greatest level become.
            low, high = np.sort(apply_voi_lut(np.array([-1e9, 1e9]), dataset) if "VOILUTSequence" not in dataset
                                else _lut_range(dataset))  # fmt: skip
            levels = apply_voi_lut(levels, dataset)
        grey = _to_bytes(levels, float(low), float(high))
    except Exception:  # as above; decoders of compressed pixels too
        name = dataset.file_meta.TransferSyntaxUID.name if "file_meta" in dataset and dataset.file_meta else "unknown"
        raise InputError(
            f"the pixels of this DICOM file cannot be decoded (transfer syntax {name}): damaged, or compressed in a "
            "way that needs another decoder, as pylibjpeg-libjpeg"
        ) from None
    if kind not in _KINDS and kind != "":
        raise InputError(f"DICOM image of kind {kind!r}; wanted {', '.join(_KINDS)} or colour")
    return 255 - grey if kind == "MONOCHROME1" else grey


def _lut_range(dataset) -> np.ndarray:
    """The range of a VOI lookup table's entries, from the number of their bits."""
    return np.array([0, 2 ** int(dataset.VOILUTSequence[0].LUTDescriptor[2]) - 1], float)


def _to_bytes(levels: np.ndarray, low: float, high: float) -> np.ndarray:
    scaled = (levels.astype(np.float32) - low) * (255 / max(high - low, 1e-6))
    return np.round(np.clip(scaled, 0, 255)).astype(np.uint8)
