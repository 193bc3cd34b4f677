"""The one way from the bytes of an image file to the pixels a network sees."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from cxrkeras.data.dicom import MAX_PIXELS, check_size, decode_dicom, is_dicom
from cxrkeras.errors import InputError


def read_header(content: bytes) -> tuple[str, tuple[int, int]]:
    """Mode (Pillow's) and size (width, height) of a PNG or JPEG, without decoding it. Raises InputError."""
    return _open(content, lambda image: (image.mode, image.size))


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a PNG or JPEG of any mode, or a DICOM radiograph, to grey; uint8 (height, width).

    Colour, alpha and palettes become grey as in Pillow's `convert("L")`. More than 8 bits are windowed from the
    darkest to the brightest pixel, DICOM by its own window. Raises InputError for what is no such image, is damaged or
    too large.
    """
    if is_dicom(content):
        return decode_dicom(content, max_pixels)
    return np.asarray(_open(content, _to_grey, max_pixels))


def resize_image(grey: np.ndarray, size: int) -> np.ndarray:
    """Stretch to a square, by an area filter where it shrinks and bilinearly where it grows; uint8 (size, size)."""
    return np.asarray(_resize(Image.fromarray(grey), size))


def load_image(content: bytes, size: int) -> np.ndarray:
    """Bytes of an image file to what is stored in records and given to networks; uint8 (size, size)."""
    if is_dicom(content):
        return resize_image(decode_dicom(content, MAX_PIXELS), size)
    # Without arrays in between, which would copy a megapixel twice.
    return np.asarray(_open(content, lambda image: _resize(_to_grey(image), size)))


def _open(content: bytes, use: Callable[[Image.Image], Any], max_pixels: int = MAX_PIXELS) -> Any:
    if not content:
        raise InputError("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            check_size(*image.size, max_pixels)
            return use(image)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"more pixels than the limit of {max_pixels:,}") from None
    except Image.UnidentifiedImageError:
        raise InputError("not a PNG, JPEG or DICOM image") from None
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them into
        raise InputError(f"damaged image: {error}") from error


def _to_grey(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        return Image.fromarray(_window(np.asarray(image, np.float64)))
    image.load()
    return image if image.mode == "L" else image.convert("L")


def _window(levels: np.ndarray) -> np.ndarray:
    darkest, brightest = levels.min(), levels.max()
    return np.round((levels - darkest) * (255 / max(brightest - darkest, 1))).astype(np.uint8)


def _resize(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    if (width > size) == (height > size):
        return image.resize((size, size), _filter(width, size))
    return image.resize((size, height), _filter(width, size)).resize((size, size), _filter(height, size))


def _filter(length: int, size: int) -> Image.Resampling:
    return Image.Resampling.BOX if length > size else Image.Resampling.BILINEAR
