"""Preparations of images that public networks need, next to ours."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxrkeras.data.images import decode_for, decode_image, load_image, resize_image, resize_linearly
from cxrkeras.data.preparation import OWN, Preparation, check_preparation, find_crop
from cxrkeras.errors import InputError
from tests.support.dicoms import make_dicom

REFERENCES = Path(__file__).parents[1] / "references"
XRV = Preparation(crop="centre", grey="mean", window="off", resize="linear")


def encode(pixels):
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def draw(*shape):
    return np.random.default_rng(shape[0]).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize("side", [300, 20])
def test_linear_resizing_equals_scikit_image(side):
    """The reference is `skimage.transform.resize` 0.26 on torchxrayvision's scale, -1024 to 1024, in grey levels."""
    with np.load(REFERENCES / "skimage-resize.npz") as stored:
        np.testing.assert_allclose(resize_linearly(draw(side, side), 32), stored[str(side)], atol=1e-3)


def test_linear_resizing_of_strips_is_that_of_the_whole():
    """Rows are processed a few hundred at a time; a constant image stays so away from the edge."""
    resized = resize_linearly(np.full((1100, 700), 200, np.uint8), 16)
    np.testing.assert_allclose(resized[1:-1, 1:-1], 200, atol=0.5)
    assert resized[0, 0] < 195  # mid-grey outside


@pytest.mark.parametrize(
    ("shape", "crop", "rows", "columns"),
    [
        ((100, 60), "centre", (20, 80), (0, 60)),
        ((61, 100), "centre", (0, 61), (20, 81)),
        ((64, 64), "centre 7/8", (4, 60), (4, 60)),
        ((100, 60), "none", (0, 100), (0, 60)),
        ((1, 5), "centre 7/8", (0, 1), (2, 3)),
    ],
)
def test_the_crop_is_in_the_middle(shape, crop, rows, columns):
    assert find_crop(shape, crop) == (slice(*rows), slice(*columns))


def test_a_cropped_image_is_that_of_its_middle():
    grey = draw(90, 60)
    cropped = resize_image(grey, 32, Preparation(crop="centre"))
    np.testing.assert_array_equal(cropped, resize_image(grey[15:75], 32))
    np.testing.assert_array_equal(load_image(encode(grey), 32, Preparation(crop="centre")), cropped)
    assert not np.array_equal(cropped, resize_image(grey, 32))


def test_pillows_bilinear_filter_is_taken_as_it_is():
    grey = draw(90, 60)
    expected = np.asarray(Image.fromarray(grey).resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize_image(grey, 32, Preparation(resize="triangle")), expected)


@pytest.mark.parametrize("height", [9, 600])
def test_colour_is_averaged(height):
    colour = draw(height, 70, 3)
    expected = np.floor(colour.mean(axis=2) + 0.5)
    np.testing.assert_array_equal(decode_image(encode(colour), preparation=XRV), expected)
    assert not np.array_equal(decode_image(encode(colour)), expected)
    grey = draw(height, 70)
    np.testing.assert_array_equal(decode_image(encode(grey), preparation=XRV), grey)


def test_16_bits_without_a_window_keep_their_full_range():
    levels = np.array([[0, 257, 514, 65535]], np.uint16)
    np.testing.assert_array_equal(decode_image(encode(levels), preparation=XRV), [[0, 1, 2, 255]])
    np.testing.assert_array_equal(decode_image(encode(levels // 16), preparation=XRV), [[0, 0, 0, 16]])


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, [0, 64, 128, 255]),
        ({"WindowCenter": 100, "WindowWidth": 50}, [0, 64, 128, 255]),  # the header's window is ignored
        ({"RescaleSlope": 2, "RescaleIntercept": -7}, [0, 64, 128, 255]),
        ({"PhotometricInterpretation": "MONOCHROME1"}, [255, 191, 127, 0]),
    ],
)
def test_dicom_without_a_window_shows_the_range_of_its_stored_bits(elements, expected):
    levels = np.array([[0, 1024, 2048, 4095]], np.uint16)
    content = make_dicom(levels, BitsStored=12, **elements)
    np.testing.assert_array_equal(decode_image(content, preparation=XRV), [expected])


def test_readers_and_network_get_their_own_rendering_where_they_differ():
    content = make_dicom(
        np.array([[0, 1024, 2048, 4095]], np.uint16), BitsStored=12, WindowCenter=1500, WindowWidth=1000
    )
    shown, seen = decode_for(XRV, content)
    np.testing.assert_array_equal(shown, decode_image(content))
    np.testing.assert_array_equal(seen, decode_image(content, preparation=XRV))
    assert not np.array_equal(shown, seen)
    shown, seen = decode_for(Preparation(crop="centre", resize="triangle"), content)
    assert shown is seen


def test_records_of_another_preparation_are_refused_with_the_command():
    with pytest.raises(
        InputError, match=r"crop=none, but xrv-nih requires crop=centre: `cxrkeras records --like xrv-nih"
    ):
        check_preparation(OWN, XRV, "records/x", "xrv-nih")
    check_preparation(XRV, XRV, "records/x", "xrv-nih")
