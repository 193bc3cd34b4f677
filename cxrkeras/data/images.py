"""The only path from the bytes of an image file to the pixels that a network sees."""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, ImageFile

from cxrkeras.data.decoder_warnings import ignore_decoders
from cxrkeras.data.depth import GREY_WEIGHTS, choose_window, count_words, look_up, round_grey, stretch
from cxrkeras.data.dicom import decode_dicom, is_dicom, read_dicom_header, read_dicom_warnings
from cxrkeras.data.limits import DECODING, MAX_BYTES, MAX_PIXELS, READING, check_size
from cxrkeras.data.preparation import OWN, Preparation, find_crop
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
_TRANSPOSED = tuple(_TURNS[number] for number in (5, 6, 7, 8))
_ARCHIVES = {b"PK\x03\x04": "ZIP", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz", b"7z\xbc\xaf": "7z"}
_EXIF_TEXTS = (b"Raw profile type ", b"XML:com.adobe.xmp")  # names of PNG text chunks
_ROWS = 256  # of a large image that are processed at once
_OUTSIDE = 127.5  # the grey level around an image, where it is resized linearly


_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Header:
    """Pillow's mode, bits per value, and the size after EXIF orientation.

    density: peak bytes per pixel of decoding in addition to the file, measured by `python -m benchmarks.decoding`.
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


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS, preparation: Preparation = OWN) -> np.ndarray:
    """Decode a PNG or JPEG of any mode, or a DICOM radiograph, to grey; uint8 (height, width).

    Colour, alpha and palettes become grey as in Pillow's `convert("L")`, and EXIF orientation is applied. More than 8
    bits are windowed by the percentiles of `depth.WINDOW`, DICOM by its own window if it has one; 8-bit PNG and JPEG
    are never windowed. A `preparation` may ask for another grey, or for no window. Raises InputError for other, damaged
    or too large files.
    """
    if is_dicom(content):
        return decode_dicom(content, max_pixels, is_windowed=preparation.window == "header")
    return np.asarray(_open(content, lambda image: _to_grey(image, content, preparation), max_pixels))


def decode_for(preparation: Preparation, content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, np.ndarray]:
    """Decode a file for a reader and for a network, both uint8 (height, width), one array where they are the same."""
    shown = decode_image(content, max_pixels)
    is_same = preparation.grey == OWN.grey and preparation.window == OWN.window
    return shown, shown if is_same else decode_image(content, max_pixels, preparation)


def read_warnings(content: bytes, max_pixels: int = MAX_PIXELS) -> tuple[str, ...]:
    """List signs in the header of a decodable image that it is not a frontal chest radiograph."""
    return read_dicom_warnings(content, max_pixels) if is_dicom(content) else ()


def resize_image(grey: np.ndarray, size: int, preparation: Preparation = OWN) -> np.ndarray:
    """Crop and resize to a square, by default without a crop, with an area filter to shrink and bilinearly to enlarge;
    uint8 (size, size)."""
    return np.asarray(_resize(Image.fromarray(grey[find_crop(grey.shape, preparation.crop)]), size, preparation))


def shrink_image(grey: np.ndarray, side: int) -> np.ndarray:
    """Shrink an image for display, to at most `side` on its longest side; uint8."""
    picture = Image.fromarray(grey)
    picture.thumbnail((side, side), Image.Resampling.BOX if side < 200 else Image.Resampling.LANCZOS)
    return np.asarray(picture)


def load_image(content: bytes, size: int, preparation: Preparation = OWN) -> np.ndarray:
    """Decode and resize an image file as for records and networks; uint8 (size, size)."""
    if is_dicom(content) or preparation.crop != "none":
        return resize_image(decode_image(content, preparation=preparation), size, preparation)
    # Without intermediate arrays, which would copy a megapixel twice.
    return np.asarray(_open(content, lambda image: _resize(_to_grey(image, content, preparation), size, preparation)))


@contextmanager
def hold_memory(content: bytes, max_pixels: int = MAX_PIXELS) -> Iterator[None]:
    """Reserve memory to decode an image until the block ends, waiting if necessary. Raises InputError."""
    header = read_header(content, max_pixels)
    with DECODING.hold(header.width * header.height * header.density):
        yield


@contextmanager
def open_image(path: Path) -> Iterator[bytes]:
    """Read an image file once there is memory to read and decode it, reserved until the block ends.

    Raises InputError or OSError.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise InputError(f"the file has {size / 1e6:,.0f} MB, more than any radiograph; at most {MAX_BYTES / 1e6:,.0f}")
    with READING.hold(size):
        content = path.read_bytes()
        with hold_memory(content):
            yield content


def _open(content: bytes, use: Callable[[ImageFile.ImageFile], _Result], max_pixels: int = MAX_PIXELS) -> _Result:
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
    except Exception as error:  # damaged files make Pillow raise exceptions of any type
        raise InputError("damaged image: its data are corrupt or truncated") from error


def _describe(image: ImageFile.ImageFile, content: bytes) -> Header:
    size = image.size[::-1] if _find_turn(image, content) in _TRANSPOSED else image.size
    if _is_deep(image):
        return Header(image.mode, 16, *size, density=8)
    return Header(image.mode, 8, *size, density=3 if image.mode == "L" else 5)


def _find_turn(image: ImageFile.ImageFile, content: bytes) -> Image.Transpose | None:
    """Return how to transpose an image to its EXIF orientation, None if not at all."""
    # To find EXIF after the pixels of a PNG, Pillow decodes them.
    if image.format == "PNG" and image.tile and not _has_exif(content):
        return None
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # a damaged EXIF block is ignored, as the image is intact
        return None


def _has_exif(content: bytes) -> bool:
    """Whether a PNG has a chunk in which Pillow finds an orientation."""
    at = 8
    while at + 8 <= len(content):
        if content[at + 4 : at + 8] == b"eXIf" or content[at + 8 : at + 25] in _EXIF_TEXTS:
            return True
        at += 12 + int.from_bytes(content[at : at + 4])
    return False


def _is_deep(image: ImageFile.ImageFile) -> bool:
    """Whether an image that is not loaded yet has 16 bits, which Pillow's mode does not show for colour."""
    return image.format == "PNG" and any("16B" in str(tile.args) for tile in image.tile)


def _to_grey(image: ImageFile.ImageFile, content: bytes, preparation: Preparation) -> Image.Image:
    if _is_deep(image):
        grey = _window(_read_deep(image, content), is_full=preparation.window == "off")
    else:
        image.load()
        is_mean = preparation.grey == "mean" and image.mode not in ("L", "LA", "1")
        grey = _average(image) if is_mean else image if image.mode == "L" else image.convert("L")
    turn = _find_turn(image, content)
    return grey if turn is None else grey.transpose(turn)


def _average(image: Image.Image) -> Image.Image:
    """Average red, green and blue, rounded."""
    colour = image.convert("RGB")
    grey = np.empty(colour.size[::-1], np.uint8)
    for start in range(0, colour.height, _ROWS):
        rows = np.asarray(colour.crop((0, start, colour.width, min(start + _ROWS, colour.height))))
        grey[start : start + _ROWS] = (2 * rows.sum(axis=2, dtype=np.uint16) + 3) // 6
    return Image.fromarray(grey)


def _window(levels: np.ndarray, *, is_full: bool) -> Image.Image:
    """Window 16-bit levels to 8 bits by their percentiles, or by their full range."""
    counts = np.zeros(0) if is_full else count_words(levels.ravel(), 2**16)
    low, high = (0, 2**16 - 1) if is_full else choose_window(np.arange(2**16), counts)
    table = round_grey(stretch(np.arange(2**16), low, high))
    return Image.fromarray(look_up(levels.ravel(), table).reshape(levels.shape))


def _read_deep(image: ImageFile.ImageFile, content: bytes) -> np.ndarray:
    """Read the grey levels of a 16-bit PNG, uint16 (height, width); alpha is ignored, as in `convert("L")`.

    Of 16-bit colour, Pillow keeps only the first byte of each value; with the raw mode of the opposite byte order
    ("16L") it keeps the second. Grey with alpha has as many bytes per pixel as 8-bit RGBA.
    """
    levels = np.empty((image.height, image.width), np.uint16)
    (tile,) = image.tile
    raw_mode = str(tile.args)
    if image.mode == "I;16":
        for rows, pixels in _decode_rows(content, raw_mode):
            levels[rows] = pixels
    elif raw_mode == "LA;16B":
        for rows, pixels in _decode_rows(content, "RGBA"):
            levels[rows] = pixels[..., 0].astype(np.uint16) << 8 | pixels[..., 1]
    else:
        # The weighted sum of both bytes, over 65,536, has 32 bits: 16 from the first bytes, and 8 kept in `rest`.
        rest = np.empty(levels.shape, np.uint8)
        for rows, pixels in _decode_rows(content, raw_mode):
            first = _weigh_channels(pixels)
            levels[rows], rest[rows] = first >> 8, first & 255
        for rows, pixels in _decode_rows(content, raw_mode.replace("16B", "16L")):
            second = (rest[rows].astype(np.uint32) << 8) + _weigh_channels(pixels)
            levels[rows] += ((second + 0x8000) >> 16).astype(np.uint16)
    return levels


def _weigh_channels(pixels: np.ndarray) -> np.ndarray:
    """Weighted sum of red, green and blue, uint32, over 65,536."""
    return pixels[..., :3] @ np.array(GREY_WEIGHTS, np.uint32)


def _decode_rows(content: bytes, raw_mode: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Decode a PNG as if its pixels were in a raw mode of Pillow, a few rows at a time."""
    with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
        image.tile = [image.tile[0]._replace(args=raw_mode)]
        image.load()
        for start in range(0, image.height, _ROWS):
            end = min(start + _ROWS, image.height)
            yield slice(start, end), np.asarray(image.crop((0, start, image.width, end)))


def _resize(image: Image.Image, size: int, preparation: Preparation) -> Image.Image:
    width, height = image.size
    if preparation.resize == "triangle":
        return image.resize((size, size), Image.Resampling.BILINEAR)
    if preparation.resize == "linear":
        return Image.fromarray(round_grey(np.clip(resize_linearly(np.asarray(image), size), 0, 255)))
    if (width > size) == (height > size):
        return image.resize((size, size), _filter(width, size))
    return image.resize((size, height), _filter(width, size)).resize((size, size), _filter(height, size))


def _filter(length: int, size: int) -> Image.Resampling:
    return Image.Resampling.BOX if length > size else Image.Resampling.BILINEAR


def resize_linearly(grey: np.ndarray, size: int) -> np.ndarray:
    """Resize (height, width) to float32 (size, size): smoothed by a Gaussian, then sampled linearly, mid-grey outside.

    Equals `skimage.transform.resize(grey, (size, size), mode="constant", cval=127.5)` of scikit-image.
    """
    rows = np.zeros((size, grey.shape[1]), np.float32)
    weights = _weigh_pixels(grey.shape[0], size)
    for start in range(0, grey.shape[0], _ROWS):
        strip = grey[start : start + _ROWS].astype(np.float32) - _OUTSIDE
        rows += weights[:, start : start + _ROWS] @ strip
    return (_weigh_pixels(grey.shape[1], size) @ rows.T).T + _OUTSIDE


@lru_cache(maxsize=16)
def _weigh_pixels(length: int, size: int):
    """Compute the weight of each of `length` pixels in each of `size` resized ones, sparse float32 (size, length)."""
    import scipy.sparse

    factor = length / size
    sigma = max(0.0, (factor - 1) / 2)
    reach = int(4 * sigma + 0.5)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / max(sigma, 1e-12)) ** 2)
    kernel /= kernel.sum()
    weights = scipy.sparse.lil_matrix((size, length), dtype=np.float32)
    for row, place in enumerate((np.arange(size) + 0.5) * factor - 0.5):
        below = int(np.floor(place))
        for middle, share in ((below, below + 1 - place), (below + 1, place - below)):
            if share > 0 and 0 <= middle < length:  # outside there is nothing to smooth
                low, high = max(middle - reach, 0), min(middle + reach + 1, length)
                weights[row, low:high] += share * kernel[low - middle + reach : high - middle + reach]
    return weights.tocsc()
