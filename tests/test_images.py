import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cxrkeras.data.images import decode_image, load_image, resize_image
from cxrkeras.errors import InputError

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (37, 53), np.uint8)


def packed(image, file_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def test_grey_png_is_read_exactly():
    assert np.array_equal(decode_image(packed(Image.fromarray(GREY))), GREY)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "P", "1", "CMYK"])
def test_other_modes_become_grey_as_pillow_makes_them(mode):
    colour = Image.fromarray(RNG.integers(0, 256, (20, 30, 4), np.uint8), "RGBA")
    image = colour.convert("RGB").convert(mode) if mode in ("P", "1", "CMYK", "RGB") else colour.convert(mode)
    content = packed(image, "TIFF" if mode == "CMYK" else "PNG") if mode != "CMYK" else packed(image, "JPEG")
    with Image.open(io.BytesIO(content)) as again:
        expected = np.asarray(again.convert("L"))
    assert np.array_equal(decode_image(content), expected)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_in_exif_is_obeyed(kind, orientation):
    """Values of EXIF 2.3: where the first row and the first column are."""
    grey = np.kron(RNG.integers(0, 256, (5, 8)), np.ones((16, 16))).astype(np.uint8)
    undo = {1: grey, 2: grey[:, ::-1], 3: grey[::-1, ::-1], 4: grey[::-1], 5: grey.T, 6: np.rot90(grey),
            7: grey[::-1, ::-1].T, 8: np.rot90(grey, -1)}[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100} if kind == "JPEG" else {}
    content = packed(Image.fromarray(np.ascontiguousarray(undo)), kind, exif=exif, **options)
    found = decode_image(content).astype(int)
    assert found.shape == grey.shape
    assert np.abs(found - grey).max() <= 3
    assert np.abs(load_image(content, 80).astype(int) - resize_image(grey, 80)).max() <= 3


def deep_png(pixels, colour):
    """A PNG of 16 bits, which Pillow does not write in colour; uint16 (height, width, channels)."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_deep_colour_and_alpha_keep_their_depth(colour, channels):
    """12 bits in 16: cut to 8 bits before the window they would have 16 levels."""
    grey = RNG.integers(1000, 4096, (60, 50)).astype(np.uint16)
    pixels = np.repeat(grey[..., None], channels, axis=-1)
    if channels in (2, 4):
        pixels[..., -1] = RNG.integers(0, 65536, grey.shape)  # alpha is left out, as Pillow does
    low, high = np.percentile(grey, [0.1, 99.9])
    expected = np.round(255 * np.clip((grey - low) / (high - low), 0, 1))
    found = decode_image(deep_png(pixels, colour))
    assert np.abs(found - expected).max() <= 1
    assert len(np.unique(found)) > 200


def test_colours_of_sixteen_bits_weigh_as_in_pillow():
    pixels = RNG.integers(0, 65536, (40, 40, 3)).astype(np.uint16)
    luma = pixels @ np.array([19595, 38470, 7471]) / 65536
    low, high = np.percentile(luma, [0.1, 99.9])
    expected = np.round(255 * np.clip((luma - low) / (high - low), 0, 1))
    assert np.abs(decode_image(deep_png(pixels, 2)) - expected).max() <= 1


def test_one_hot_pixel_does_not_darken_the_rest():
    deep = RNG.integers(1000, 2000, (64, 64)).astype(np.uint16)
    deep[3, 4] = 65535
    grey = decode_image(packed(Image.fromarray(deep)))
    assert np.median(grey) == pytest.approx(127, abs=6)


def test_eight_bits_are_never_windowed():
    flat = RNG.integers(90, 110, (20, 20)).astype(np.uint8)
    assert np.array_equal(decode_image(packed(Image.fromarray(flat))), flat)


def test_sixteen_bits_are_windowed_to_eight():
    deep = np.linspace(1000, 5000, 256 * 4).astype(np.uint16).reshape(16, 64)
    grey = decode_image(packed(Image.fromarray(deep)))
    assert (grey.min(), grey.max()) == (0, 255)
    assert np.array_equal(np.argsort(grey.ravel(), kind="stable"), np.arange(grey.size))
    flat = Image.fromarray(np.full((4, 4), 700, np.uint16))
    assert not decode_image(packed(flat)).any()


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"Image Index,Finding Labels\n", "not a PNG, JPEG or DICOM"),
        (packed(Image.fromarray(GREY))[:200], "damaged"),
        (packed(Image.new("1", (20_000, 20_000))), "limit of 80,000,000"),
        (packed(Image.new("1", (10_000, 10_000))), "more pixels than the limit"),
        (packed(Image.fromarray(GREY), "BMP"), "not a PNG, JPEG or DICOM"),
    ],
    ids=["empty", "text", "truncated", "bomb", "large", "bmp"],
)
def test_what_is_no_image_is_refused_with_a_reason(content, word):
    with pytest.raises(InputError, match=word):
        decode_image(content)


def test_resizing_averages_areas_down_and_interpolates_up():
    big = RNG.integers(0, 256, (64, 64)).astype(np.uint8)
    areas = big.reshape(16, 4, 16, 4).mean((1, 3))
    assert np.abs(resize_image(big, 16).astype(float) - areas).max() <= 1
    ramp = np.tile(np.arange(0, 160, 10, np.uint8), (16, 1))
    grown = resize_image(ramp, 64).astype(int)
    assert (np.diff(grown, axis=1) >= 0).all()
    assert grown.shape == (64, 64)


@pytest.mark.parametrize("shape", [(1, 1), (5, 50), (50, 5), (224, 224), (300, 100)])
def test_any_shape_becomes_the_square(shape):
    image = packed(Image.fromarray(np.full(shape, 77, np.uint8)))
    assert (load_image(image, 224) == 77).all()
    assert load_image(image, 224).shape == (224, 224)
