"""The one way from the bytes of an image file to the pixels a network sees."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cxrkeras.data.dicom import decode_dicom
from cxrkeras.data.dicom_grey import window_deep
from cxrkeras.data.dicom_header import is_dicom
from cxrkeras.data.limits import DECODING, MAX_PIXELS, check_size
from cxrkeras.errors import InputError

_ARCHIVES = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"7z\xbc\xaf": "7z", b"Rar!": "RAR"}
_PNG = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {2: 3, 4: 1, 6: 3}  # without alpha, of PNGs by their colour type, where Pillow would cut 16 bits to 8
_ORIENTATION = 0x0112  # the EXIF tag
_LUMA = (19595, 38470, 7471)  # of red, green and blue over 65536, as Pillow's convert("L") has them


def read_mode(content: bytes) -> str:
    """Pillow's mode of a PNG or JPEG, with `;16` for 16 bits, or `DICOM`, without decoding it. Raises InputError."""
    if is_dicom(content):
        return "DICOM"
    return _open(content, lambda image: image.mode + ";16" * (_count_deep_channels(content) > 0))


def decode_image(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Decode a PNG or JPEG of any mode, or a DICOM radiograph, to grey; uint8 (height, width).

    Colour, alpha and palettes become grey as in Pillow's `convert("L")`. More than 8 bits are windowed from the
    percentile 0.1 to 99.9, so that one hot pixel does not darken the rest; 8 bits never are. DICOM has windows of its
    own. The orientation in EXIF is obeyed. Raises InputError for what is no such image, is damaged or too large.
    """
    if is_dicom(content):
        return decode_dicom(content, max_pixels)
    return np.asarray(_open(content, lambda image: _to_grey(image, content), max_pixels))


def resize_image(grey: np.ndarray, size: int) -> np.ndarray:
    """Stretch to a square, by an area filter where it shrinks and bilinearly where it grows; uint8 (size, size)."""
    return np.asarray(_resize(Image.fromarray(grey), size))


def load_image(content: bytes, size: int) -> np.ndarray:
    """Bytes of an image file to what is stored in records and given to networks; uint8 (size, size)."""
    if is_dicom(content):
        return resize_image(decode_dicom(content, MAX_PIXELS), size)
    # Without arrays in between, which would copy a megapixel twice.
    return np.asarray(_open(content, lambda image: _resize(_to_grey(image, content), size)))


def _open(content: bytes, use: Callable[[Image.Image], Any], max_pixels: int = MAX_PIXELS) -> Any:
    if not content:
        raise InputError("the file is empty")
    if kind := next((name for start, name in _ARCHIVES.items() if content.startswith(start)), None):
        raise InputError(f"a {kind} archive, not an image: unpack it and give what is in it")
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "JPEG")) as image:
            check_size(*image.size, max_pixels)
            with DECODING.hold(image.size[0] * image.size[1] * (3 if len(image.getbands()) > 1 else 1)):
                return use(image)
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(f"more pixels than the limit of {max_pixels:,}") from None
    except Image.UnidentifiedImageError:
        raise InputError("not a PNG, JPEG or DICOM image") from None
    except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them into
        raise InputError(f"damaged image: {error}") from error


def _to_grey(image: Image.Image, content: bytes) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        grey = Image.fromarray(window_deep(np.asarray(image).astype(np.uint16, copy=False)))
    elif channels := _count_deep_channels(content):
        grey = Image.fromarray(window_deep(_read_deep(content, channels)))
    else:
        image.load()
        grey = image if image.mode == "L" else image.convert("L")
    orientation = image.getexif().get(_ORIENTATION, 1)
    return _turn(grey, orientation) if orientation in range(2, 9) else grey


def _turn(grey: Image.Image, orientation: int) -> Image.Image:
    grey.getexif()[_ORIENTATION] = orientation
    return ImageOps.exif_transpose(grey)


def _count_deep_channels(content: bytes) -> int:
    """Channels without alpha of a PNG of 16 bits that has colour or alpha; 0 for any other image."""
    is_deep = content.startswith(_PNG) and content[24:25] == b"\x10"
    return _CHANNELS.get(content[25], 0) if is_deep else 0


def _read_deep(content: bytes, channels: int) -> np.ndarray:
    """Grey of a PNG of 16 bits with colour or alpha, uint16 (height, width), by TensorFlow's reader."""
    from cxrkeras.quiet import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    with tf.device("CPU"):
        try:
            pixels = tf.io.decode_png(content, channels=channels, dtype=tf.uint16).numpy()
        except tf.errors.OpError as error:
            raise InputError(f"damaged image: {error.message.splitlines()[0][:200]}") from None
    if channels == 1:
        return pixels[..., 0]
    grey = np.empty(pixels.shape[:2], np.uint16)
    for row, line in enumerate(pixels):
        grey[row] = (line @ np.array(_LUMA, np.uint32) + 0x8000) >> 16
    return grey


def _resize(image: Image.Image, size: int) -> Image.Image:
    width, height = image.size
    if (width > size) == (height > size):
        return image.resize((size, size), _filter(width, size))
    return image.resize((size, height), _filter(width, size)).resize((size, size), _filter(height, size))


def _filter(length: int, size: int) -> Image.Resampling:
    return Image.Resampling.BOX if length > size else Image.Resampling.BILINEAR
