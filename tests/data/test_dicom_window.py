"""DICOM rendering: files with one property each, against independent formulas."""

import numpy as np
import pydicom
import pytest
from PIL import Image

from cxrkeras.data.dicom import decode_dicom
from tests.support.dicoms import RAMP, make_bare, make_dataset, make_dicom, make_item, make_table

LIMIT = 10_000_000
DEEP = (RAMP >> 4).astype(np.uint16)  # 12 bits
SIGNED = (DEEP.astype(int) - 2048).astype(np.int16)


def decode(levels, **elements):
    return decode_dicom(make_dicom(levels, **elements), LIMIT).astype(int)


def show_window(x, center, width, function="LINEAR"):
    """The window functions of PS3.3 C.11.2.1.2, case by case; grey 0 to 255."""
    x = np.asarray(x, np.float64)
    if function == "SIGMOID":
        return 255 / (1 + np.exp(-4 * (x - center) / width))
    c, w = (center, width) if function == "LINEAR_EXACT" else (center - 0.5, width - 1)
    inside = (x - c) / (w or 1) + 0.5
    return np.where(x <= c - w / 2, 0, np.where(x > c + w / 2, 255, inside * 255))


def show_percentiles(x):
    low, high = np.percentile(x, (0.1, 99.9))
    return np.clip((np.asarray(x, np.float64) - low) / (high - low), 0, 1) * 255


def assert_close(grey, expected, within=0.51):
    assert np.abs(grey - expected).max() <= within


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("rescale", [(1, 0), (-1, 4095), (0.5, -100), (-2, 0), (None, -300), (3, None)])
@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("levels", [DEEP, SIGNED], ids=["unsigned", "signed"])
def test_rescale_window_and_polarity(levels, function, rescale, kind):
    slope, intercept = rescale
    x = levels.astype(np.float64) * (1 if slope is None else slope) + (intercept or 0)
    center, width = float(np.round(np.median(x) + 20)), 900.0
    elements = {"RescaleSlope": slope, "RescaleIntercept": intercept, "VOILUTFunction": function}
    elements = {name: value for name, value in elements.items() if value is not None}
    window = {"WindowCenter": center, "WindowWidth": width, "PhotometricInterpretation": kind}
    grey = decode(levels, BitsStored=12, **elements, **window)
    expected = show_window(x, center, width, function)
    assert_close(grey, 255 - expected if kind == "MONOCHROME1" else expected)


@pytest.mark.parametrize("bits", [1, 3, 8, 10, 12, 15, 16, 20, 31, 32])
@pytest.mark.parametrize("is_signed", [False, True])
def test_every_depth_and_sign(bits, is_signed):
    words = np.round(np.linspace(0, (1 << bits) - 1, 30 * 40)).astype(np.int64).reshape(30, 40)
    x = np.where(words >> (bits - 1), words - (1 << bits), words) if is_signed else words
    allocated = next(size for size in (8, 16, 32) if bits <= size)
    stored = words.astype(f"u{allocated // 8}")  # the sign is not carried into the bits above
    center, width = float(x.mean()), max(float(np.ptp(x)) / 2, 1)
    window = {"WindowCenter": f"{center:.3f}", "WindowWidth": f"{width:.3f}"}
    grey = decode(stored, BitsStored=bits, PixelRepresentation=int(is_signed), **window)
    assert_close(grey, show_window(x, float(window["WindowCenter"]), float(window["WindowWidth"])))
    without = decode(stored, BitsStored=bits, PixelRepresentation=int(is_signed))
    assert_close(without, x if (bits, is_signed) == (8, False) else show_percentiles(x))


@pytest.mark.parametrize(
    ("elements", "center", "width", "function"),
    [
        ({"WindowCenter": "2000", "WindowWidth": "1000", "VOILUTFunction": ""}, 2000, 1000, "LINEAR"),
        ({"WindowCenter": "2000", "WindowWidth": "1000", "VOILUTFunction": "UNHEARD_OF"}, 2000, 1000, "LINEAR"),
        ({"WindowCenter": ["2000", "50"], "WindowWidth": ["1000", "9"]}, 2000, 1000, "LINEAR"),
        ({"WindowCenter": "2000", "WindowWidth": "1"}, 2000, 1, "LINEAR"),
        ({"RescaleSlope": "0.0002", "WindowCenter": "0.4", "WindowWidth": "0.3"}, 0.4, 0.3, "LINEAR_EXACT"),
        ({"RescaleSlope": "0.0002", "WindowCenter": "0.4", "WindowWidth": "0.3", "VOILUTFunction": "SIGMOID"},
         0.4, 0.3, "SIGMOID"),
        ({"WindowCenter": "2000", "WindowWidth": "1000", "VOILUTSequence": pydicom.Sequence()}, 2000, 1000, "LINEAR"),
        ({"WindowCenter": "2000", "WindowWidth": "1000", "VOILUTSequence": make_table([])}, 2000, 1000, "LINEAR"),
        ({"WindowCenter": "2000", "WindowWidth": "1000", "VOILUTSequence": make_item()}, 2000, 1000, "LINEAR"),
        ({"WindowCenter": "2000", "WindowWidth": "1000", "PresentationLUTShape": "IDENTITY"}, 2000, 1000, "LINEAR"),
    ],
)  # fmt: skip
def test_unusual_windows(elements, center, width, function):
    x = DEEP * float(elements.get("RescaleSlope", 1))
    assert_close(decode(DEEP, BitsStored=12, **elements), show_window(x, center, width, function))


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowWidth": "100"},
        {"WindowCenter": "100", "WindowWidth": "0"},
        {"WindowCenter": "100", "WindowWidth": "-5"},
        {"WindowCenter": "nan", "WindowWidth": "100"},
    ],
)
def test_an_invalid_window_is_ignored(window):
    assert_close(decode(DEEP, BitsStored=12, **window), show_percentiles(DEEP))


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_window_and_rescale_in_functional_groups(groups):
    voi = make_item(WindowCenter="-500", WindowWidth="1500", VOILUTFunction="LINEAR_EXACT")
    group = make_item(
        FrameVOILUTSequence=voi, PixelValueTransformationSequence=make_item(RescaleSlope="-1", RescaleIntercept="900")
    )
    grey = decode(DEEP, BitsStored=12, NumberOfFrames=1, **{groups: group})
    assert_close(grey, show_window(900.0 - DEEP, -500, 1500, "LINEAR_EXACT"))


CURVE = np.round(4095 * (np.arange(4096) / 4095) ** 0.5).astype(int)


@pytest.mark.parametrize(
    ("table", "top"),
    [
        (make_table(CURVE, bits=12), 4095),
        (make_table(CURVE, bits=16), 4095),
        (make_table(CURVE // 4, bits=16), 1023),
        (make_table(CURVE // 16, bits=8), 255),
        (make_table(CURVE // 16, bits=8, packed=True), 255),
        (make_table(CURVE // 16, bits=16, packed=True), 255),
        (make_table(CURVE * 16, bits=16), 65535),
        (make_table(CURVE // 2 + 1000, bits=12), 4095),
    ],
    ids=["12", "16 of 12", "16 of 10", "8 in words", "8 packed", "8 packed, 16 declared", "16", "not the whole range"],
)
def test_voi_tables_of_all_depths(table, top):
    raw = table[0].LUTData
    entries = np.frombuffer(raw, "u1" if len(raw) == 4096 else "<u2").astype(np.float64)
    assert_close(decode(DEEP, BitsStored=12, VOILUTSequence=table), entries[DEEP] * 255 / top, within=1)
    inverted = decode(DEEP, BitsStored=12, VOILUTSequence=table, PhotometricInterpretation="MONOCHROME1")
    assert_close(inverted, 255 - entries[DEEP] * 255 / top, within=1)


def test_levels_outside_a_table_get_its_first_or_last_entry():
    table = make_table(np.arange(0, 4000, 4), first=1000, bits=12)
    expected = np.clip(DEEP.astype(int) - 1000, 0, 999) * 4 / 4095 * 255
    assert_close(decode(DEEP, BitsStored=12, VOILUTSequence=table), expected)


@pytest.mark.parametrize("first", [-2048, -1000])
@pytest.mark.parametrize("vr", ["US", "SS"])
def test_the_sign_of_the_first_level_of_a_table_follows_the_levels(first, vr):
    table = make_table(CURVE, first=first, bits=12)
    if vr == "SS":
        table[0].add_new("LUTDescriptor", "SS", [4096, first, 12])
    expected = CURVE[np.clip(SIGNED.astype(int) - first, 0, 4095)] * 255 / 4095
    assert_close(decode(SIGNED, BitsStored=12, VOILUTSequence=table), expected)
    # A rescale can make the levels of unsigned pixels negative.
    expected = CURVE[np.clip(DEEP.astype(int) - 1024 - first, 0, 4095)] * 255 / 4095
    assert_close(decode(DEEP, BitsStored=12, VOILUTSequence=table, RescaleIntercept="-1024"), expected)


def test_a_first_level_above_32767_of_unsigned_levels():
    table = make_table(np.arange(20000) * 3, first=40000, bits=16)
    table[0].add_new("LUTDescriptor", "SS", [20000, 40000 - 65536, 16])
    expected = np.clip(RAMP.astype(int) - 40000, 0, 19999) * 3 * 255 / 65535
    assert_close(decode(RAMP, VOILUTSequence=table), expected)


def test_a_table_of_65536_entries_declares_0():
    entries = 65535 - np.arange(65536)
    assert_close(decode(RAMP, VOILUTSequence=make_table(entries)), (65535 - RAMP.astype(int)) * 255 / 65535)


@pytest.mark.parametrize("is_implicit", [False, True])
def test_a_modality_table_comes_before_the_window(is_implicit):
    table = make_table(4095 - CURVE, first=-2048, bits=12)
    dataset = make_dataset(SIGNED, BitsStored=12, ModalityLUTSequence=table, WindowCenter="2000", WindowWidth="3000")
    x = (4095 - CURVE)[SIGNED.astype(int) + 2048]
    grey = decode_dicom(make_bare(dataset, is_implicit=is_implicit), LIMIT)
    assert_close(grey, show_window(x, 2000, 3000))


@pytest.mark.parametrize("is_signed", [False, True])
def test_bits_outside_the_stored_ones_are_ignored(is_signed):
    x = (SIGNED if is_signed else DEEP).astype(int)
    garbage = np.random.default_rng(0).integers(0, 16, DEEP.shape)
    high = ((x & 4095) << 4 | garbage).astype(np.uint16)
    low = (garbage << 12 | (x & 4095)).astype(np.uint16)
    window = {"WindowCenter": "100", "WindowWidth": "2000", "BitsStored": 12, "PixelRepresentation": int(is_signed)}
    assert_close(decode(high, HighBit=15, **window), show_window(x, 100, 2000))
    assert_close(decode(low, HighBit=11, **window), show_window(x, 100, 2000))


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("window", [{}, {"WindowCenter": "2000", "WindowWidth": "1500"}], ids=["without", "window"])
@pytest.mark.parametrize(
    ("levels", "padding", "limit"),
    [(DEEP, 0, None), (DEEP, 0, 900), (DEEP, 4095, 3500), (SIGNED, -2048, None), (SIGNED, -2048, -1900)],
)
def test_padding_is_black_and_excluded_from_the_window(levels, padding, limit, window, kind):
    levels = levels.copy()
    levels[:, :20] = padding
    vr = "SS" if levels.dtype.kind == "i" else "US"
    elements = {"PixelPaddingValue": (vr, padding)}
    if limit is not None:
        elements["PixelPaddingRangeLimit"] = (vr, limit)
    ends = sorted([padding, padding if limit is None else limit])
    is_padding = (levels >= ends[0]) & (levels <= ends[1])
    grey = decode(levels, BitsStored=12, PhotometricInterpretation=kind, **elements, **window)
    assert not grey[is_padding].any()
    x = levels[~is_padding].astype(int)
    expected = show_window(x, 2000, 1500) if window else show_percentiles(x)
    assert_close(grey[~is_padding], 255 - expected if kind == "MONOCHROME1" else expected)


def test_padding_with_more_bits_than_are_stored():
    levels = DEEP.copy()
    levels[:5] = 63536
    grey = decode(levels, BitsStored=12, PixelPaddingValue=("US", 63536))
    assert not grey[:5].any()
    assert_close(grey[5:], show_percentiles(DEEP[5:]))


@pytest.mark.parametrize("value", [0, 700])
def test_constant_images_and_padding_only_do_not_divide_by_zero(value):
    flat = np.full((20, 30), value, np.uint16)
    assert len(np.unique(decode(flat))) == 1
    assert not decode(flat, PixelPaddingValue=("US", value), PhotometricInterpretation="MONOCHROME1").any()


def test_without_a_window_a_hot_pixel_does_not_darken_the_image():
    hot = DEEP.copy() // 4
    hot[3, 5] = 4095
    assert_close(decode(hot, BitsStored=12), show_percentiles(hot))
    assert decode(hot, BitsStored=12)[40].mean() > 200
    rare = np.zeros((100, 100), np.uint16)
    rare[0, :3] = 500  # fewer than the percentiles exclude: then the minimum and maximum are the window
    assert sorted(np.unique(decode(rare))) == [0, 255]


def test_eight_bits_without_a_window_stay_unchanged():
    dim = (RAMP >> 9).astype(np.uint8) + 20
    assert np.array_equal(decode(dim), dim)
    assert np.array_equal(decode(dim, PhotometricInterpretation="MONOCHROME1"), 255 - dim.astype(int))
    assert_close(decode(dim, RescaleSlope="2"), show_percentiles(dim))


COLOUR = np.random.default_rng(0).integers(0, 256, (32, 40, 3)).astype(np.uint8)
GREY = np.asarray(Image.fromarray(COLOUR).convert("L")).astype(int)
YBR = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))


def test_colour_becomes_grey_as_in_pillow():
    assert np.array_equal(decode(COLOUR), GREY)
    planes = np.ascontiguousarray(COLOUR.transpose(2, 0, 1))
    assert np.array_equal(decode(COLOUR, PlanarConfiguration=1, PixelData=("OW", planes.tobytes())), GREY)
    window = {"WindowCenter": "20", "WindowWidth": "10"}  # applies only to grey
    assert np.array_equal(decode(COLOUR, **window), GREY)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_deep_colour_is_scaled_by_its_stored_bits(bits):
    colour = np.random.default_rng(1).integers(0, 1 << bits, (32, 40, 3)).astype(np.uint16)
    expected = colour @ [0.299, 0.587, 0.114] * 255 / ((1 << bits) - 1)
    assert_close(decode(colour, BitsStored=bits), expected, within=0.6)


def test_luminance_and_colour_difference_become_grey():
    assert_close(decode(YBR, PhotometricInterpretation="YBR_FULL"), GREY, within=1)
    pairs = YBR.reshape(-1, 2, 3)
    packed = np.concatenate([pairs[:, :, 0], pairs[:, :1, 1], pairs[:, :1, 2]], axis=1).tobytes()
    half = decode(YBR, PhotometricInterpretation="YBR_FULL_422", PixelData=("OW", packed))
    assert_close(half, GREY, within=1)


@pytest.mark.parametrize(("declared", "used"), [(16, 16), (16, 8), (8, 8)])
def test_palettes_become_grey(declared, used):
    rng = np.random.default_rng(2)
    entries = rng.integers(0, 1 << used, (3, 200))
    entries[0, 0] = (1 << used) - 1
    indices = rng.integers(0, 256, (20, 30)).astype(np.uint8)
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for name, column in zip(("Red", "Green", "Blue"), entries, strict=True):
        elements[f"{name}PaletteColorLookupTableDescriptor"] = ("US", [200, 10, declared])
        elements[f"{name}PaletteColorLookupTableData"] = (
            "OW",
            column.astype("u1" if declared == 8 else "<u2").tobytes(),
        )
    colours = entries.T[np.clip(indices.astype(int) - 10, 0, 199)]
    expected = colours @ [0.299, 0.587, 0.114] * 255 / ((1 << used) - 1)
    assert_close(decode(indices, **elements), expected, within=0.6)


@pytest.mark.parametrize("levels", [DEEP, SIGNED, DEEP.astype(np.uint8), COLOUR[..., 0], DEEP.astype(np.uint32)])
def test_big_endian_words(levels):
    levels = levels[:, :-1]  # an odd number in a row
    swapped = levels.astype(levels.dtype.newbyteorder(">")).tobytes()
    if levels.itemsize == 1:
        swapped = np.frombuffer(swapped + b"\0" * (len(swapped) % 2), "<u2").astype(">u2").tobytes()
    bits = min(8 * levels.itemsize, 12)
    elements = {"BitsStored": bits, "WindowCenter": "1000", "WindowWidth": "2000"}
    little = decode(levels, **elements)
    dataset = make_dataset(levels, **elements, PixelData=("OW", swapped))
    assert np.array_equal(decode_dicom(make_bare(dataset, is_little=False), LIMIT), little)
    assert_close(little, show_window(levels, 1000, 2000))


@pytest.mark.parametrize("bits", [12, 8])
def test_tables_in_big_endian(bits):
    """Packed bytes are grouped in words, too."""
    table = make_table(CURVE, first=-1000, bits=bits)
    words = CURVE if bits == 12 else (CURVE >> 4).astype("u1").view("<u2")
    table[0].add_new("LUTData", "OW", words.astype(">u2").tobytes())
    dataset = make_dataset(
        SIGNED, BitsStored=12, VOILUTSequence=table, PixelData=("OW", SIGNED.astype(">i2").tobytes())
    )
    expected = (CURVE >> (12 - bits))[np.clip(SIGNED.astype(int) + 1000, 0, 4095)] * 255 / ((1 << bits) - 1)
    assert_close(decode_dicom(make_bare(dataset, is_little=False), LIMIT), expected)


def test_a_plain_window_is_shown_as_pydicom_shows_it():
    """pydicom's functions are right if nothing is negative, narrow or missing."""
    from pydicom.pixels import apply_windowing

    dataset = make_dataset(DEEP, BitsStored=12, WindowCenter="1500", WindowWidth="2500")
    assert_close(decode(DEEP, BitsStored=12, WindowCenter="1500", WindowWidth="2500"),
                apply_windowing(DEEP, dataset) * 255 / 4095)  # fmt: skip
