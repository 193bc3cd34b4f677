"""The stored words of a DICOM image: read from the file if uncompressed, else from a decoder."""

import io
from typing import Any

import numpy as np
from PIL import Image

from cxrkeras.data.depth import GREY_WEIGHTS, look_up, round_grey, split_strips
from cxrkeras.data.dicom_header import CANNOT, ELEMENTS, DicomFile, read_elements
from cxrkeras.data.dicom_window import Depth, read_table
from cxrkeras.errors import InputError

# Start-of-frame markers of JPEG and JPEG-LS, without tables and extensions.
_FRAMES = (*(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC)), 0xF7)
_JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"


def read_native(content: memoryview, count: int, bits: int, *, is_little: bool, is_swapped: bool) -> np.ndarray:
    """Read the first `count` words of uncompressed pixels, unsigned (count,); without a copy if they are whole bytes.

    bits: allocated per word, 1, 8, 16 or 32; is_swapped: bytes are grouped in big-endian words. Raises InputError.
    """
    needed = -(-count * bits // 8)
    if len(content) < needed:
        raise InputError(f"{CANNOT}: damaged, the file ends before its pixels do")
    if bits == 1:
        return np.unpackbits(np.frombuffer(content, np.uint8, needed), bitorder="little")[:count]
    if bits == 8 and is_swapped:
        whole = np.frombuffer(content, ">u2", len(content) // 2).astype("<u2").view(np.uint8)
        return np.append(whole, np.frombuffer(content, np.uint8)[whole.size :])[:count]
    return np.frombuffer(content, f"{'<' if is_little else '>'}u{bits // 8}", count)


def decode_frame(file: DicomFile) -> tuple[np.ndarray, bool]:
    """Decode a compressed frame; its words, unsigned (height, width[, 3]), and whether colour is RGB.

    Raises InputError, which names a decoder only where one is missing.
    """
    from pydicom.encaps import get_frame
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    syntax = UID(file.syntax)
    if not syntax.is_transfer_syntax or not syntax.is_compressed:
        raise InputError(f"{CANNOT}: they are compressed, and the file does not name the transfer syntax")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise InputError(f"{CANNOT}: there is no decoder for their compression ({syntax.name})") from None
    try:
        dataset, _ = read_elements(file.content, file.at, (*ELEMENTS, "PixelData"), stops=False)
        frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    except Exception:  # damaged files make pydicom raise exceptions of any type
        raise InputError(f"{CANNOT}: damaged, it contains no compressed image") from None
    size, bits = _read_frame(frame)
    if size and size != (file.width, file.height):
        raise InputError(
            f"damaged DICOM file: {file.width} x {file.height} by its header, {size[0]} x {size[1]} by the image in it"
        )
    is_deep_extended = syntax == _JPEG_EXTENDED and bits > 8
    plugins = set(decoder.available_plugins) - ({"pillow"} if is_deep_extended else set())  # Pillow's JPEG has 8 bits
    if not plugins:
        raise InputError(
            f"{CANNOT}: no decoder for their compression ({syntax.name}) is installed. Install one with pip install "
            '"cxrkeras[dicom]" (python-gdcm), or with pip install pylibjpeg-libjpeg, whose licence is the GPL'
        )
    try:
        if is_deep_extended and "gdcm" in plugins:
            return _decode_with_gdcm(frame, file), False
        levels, facts = decoder.as_array(dataset)
        if levels.shape[:2] != (file.height, file.width):
            raise ValueError("another size")
    except Exception:  # damaged files make decoders raise exceptions of any type
        raise InputError(f"{CANNOT}: the compressed image in it ({syntax.name}) is damaged") from None
    return levels.view(f"u{levels.itemsize}"), facts["photometric_interpretation"] == "RGB"


def _decode_with_gdcm(frame: bytes, file: DicomFile) -> np.ndarray:
    """Decode 12-bit JPEG Extended; uint16 (height, width). GDCM supports it, but pydicom does not use GDCM for it."""
    import gdcm

    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(frame)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((file.width, file.height, 1))
    image.SetDataElement(element)
    grey = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(grey))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.GetTSType(_JPEG_EXTENDED)))
    image.SetPixelFormat(gdcm.PixelFormat(1, 16, 12, 11, 0))
    words = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), np.uint16)
    return words.reshape(file.height, file.width)


def blend_colour(samples: np.ndarray, depth: Depth, *, is_rgb: bool) -> np.ndarray:
    """Convert colour samples (N, 3) to grey, uint8 (N,): RGB with the weights of `convert("L")`, YBR by its luminance.

    Depths other than 8 bits are scaled by the stored bits.
    """
    grey = np.empty(len(samples), np.uint8)
    for strip in split_strips(len(samples)):
        values = depth.read(samples[strip])
        sums = values @ np.array(GREY_WEIGHTS) if is_rgb else values[:, 0] << 16
        white = ((1 << depth.stored) - 1) << 16
        grey[strip] = (sums + 0x8000) >> 16 if depth.stored == 8 else round_grey(sums * (255 / white))
    return grey


def apply_palette(words: np.ndarray, depth: Depth, dataset: Any) -> np.ndarray:
    """Convert PALETTE COLOR words (N,) to grey; uint8 (N,). Raises InputError."""
    names = [f"{colour}PaletteColorLookupTable" for colour in ("Red", "Green", "Blue")]
    found = [read_table(dataset, f"{name}Descriptor", f"{name}Data", depth.limits) for name in names]
    tables = [table for table in found if table is not None]
    if depth.allocated > 16 or len(tables) < len(names):
        raise InputError(f"{CANNOT}: its palette is missing, segmented, or for more than 16 bits")
    values = depth.read(np.arange(1 << depth.allocated))
    # Some files declare 16 bits for 8-bit entries.
    bits = 8 if all(table.entries.max() < 256 for table in tables) else 16
    levels = np.stack([table(values) for table in tables], axis=1) @ np.array(GREY_WEIGHTS) / 2**16
    return look_up(words, round_grey(levels * (255 / ((1 << bits) - 1))))


def _read_frame(frame: bytes) -> tuple[tuple[int, int] | None, int]:
    """Read size (width, height) and bits from the header of a compressed image; None and 0 for an unknown format."""
    at = 2
    while frame[:2] == b"\xff\xd8" and at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker in _FRAMES:
            return (int.from_bytes(frame[at + 7 : at + 9]), int.from_bytes(frame[at + 5 : at + 7])), frame[at + 4]
        at += 1 if marker == 0xFF else 2 + int.from_bytes(frame[at + 2 : at + 4])
    try:
        with Image.open(io.BytesIO(frame), formats=("JPEG2000",)) as inside:
            return inside.size, 0
    except Exception:  # not one either
        return None, 0
