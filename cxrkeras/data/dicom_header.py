"""The header of a DICOM file: what decoding needs and five elements about the view; nothing about the patient."""

import io
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from cxrkeras.data.decoder_warnings import ignore_decoders
from cxrkeras.data.dicom_window import Depth, read_number
from cxrkeras.data.limits import check_size
from cxrkeras.errors import InputError

CANNOT = "the pixels of this DICOM file cannot be decoded"
GREY = ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
_NUMBERS = ("SamplesPerPixel", "Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation")
_KIND = "PhotometricInterpretation"
# The only elements that are read.
ELEMENTS = (
    *_NUMBERS,
    _KIND,
    "HighBit",
    "NumberOfFrames",
    "PlanarConfiguration",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    *(f"{name}PaletteColorLookupTable{kind}" for name in ("Red", "Green", "Blue") for kind in ("Descriptor", "Data")),
    "ModalityLUTSequence",
    "RescaleSlope",
    "RescaleIntercept",
    "VOILUTSequence",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "SOPClassUID",
    "Modality",
    "ViewPosition",
    "BodyPartExamined",
    "ImageType",
    "PresentationIntentType",
)
# What files without pixels are, by the prefix of their SOP class.
_CLASSES = {
    "1.2.840.10008.1.3.10.": "a DICOMDIR, the table of contents of a disc, not an image: give the files that it lists",
    "1.2.840.10008.5.1.4.1.1.104.": "a document packed into DICOM, such as a PDF, not an image",
    "1.2.840.10008.5.1.4.1.1.11.": "a DICOM presentation state, which says how to show an image of another file",
    "1.2.840.10008.5.1.4.1.1.88.": "a DICOM structured report, not an image",
    "1.2.840.10008.5.1.4.1.1.9.": "a DICOM waveform, not an image",
    "1.2.840.10008.5.1.4.1.1.481.": "a DICOM object of radiotherapy, not an image",
}
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # 4-byte lengths
_SHORT = b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()
_VRS = (*_LONG, *_SHORT)
_GROUPS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")  # groups with which a file without a preamble begins
_MEDIA_CLASS, _SYNTAX = 0x0002, 0x0010  # elements of the file meta information, group 2
_DEFLATED = "1.2.840.10008.1.2.1.99"
_UNDEFINED = 0xFFFFFFFF  # length
_PIXEL_GROUP, _WHOLE, _FLOAT = 0x7FE0, 0x0010, (0x0008, 0x0009)
_PIXELS = [_PIXEL_GROUP << 16 | element for element in (_WHOLE, *_FLOAT)]
_ITEM = b"\xfe\xff\x00\xe0"


@dataclass(frozen=True)
class Pixels:
    """Location of the pixel data: element, start and length in bytes, and byte order."""

    element: int
    start: int
    length: int
    is_little: bool
    is_word: bool  # bytes are grouped in two-byte words


@dataclass(frozen=True)
class DicomFile:
    """A file with a checked header.

    content: the file, inflated if it was deflated; at: the offset of its data set.
    """

    content: bytes
    at: int
    dataset: Any
    syntax: str  # transfer syntax UID, empty if missing
    pixels: Pixels
    kind: str
    samples: int
    width: int
    height: int
    allocated: int
    depth: Depth

    @property
    def native(self) -> memoryview:
        """The bytes of uncompressed pixels."""
        return memoryview(self.content)[self.pixels.start : self.pixels.start + self.pixels.length]

    @property
    def is_compressed(self) -> bool:
        """Whether the pixels have an undefined length or are items; the transfer syntax may be outdated."""
        return self.pixels.length == _UNDEFINED or self.native[:4] == _ITEM


def is_dicom(content: bytes) -> bool:
    """Whether the bytes are a DICOM file: with a preamble, or beginning with a header element."""
    if b"DICM" in (content[128:132], content[:4]):
        return True
    if content[:2] not in _GROUPS or len(content) < 8:
        return False
    # Files without a VR are always little-endian, with a length in its place.
    length = int.from_bytes(content[4:8], "little")
    is_implicit = content[1] == 0 and (length == _UNDEFINED or (length % 2 == 0 and length <= len(content) - 8))
    return content[4:6] in _VRS or is_implicit


def parse_dicom(content: bytes, max_pixels: int) -> DicomFile:
    """Read the header and check everything that decoding depends on. Raises InputError."""
    content, at, meta = _unpack(content[4:] if content[:4] == b"DICM" else content, max_pixels)
    try:
        dataset, end = read_elements(content, at, ELEMENTS, stops=True)
        sop_class = str(dataset.get("SOPClassUID") or meta.get(_MEDIA_CLASS, ""))
        numbers = {name: read_number(dataset, name) for name in (*_NUMBERS, "HighBit", "NumberOfFrames")}
        kind = str(dataset.get(_KIND) or "").strip().upper()
    except Exception:  # damaged files make pydicom raise exceptions of any type
        raise InputError("damaged DICOM file: its header cannot be read") from None
    pixels = _find_pixels(content, end)
    if pixels is None:
        what = (text for start, text in _CLASSES.items() if f"{sop_class}.".startswith(start))
        raise InputError(next(what, "DICOM file without an image, such as a report, a plan or a waveform"))
    if pixels.element != _WHOLE:
        raise InputError("DICOM file with floating-point pixels; radiographs have integers")
    present = {name: value for name, value in numbers.items() if value is not None}
    if missing := [name for name in _NUMBERS if name not in present] + [_KIND] * (not kind):
        raise InputError(f"DICOM file without {', '.join(missing)}: its pixels cannot be interpreted")
    if not all(np.isfinite(value) for value in present.values()):
        raise InputError("damaged DICOM file: its header cannot be read")
    samples, rows, columns, allocated, stored, sign = (int(present[name]) for name in _NUMBERS)
    frames, high = (present.get(name) for name in ("NumberOfFrames", "HighBit"))
    _check_image(samples, rows, columns, int(frames or 1), kind)
    if allocated not in (1, 8, 16, 32) or not 1 <= stored <= allocated or sign not in (0, 1):
        raise InputError(
            f"{CANNOT}: BitsAllocated must be 1, 8, 16 or 32, BitsStored not larger, and PixelRepresentation 0 or 1"
        )
    check_size(columns, rows, max_pixels // samples)
    depth = Depth(
        allocated=max(allocated, 8),  # single bits are unpacked to bytes
        stored=stored,
        high=int(high) if high is not None and stored <= high + 1 <= allocated else stored - 1,
        is_signed=sign == 1,
    )
    return DicomFile(
        content, at, dataset, meta.get(_SYNTAX, ""), pixels, kind, samples, columns, rows, allocated, depth
    )


def read_elements(content: bytes, at: int, names: tuple[str, ...], *, stops: bool) -> tuple[Any, int]:
    """Read elements of the data set at an offset; and the offset where reading ended, with `stops` before the pixels.

    The encoding is detected from the first element, whatever the file meta information says, if there is any.
    """
    from pydicom.filereader import read_dataset
    from pydicom.tag import Tag

    _disable_validation()
    ignore_decoders()
    stream = io.BytesIO(content)
    stream.seek(at)
    dataset = read_dataset(
        stream,
        is_implicit_VR=content[at + 4 : at + 6] not in _VRS,
        is_little_endian=content[at : at + 2] not in _GROUPS[2:],
        stop_when=(lambda tag, vr, length: tag in _PIXELS) if stops else None,
        specific_tags=[Tag(name) for name in names],
    )
    return dataset, stream.tell()


@cache
def _disable_validation() -> None:
    """Disable pydicom's validation for the whole process: values that decoding does not need may be invalid."""
    from pydicom import config

    config.settings.reading_validation_mode = config.IGNORE


def _check_image(samples: int, rows: int, columns: int, frames: int, kind: str) -> None:
    if rows <= 0 or columns <= 0:
        raise InputError("DICOM file without an image: it has no rows or no columns")
    if frames != 1:
        raise InputError(f"DICOM file with {frames:,} frames; a radiograph has one")
    if samples not in (1, 3):
        raise InputError(f"DICOM image with {samples:,} values per pixel; must be 1, or 3 for colour")
    if kind not in (GREY if samples == 1 else COLOUR):
        wanted = GREY if samples == 1 else COLOUR
        raise InputError(f"{CANNOT}: with {samples} values per pixel, {_KIND} must be one of {', '.join(wanted)}")


def _unpack(content: bytes, max_pixels: int) -> tuple[bytes, int, dict[int, str]]:
    """Return the content, the offset of its data set, and the UIDs of its file meta information by element.

    A file that is deflated as a whole is inflated here, where its size can be limited.
    """
    at, meta = 132 if content[128:132] == b"DICM" else 0, {}
    while content[at : at + 2] == _GROUPS[0]:  # explicit, little endian; or implicit by mistake
        element, vr = int.from_bytes(content[at + 2 : at + 4], "little"), content[at + 4 : at + 6]
        head, size = (12, 4) if vr in _LONG else (8, 2) if vr in _SHORT else (8, 4)
        start = at + head
        at = start + int.from_bytes(content[start - size : start], "little")
        meta[element] = content[start : min(at, start + 64)].rstrip(b"\x00 ").decode("latin-1")
    if meta.get(_SYNTAX) != _DEFLATED:
        return content, at, meta
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(memoryview(content)[at:], 2 * max_pixels + 2**20)
    except zlib.error:
        raise InputError("damaged DICOM file: it cannot be inflated") from None
    if inflater.unconsumed_tail:
        raise InputError(f"DICOM file that inflates to more than {max_pixels:,} pixels of two bytes")
    return inflated, 0, meta


def _find_pixels(content: bytes, at: int) -> Pixels | None:
    """Locate the pixel data whose element begins at an offset; None if there is none."""
    is_little = content[at : at + 2] == _PIXEL_GROUP.to_bytes(2, "little")
    if not is_little and content[at : at + 2] != _PIXEL_GROUP.to_bytes(2, "big"):
        return None
    order: Literal["little", "big"] = "little" if is_little else "big"
    vr = content[at + 4 : at + 6]
    start = at + (12 if vr in _LONG else 8)
    element = int.from_bytes(content[at + 2 : at + 4], order)
    length = int.from_bytes(content[start - 4 : start], order)
    return Pixels(element, start, length, is_little, vr == b"OW") if element in (_WHOLE, *_FLOAT) else None
