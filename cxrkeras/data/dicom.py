"""DICOM radiographs: their pixels as a viewer shows them, and warnings that one is not a frontal chest radiograph."""

import re
from typing import Any

import numpy as np

from cxrkeras.data.dicom_header import CANNOT, DicomFile, is_dicom, parse_dicom
from cxrkeras.data.dicom_pixels import apply_palette, blend_colour, decode_frame, read_native
from cxrkeras.data.dicom_window import Depth, render_grey, render_range
from cxrkeras.data.limits import MAX_PIXELS
from cxrkeras.errors import InputError

__all__ = ["decode_dicom", "is_dicom", "read_dicom_header", "read_dicom_warnings"]

_LATERAL = re.compile(r"\b(LL|RL|LLAT|RLAT|LAT|LATERAL\w*)\b")
_SPECIAL = re.compile(r"\b(RLD|LLD|RLO|LLO|RAO|LAO|RPO|LPO|ML|MLO|LM|LMO|CC|OBL\w*|DECUB\w*|AXIAL|TANGENTIAL)\b")
_CHEST = re.compile(r"CHEST|THORAX|TORAX|LUNG|\bRIB")
_UNSPECIFIED = ("", "UNKNOWN", "UNSPECIFIED", "OTHER", "NONE")
# OT (other) is written by programs that convert pictures to DICOM; DR and XR are in use, though not defined.
_RADIOGRAPHY = ("", "CR", "DR", "DX", "RG", "XR", "OT")


def read_dicom_header(content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[str, int, int, int, int]:
    """Read mode (Pillow's name), stored bits, width, height and density of a DICOM image, as in `images.Header`.

    Raises InputError.
    """
    file = parse_dicom(content, max_pixels)
    density = 16 if file.is_compressed else 3  # JPEG 2000 is decoded to 32-bit words, and copied
    return "L" if file.samples == 1 else "RGB", file.depth.stored, file.width, file.height, density


def decode_dicom(content: bytes, max_pixels: int, *, is_windowed: bool = True) -> np.ndarray:
    """Decode a single-frame DICOM file to grey; uint8 (height, width), bright where the body absorbs most.

    Stored values are rendered by `render_grey`, or without a window by `render_range`; colour and palettes are
    converted to grey. Pixels and frames are checked in the header before anything is decoded. Raises InputError; its
    text never quotes the file.
    """
    file = parse_dicom(content, max_pixels)
    try:
        decode = _decode_compressed if file.is_compressed else _decode_native
        grey = decode(file, is_windowed)
    except InputError:
        raise
    except Exception:  # damaged files make pydicom raise exceptions of any type
        raise InputError(f"{CANNOT}: damaged, or of an unsupported kind") from None
    return grey.reshape(file.height, file.width)


def read_dicom_warnings(content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[str, ...]:
    """List signs in five header elements that this is not a frontal chest radiograph, in fixed words.

    Raises InputError.
    """
    dataset = parse_dicom(content, max_pixels).dataset
    view, region, modality, image_type, intent = (
        _read_words(dataset, name)
        for name in ("ViewPosition", "BodyPartExamined", "Modality", "ImageType", "PresentationIntentType")
    )
    is_special = _SPECIAL.search(view)
    sentences = {
        "its header says that it is a lateral view": _LATERAL.search(view) and not is_special,
        "its header says that it is an oblique, decubitus or other special view": is_special,
        "its header names a body part other than the chest": region not in _UNSPECIFIED and not _CHEST.search(region),
        "its header names a modality other than radiography": modality not in _RADIOGRAPHY,
        "its header says that it is a localizer": "LOCALIZER" in image_type.split(),
        "its header says that it is for processing, not for presentation": intent == "FOR PROCESSING",
    }
    return tuple(sentence for sentence, applies in sentences.items() if applies)


def _read_words(dataset: Any, name: str) -> str:
    """Read the words of all values of an element, in upper case and joined by single spaces."""
    try:
        value = dataset.get(name) or ""
    except Exception:  # damaged values make pydicom raise exceptions of any type
        return ""
    text = value if isinstance(value, str) else " ".join(map(str, value))
    return " ".join(re.findall(r"[^\W_]+", text.upper()))


def _decode_native(file: DicomFile, is_windowed: bool) -> np.ndarray:
    """Render uncompressed pixels to grey; uint8 (height * width,)."""
    num, pixels = file.width * file.height, file.pixels
    is_swapped = pixels.is_word and not pixels.is_little

    def read(count: int) -> np.ndarray:
        return read_native(file.native, count, file.allocated, is_little=pixels.is_little, is_swapped=is_swapped)

    if file.samples == 1:
        return _show(file, read(num), file.depth, is_windowed)
    is_full = len(file.native) >= 3 * num * file.allocated // 8
    if file.kind == "YBR_FULL_422" and not is_full:  # two values of Y and one of each chroma for two pixels
        return blend_colour(read(2 * num).reshape(-1, 4)[:, :2].reshape(-1, 1), file.depth, is_rgb=False)
    words = read(3 * num)
    samples = words.reshape(3, num).T if file.dataset.get("PlanarConfiguration") == 1 else words.reshape(num, 3)
    return blend_colour(samples, file.depth, is_rgb=file.kind == "RGB")


def _decode_compressed(file: DicomFile, is_windowed: bool) -> np.ndarray:
    """Render compressed pixels to grey; uint8 (height * width,)."""
    words, is_rgb = decode_frame(file)
    bits = 8 * words.itemsize
    depth = Depth(bits, min(file.depth.stored, bits), min(file.depth.stored, bits) - 1, file.depth.is_signed)
    if words.ndim == 3:
        return blend_colour(words.reshape(-1, 3), depth, is_rgb=is_rgb)
    return _show(file, words.reshape(-1), depth, is_windowed)


def _show(file: DicomFile, words: np.ndarray, depth: Depth, is_windowed: bool) -> np.ndarray:
    if file.kind == "PALETTE COLOR":
        return apply_palette(words, depth, file.dataset)
    is_inverted = file.kind == "MONOCHROME1"
    if not is_windowed:
        return render_range(words, depth, is_inverted=is_inverted)
    return render_grey(words, depth, file.dataset, is_inverted=is_inverted)
