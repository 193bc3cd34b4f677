import io

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
