"""The one way from the bytes of an image file to the pixels a network sees."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from cxrkeras.data.decoder_warnings import ignore_decoders
from cxrkeras.data.depth import GREY_WEIGHTS, choose_window, count_words, look_up, round_grey, stretch
from cxrkeras.data.dicom import decode_dicom, is_dicom, read_dicom_header, read_dicom_warnings
from cxrkeras.data.limits import DECODING, MAX_BYTES, MAX_PIXELS, READING, check_size
from cxrkeras.errors import InputError

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = tuple(_TURNS[number] for number in (5, 6, 7, 8))
_ARCHIVES = {b"PK\x03\x04": "ZIP", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"7z\xbc\xaf": "7z"}
_EXIF_TEXTS = (b"Raw profile type ", b"XML:com.adobe.xmp")  # names of PNG texts
_ROWS = 256  # of a deep image that are looked at at once


@dataclass(frozen=True)
class Header:
    """What a file says about its image: Pillow's mode, bits of a value, and the size as it is seen.

    density: bytes per pixel that decoding takes at its peak besides the file, by `python -m benchmarks.decoding`.
    """

    mode: str
    bits: int
    width: int
    height: int
    density: int


def read_header(content: bytes, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header of a PNG, JPEG or DICOM file, without decoding the image. Raises InputError."""
    if is_dicom(content):
        return Header(*read_dicom_header(content, max_pixels))
    return _open(content, lambda image: _describe(image, content), max_pixels)


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a PNG or JPEG of any mode, or a DICOM radiograph, to grey; uint8 (height, width).

    Colour, alpha and palettes become grey as in Pillow's `convert("L")`, and EXIF orientation is obeyed. More than 8
    bits are windowed by the percentiles of `depth.WINDOW`, DICOM by its own window if it has one; 8-bit PNG and JPEG
    are never windowed. Raises InputError for what is no such image, is damaged or too large.
    """
    if is_dicom(content):
        return decode_dicom(content, max_pixels)
    return np.asarray(_open(content, lambda image: _to_grey(image, content), max_pixels))


def read_warnings(content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[str, ...]:
    """Reasons that the header of an image that can be decoded gives against its being a frontal chest radiograph."""
    return read_dicom_warnings(content, max_pixels) if is_dicom(content) else ()


def resize_image(grey: np.ndarray, size: int) -> np.ndarray:
    """Stretch to a square, by an area filter where it shrinks and bilinearly where it grows; uint8 (size, size)."""
    return np.asarray(_resize(Image.fromarray(grey), size))


def shrink_image(grey: np.ndarray, side: int) -> np.ndarray:
    """An image with its longest side at most `side`, for looking at; uint8."""
    picture = Image.fromarray(grey)
    picture.thumbnail((side, side), Image.Resampling.BOX if side < 200 else Image.Resampling.LANCZOS)
    return np.asarray(picture)


def load_image(content: bytes, size: int) -> np.ndarray:
    """Bytes of an image file to what is stored in records and given to networks; uint8 (size, size)."""
    if is_dicom(content):
        return resize_image(decode_dicom(content, MAX_PIXELS), size)
    # Without arrays in between, which would copy a megapixel twice.
    return np.asarray(_open(content, lambda image: _resize(_to_grey(image, content), size)))


@contextmanager
def hold_memory(content: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Wait until there is memory to decode an image, and keep it until the block ends. Raises InputError."""
    header = read_header(content, max_pixels)
    with DECODING.hold(header.width * header.height * header.density):
        yield


@contextmanager
def open_image(path: Path) -> Iterator[bytes]:
    """The content of an image file, once there is memory to read and decode it; kept until the block ends.

    Raises InputError or OSError.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"the file has {size / 1e6:,.0f} MB, more than any radiograph; at most {MAX_BYTES / 1e6:,.0f}")
    with READING.hold(size):
        content = path.read_bytes()
        with hold_memory(content):
            yield content


def _open(content: bytes, use: Callable[[Image.Image], Any], max_pixels: int = MAX_PIXELS) -> Any:
    if not content:
        raise InputError("the file is empty")
    ignore_decoders()
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            check_size(*image.size, max_pixels)
            return use(image)
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"more pixels than the limit of {max_pixels:,}") from None
    except Image.UnidentifiedImageError:
        for start, name in _ARCHIVES.items():
            if content.startswith(start):
                raise InputError(f"a {name} archive, not an image: unpack it and give the files in it") from None
        raise InputError("not a PNG, JPEG or DICOM image") from None
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them into
        raise InputError("damaged image: its data are broken or end early") from error


def _describe(image: Image.Image, content: bytes) -> Header:
    size = image.size[::-1] if _find_turn(image, content) in _ON_ITS_SIDE else image.size
    if _is_deep(image):
        return Header(image.mode, 16, *size, density=8)
    return Header(image.mode, 8, *size, density=3 if image.mode == "L" else 5)


def _find_turn(image: Image.Image, content: bytes) -> Image.Transpose | None:
    """How an image must be turned to be seen as EXIF says."""
    # Pillow decodes the pixels of a PNG to look for EXIF behind them.
    if image.format == "PNG" and image.tile and not _has_exif(content):
        return None
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # a damaged EXIF block says nothing, and the image is whole
        return None


def _has_exif(content: bytes) -> bool:
    """Whether a PNG has a chunk that Pillow finds an orientation in."""
    at = 8
    while at + 8 <= len(content):
        if content[at + 4 : at + 8] == b"eXIf" or content[at + 8 : at + 25] in _EXIF_TEXTS:
            return True
        at += 12 + int.from_bytes(content[at : at + 4])
    return False


def _is_deep(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has 16 bits, which Pillow's mode does not say of colour."""
    return image.format == "PNG" and any("16B" in str(tile.args) for tile in image.tile)


def _to_grey(image: Image.Image, content: bytes) -> Image.Image:
    if _is_deep(image):
        grey = _window(_read_deep(image, content))
    else:
        image.load()
        grey = image if image.mode == "L" else image.convert("L")
    turn = _find_turn(image, content)
    return grey if turn is None else grey.transpose(turn)


def _window(levels: np.ndarray) -> Image.Image:
    """Levels of 16 bits as 8, by their percentiles."""
    low, high = choose_window(np.arange(2**16), count_words(levels.ravel(), 2**16))
    table = round_grey(stretch(np.arange(2**16), low, high))
    return Image.fromarray(look_up(levels.ravel(), table).reshape(levels.shape))


def _read_deep(image: Image.Image, content: bytes) -> np.ndarray:
    """The grey levels of a PNG of 16 bits, uint16 (height, width); alpha is left out, as in `convert("L")`.

    Pillow keeps the first byte of each value of colour alone. It gives the second ones where it is told that the bytes
    of a value stand the other way round ("16L"). Grey with alpha has as many bytes per pixel as RGBA of 8 bits.
    """
    levels = np.empty((image.height, image.width), np.uint16)
    (tile,) = image.tile
    if image.mode == "I;16":
        for rows, part in _decode_rows(content, tile.args):
            levels[rows] = part
    elif tile.args == "LA;16B":
        for rows, part in _decode_rows(content, "RGBA"):
            levels[rows] = part[..., 0].astype(np.uint16) << 8 | part[..., 1]
    else:
        # The sum of both bytes, weighted over 65,536, has 32 bits: 16 of the first ones' and 8 more that wait.
        weights, rest = np.array(GREY_WEIGHTS, np.uint32), np.empty(levels.shape, np.uint8)
        for rows, part in _decode_rows(content, tile.args):
            first = part[..., :3] @ weights
            levels[rows], rest[rows] = first >> 8, first & 255
        for rows, part in _decode_rows(content, tile.args.replace("16B", "16L")):
            second = (rest[rows].astype(np.uint32) << 8) + part[..., :3] @ weights
            levels[rows] += ((second + 0x8000) >> 16).astype(np.uint16)
    return levels


def _decode_rows(content: bytes, raw_mode: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Decode a PNG as if its pixels were packed like those of a raw mode of Pillow's; a few rows at a time."""
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.tile = [image.tile[0]._replace(args=raw_mode)]
        image.load()
        for start in range(0, image.height, _ROWS):
            end = min(start + _ROWS, image.height)
            yield slice(start, end), np.asarray(image.crop((0, start, image.width, end)))


def _resize(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    if (width > size) == (height > size):
        return image.resize((size, size), _filter(width, size))
    return image.resize((size, height), _filter(width, size)).resize((size, size), _filter(height, size))


def _filter(length: int, size: int) -> Image.Resampling:
    return Image.Resampling.BOX if length > size else Image.Resampling.BILINEAR
