"""The stored values of a DICOM image, and colour turned to grey."""

import io

import numpy as np
from PIL import Image

from cxrkeras.data.dicom_grey import Lookup
from cxrkeras.data.dicom_header import PALETTE, find_first, load_pydicom
from cxrkeras.data.dicom_tables import read_entries
from cxrkeras.errors import InputError

_LUMA = np.array([19595, 38470, 7471], np.float64) / 65536  # of red, green and blue, as Pillow's convert("L") has them
PIXEL_DATA = 0x7FE00010
GDCM, LIBJPEG = 'pip install "cxrkeras[dicom]"', "pip install pylibjpeg-libjpeg, which is under the GPL"


def read_patterns(dataset, facts: dict, content: bytes) -> np.ndarray:
    """The bits of each pixel: (height, width) or (height, width, 3), unsigned of 8, 16 or 32 bits in native byte order.

    content: the file, for pixels that were left in it when the header was read.
    """
    if is_compressed(dataset):
        levels = _decompress(dataset, facts, dataset.file_meta.TransferSyntaxUID)
        return np.ascontiguousarray(levels).view(f"u{levels.itemsize}")
    return _read_raw(dataset, facts, content)


def _read_raw(dataset, facts: dict, content: bytes) -> np.ndarray:
    element = dataset.get_item(PIXEL_DATA, keep_deferred=True)
    if getattr(element, "is_undefined_length", False):
        raise InputError("the pixels of this DICOM file are compressed and its header does not say how")
    if element.value is None:
        content = memoryview(content)[element.value_tell : element.value_tell + element.length]
    else:
        content = element.value
    allocated, samples = facts["BitsAllocated"], facts["SamplesPerPixel"]
    height, width = facts["Rows"], facts["Columns"]
    is_halved = facts["PhotometricInterpretation"] == "YBR_FULL_422"  # one pair of colours for two pixels
    count = height * width * (2 if is_halved else samples)
    is_little = dataset.original_encoding[1] is not False
    if len(content) < count * allocated // 8:
        raise InputError(
            "the pixels of this DICOM file cannot be decoded: damaged, or of an unusual kind, with fewer bytes than "
            "their number needs"
        )
    values = np.frombuffer(content, f"{'<' if is_little else '>'}u{allocated // 8}", count)
    if allocated == 8 and not is_little and element.VR == "OW":  # bytes were swapped in pairs
        values = np.frombuffer(content, "u2", len(content) // 2).byteswap().view("u1")[:count]
    values = values.astype(values.dtype.newbyteorder("="), copy=False)
    if is_halved:
        pairs = values.reshape(height, width // 2, 4)
        whole = np.empty((height, width, 3), values.dtype)
        whole[:, 0::2, 0], whole[:, 1::2, 0] = pairs[..., 0], pairs[..., 1]
        whole[..., 1], whole[..., 2] = (np.repeat(pairs[..., k], 2, axis=1) for k in (2, 3))
        return whole
    if samples == 1:
        return values.reshape(height, width)
    if int(find_first(dataset.get("PlanarConfiguration") or 0)) == 1:
        return values.reshape(samples, height, width).transpose(1, 2, 0)
    return values.reshape(height, width, samples)


def _decompress(dataset, facts: dict, syntax) -> np.ndarray:
    _check_frame(dataset, facts["Columns"], facts["Rows"])
    pydicom = load_pydicom()
    try:
        decoder = pydicom.pixels.get_decoder(syntax)
    except (NotImplementedError, ValueError):
        raise InputError(
            f"the pixels of this DICOM file are compressed in a way ({syntax.name}) that is not read"
        ) from None
    # GDCM, as pydicom calls it, and Pillow read JPEG Extended of 8 bits alone.
    is_deep = syntax == pydicom.uid.JPEGExtended12Bit and facts["BitsStored"] > 8
    advice = LIBJPEG if is_deep else f"{GDCM}, or {LIBJPEG}"
    needed = (
        f"the pixels of this DICOM file cannot be decoded: they are compressed in a way ({syntax.name}) that needs "
        f"another decoder: {advice}"
    )
    if not decoder.is_available:
        raise InputError(needed)
    try:
        levels = pydicom.pixels.pixel_array(dataset)
    except Exception:
        if is_deep and decoder.missing_dependencies:
            raise InputError(needed) from None
        raise InputError(
            "the pixels of this DICOM file cannot be decoded: damaged, or compressed otherwise than its header says"
        ) from None
    return levels.astype(levels.dtype.newbyteorder("="), copy=False)


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


def to_grey(dataset, facts: dict, levels: np.ndarray) -> np.ndarray:
    """Grey of a colour image or one with a palette, uint8 (height, width)."""
    kind, bits = facts["PhotometricInterpretation"], facts["BitsStored"]
    shift = 0 if is_compressed(dataset) else facts["HighBit"] + 1 - bits
    if shift or bits < 8 * levels.itemsize:
        levels = (levels >> shift) & np.array((1 << bits) - 1, levels.dtype)
    if kind == PALETTE:
        channels = []
        for colour in ("Red", "Green", "Blue"):
            count, first, depth = map(int, dataset.get(f"{colour}PaletteColorLookupTableDescriptor"))
            data = dataset.get(f"{colour}PaletteColorLookupTableData")
            entries = read_entries(data, count % 65536 or 65536, depth)
            top = 255 if depth <= 8 or entries.max() <= 255 else 65535
            channels.append(255 * Lookup(entries, first).apply(np.arange(1 << min(bits, 16))) / top)
        table = np.floor(np.stack(channels, axis=1) @ _LUMA + 0.5).astype(np.uint8)
        return table[levels]
    if bits == 8:
        if kind == "YBR_FULL_422" or (kind == "YBR_FULL" and not is_compressed(dataset)):
            return np.asarray(Image.fromarray(np.ascontiguousarray(levels), "YCbCr").convert("RGB").convert("L"))
        return np.asarray(Image.fromarray(np.ascontiguousarray(levels)).convert("L"))
    if kind.startswith("YBR") and not is_compressed(dataset):
        luma = levels[..., 0].astype(np.float64)
    else:
        luma = levels.astype(np.float64) @ _LUMA
    return np.floor(luma * (255 / ((1 << bits) - 1)) + 0.5).astype(np.uint8)


def is_compressed(dataset) -> bool:
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    return syntax is not None and syntax.is_transfer_syntax and syntax.is_compressed
