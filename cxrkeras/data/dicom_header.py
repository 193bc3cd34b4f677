"""The header of a DICOM file: how its pixels are stored, and what it warns of."""

import functools
import io
import warnings
import zlib
from collections.abc import MutableSequence

from cxrkeras.data.limits import MAX_PIXELS
from cxrkeras.errors import InputError
from cxrkeras.text import num_of

_VRS = set(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OD OF OL OV OW PN SH SL SQ SS ST SV TM UC UI UL UN UR US UT UV".split()
)
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # transfer syntax of files that are packed as a whole
GREY = ("MONOCHROME1", "MONOCHROME2")
PALETTE = "PALETTE COLOR"
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT", "YBR_PARTIAL_420", "YBR_PARTIAL_422")
_REQUIRED = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "PixelRepresentation",
)
_ALLOCATED = (8, 16, 32)
# Other names of a chest in BodyPartExamined, or of parts of one.
_CHEST = ("CHEST", "THORA", "TORAX", "LUNG", "RIB", "HEART", "STERNUM", "MEDIASTIN", "PULM")
_RADIOGRAPHS = ("", "DX", "CR", "RG", "XR", "OT")  # modalities; OT says nothing
_LATERAL = ("LL", "RL", "L", "LAT", "LATERAL", "LLAT", "RLAT", "LEFT LATERAL", "RIGHT LATERAL", "ML", "LM")
_OBLIQUE = ("LAO", "RAO", "LPO", "RPO", "LLO", "RLO", "OBLIQUE", "LEFT OBLIQUE", "RIGHT OBLIQUE")
IS_LATERAL = "its header says that it is a lateral view"
IS_OBLIQUE = "its header says that it is an oblique view"
IS_OTHER_PART = "its header names another part of the body than the chest"
IS_OTHER_MODALITY = "its header says that it is not a radiograph"
IS_LOCALIZER = "its header says that it is a localizer"
IS_FOR_PROCESSING = "its header says that it is meant for processing, not for presentation"


@functools.cache
def load_pydicom():
    """pydicom, told once for the whole process not to check values nor to warn, as its warnings quote the file."""
    import pydicom

    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module=r"pydicom\b")
    return pydicom


def is_dicom(content: bytes) -> bool:
    """Whether the bytes are a DICOM file, by content: with its preamble, or beginning with an element of its header."""
    if content[128:132] == b"DICM":
        return True
    group, kind, length = content[:2], content[4:6], int.from_bytes(content[4:8], "little")
    if group in (b"\x00\x02", b"\x00\x08"):  # big endian always names the kind of a value
        return kind in _VRS
    is_implicit = 8 + length <= len(content) and content[3:4] < b"\x20"
    return group in (b"\x02\x00", b"\x08\x00") and (kind in _VRS or is_implicit)


def is_deflated(content: bytes) -> bool:
    """Whether a file is packed as a whole."""
    return _DEFLATED in content[:1024]


def check_deflated(content: bytes, max_pixels: int) -> None:
    """InputError for a file that is deflated as a whole and unpacks to more than any radiograph needs."""
    if not is_deflated(content):
        return
    start = 144 + int.from_bytes(content[140:144], "little")
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        unpack.decompress(content[start:], 2 * max_pixels + 2**20)
    except zlib.error:
        raise InputError("damaged DICOM file: it cannot be unpacked") from None
    if unpack.unconsumed_tail:
        raise InputError(f"DICOM file that unpacks to more than {max_pixels:,} pixels of two bytes")


def read_facts(dataset) -> dict:
    """The elements that say how the pixels are stored, checked; InputError that names what is missing or odd."""
    missing = [name for name in _REQUIRED if dataset.get(name) in (None, "")]
    if missing:
        raise InputError(f"damaged DICOM file: its header lacks {', '.join(missing)}")
    numbers = [name for name in _REQUIRED if name != "PhotometricInterpretation"]
    try:
        facts = {name: int(find_first(dataset[name].value)) for name in numbers}
        facts["HighBit"] = int(find_first(dataset.get("HighBit", facts["BitsStored"] - 1)))
        frames = int(find_first(dataset.get("NumberOfFrames") or 1))
    except (TypeError, ValueError):
        raise InputError("damaged DICOM file: its sizes are not numbers") from None
    facts["PhotometricInterpretation"] = kind = str(dataset.PhotometricInterpretation).strip().upper()
    samples, allocated, stored = facts["SamplesPerPixel"], facts["BitsAllocated"], facts["BitsStored"]
    if facts["Rows"] <= 0 or facts["Columns"] <= 0:
        raise InputError("DICOM file without an image: it has no rows or no columns")
    if frames != 1:
        raise InputError(f"DICOM file with {num_of(frames, 'frame')}; a radiograph has one")
    if samples not in (1, 3):
        raise InputError(f"DICOM image of {samples:,} values a pixel; wanted 1, or 3 for colour")
    kinds = (*GREY, PALETTE) if samples == 1 else _COLOUR
    if kind not in kinds:
        raise InputError(
            f"DICOM image of an unknown PhotometricInterpretation for {samples} values a pixel; wanted "
            f"{', '.join(kinds)}"
        )
    if allocated not in _ALLOCATED or not 1 <= stored <= allocated:
        raise InputError(f"DICOM image with {stored} bits stored in {allocated}; wanted up to 8, 16 or 32 in as many")
    if facts["PixelRepresentation"] not in (0, 1) or not stored - 1 <= facts["HighBit"] < allocated:
        raise InputError("damaged DICOM file: its PixelRepresentation or HighBit is none that there is")
    return facts


def read_header_warnings(content: bytes) -> tuple[str, ...]:
    """What the header of a DICOM file warns of, in fixed sentences; empty for other files and for a usual chest.

    Five elements are looked at (ViewPosition, BodyPartExamined, Modality, ImageType, PresentationIntentType), and no
    value is quoted.
    """
    if not is_dicom(content):
        return ()
    names = ("ViewPosition", "BodyPartExamined", "Modality", "ImageType", "PresentationIntentType")
    try:
        check_deflated(content, MAX_PIXELS)
        dataset = load_pydicom().dcmread(
            io.BytesIO(content), force=True, stop_before_pixels=True, specific_tags=list(names)
        )
        words = {name: [text.strip().upper() for text in _list_texts(dataset.get(name))] for name in names}
    except Exception:  # the file was decoded, so that its header is read as far as it goes
        return ()
    view, part, modality = (" ".join(words[name]) for name in names[:3])
    checks = {
        IS_LATERAL: view in _LATERAL,
        IS_OBLIQUE: view in _OBLIQUE,
        IS_OTHER_PART: part != "" and not any(name in part for name in _CHEST),
        IS_OTHER_MODALITY: modality not in _RADIOGRAPHS,
        IS_LOCALIZER: "LOCALIZER" in words["ImageType"],
        IS_FOR_PROCESSING: "FOR PROCESSING" in words["PresentationIntentType"],
    }
    return tuple(sentence for sentence, is_so in checks.items() if is_so)


def find_first(value: object) -> object:
    """The first of several values, or the value itself."""
    return value[0] if isinstance(value, MutableSequence) and len(value) else value


def _list_texts(value: object) -> list[str]:
    if value is None:
        return []
    return [str(each) for each in value] if isinstance(value, MutableSequence) else [str(value)]
