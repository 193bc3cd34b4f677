"""Rescale, tables, windows and padding of DICOM against formulas written out here, one trait at a time."""

import io
import threading
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from test_dicom import LIMIT, RAMP, make_dicom

from cxrkeras.data.dicom import decode_dicom
from cxrkeras.data.dicom_header import is_dicom, read_header_warnings
from cxrkeras.data.images import decode_image
from cxrkeras.data.limits import PixelGate
from cxrkeras.errors import InputError

RNG = np.random.default_rng(0)
DEEP = RNG.integers(0, 4096, (40, 50)).astype(np.uint16)  # 12 bits
TWELVE = {"BitsStored": 12, "HighBit": 11}


def decode(levels, **elements):
    return decode_dicom(make_dicom(levels, **elements), LIMIT).astype(int)


def to_grey(shares):
    return np.round(255 * np.clip(shares, 0, 1)).astype(int)


def linear(x, center, width):
    return (x - (center - 0.5)) / (width - 1) + 0.5


def table(entries, first=0, bits=16, vr="US", **elements):
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 65536, first % 65536, bits])
    item.add_new("LUTData", vr, entries if vr == "OW" else [int(entry) for entry in entries])
    for name, value in elements.items():
        setattr(item, name, value)
    return Sequence([item])


@pytest.mark.parametrize(
    ("slope", "intercept"), [("-1", "4095"), ("2.5", None), (None, "-1024"), ("-0.01", "0"), ("1e-3", "-2")]
)
@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
def test_rescale_with_its_sign_then_the_window_then_the_inversion(slope, intercept, kind):
    values = DEEP * float(slope or 1) + float(intercept or 0)
    center, width = values.mean(), 0.6 * np.ptp(values)
    exact = {"VOILUTFunction": "LINEAR_EXACT"} if width < 1 else {}
    found = decode(DEEP, RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=f"{center:.6g}",
                   WindowWidth=f"{width:.6g}", PhotometricInterpretation=kind, **TWELVE, **exact)  # fmt: skip
    center, width = float(f"{center:.6g}"), float(f"{width:.6g}")
    shares = (values - center) / width + 0.5 if width < 1 else linear(values, center, width)
    expected = to_grey(shares)
    assert np.abs(found - (255 - expected if kind == "MONOCHROME1" else expected)).max() <= 1


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        ("LINEAR", lambda x: linear(x, 2000, 900)),
        ("", lambda x: linear(x, 2000, 900)),
        ("SOMETHING", lambda x: linear(x, 2000, 900)),
        ("LINEAR_EXACT", lambda x: (x - 2000) / 900 + 0.5),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 2000) / 900))),
    ],
)
def test_functions_of_a_window(function, formula):
    found = decode(DEEP, WindowCenter="2000", WindowWidth="900", VOILUTFunction=function, **TWELVE)
    assert np.array_equal(found, to_grey(formula(DEEP.astype(float))))


def test_the_first_of_several_windows_and_widths_of_one_and_less():
    first = decode(DEEP, WindowCenter=["2000", "50"], WindowWidth=["900", "60"], **TWELVE)
    assert np.array_equal(first, decode(DEEP, WindowCenter="2000", WindowWidth="900", **TWELVE))
    assert np.array_equal(decode(DEEP, WindowCenter="2000", WindowWidth="1", **TWELVE), 255 * (DEEP > 1999.5))
    calibrated = {"RescaleSlope": str(1 / 4096), "RescaleIntercept": "0", "WindowCenter": "0.5", "WindowWidth": "0.9"}
    assert np.abs(decode(DEEP, **calibrated, **TWELVE) - to_grey((DEEP / 4096 - 0.5) / 0.9 + 0.5)).max() <= 1


@pytest.mark.parametrize(("bits", "allocated"), [(8, 8), (10, 16), (12, 16), (15, 16), (16, 16), (20, 32), (32, 32)])
@pytest.mark.parametrize("is_signed", [False, True])
def test_all_depths_and_signs(bits, allocated, is_signed):
    lowest = -(2 ** (bits - 1)) if is_signed else 0
    values = RNG.integers(lowest, lowest + 2**bits, (30, 20))
    levels = values.astype(f"{'i' if is_signed else 'u'}{allocated // 8}")
    center, width = lowest + 2.0 ** (bits - 1), 0.5 * 2**bits
    found = decode(levels, BitsStored=bits, HighBit=bits - 1, PixelRepresentation=int(is_signed),
                   WindowCenter=str(int(center)), WindowWidth=str(int(width)))  # fmt: skip
    assert np.abs(found - to_grey(linear(values.astype(float), center, width))).max() <= 1


@pytest.mark.parametrize("is_signed", [False, True])
def test_stored_bits_need_not_be_the_lowest_and_others_may_hold_anything(is_signed):
    values = RNG.integers(-512, 512, (20, 20)) if is_signed else RNG.integers(0, 1024, (20, 20))
    garbage = RNG.integers(0, 8, (20, 20)) | (RNG.integers(0, 8, (20, 20)) << 13)
    levels = (((values & 1023) << 3) | garbage).astype(np.uint16)
    center = "0" if is_signed else "512"
    found = decode(levels, BitsStored=10, HighBit=12, PixelRepresentation=int(is_signed), WindowCenter=center,
                   WindowWidth="700")  # fmt: skip
    assert np.abs(found - to_grey(linear(values.astype(float), float(center), 700))).max() <= 1


def test_without_a_window_percentiles_leave_a_hot_pixel_out():
    levels = RNG.integers(1000, 2000, (100, 100)).astype(np.uint16)
    levels[0, 0], levels[0, 1] = 65535, 0
    low, high = np.percentile(levels, [0.1, 99.9])
    assert np.abs(decode(levels) - to_grey((levels - low) / (high - low))).max() <= 1
    negative = decode(levels, RescaleSlope="-1", RescaleIntercept="0")
    assert np.abs(negative - (255 - decode(levels))).max() <= 1
    assert not decode(np.full((10, 10), 700, np.uint16)).any()


def test_eight_bits_without_a_window_are_shown_as_they_are():
    levels = RNG.integers(60, 180, (30, 30)).astype(np.uint8)
    assert np.array_equal(decode(levels), levels)
    assert np.array_equal(decode(levels, PhotometricInterpretation="MONOCHROME1"), 255 - levels)
    assert decode(levels, RescaleSlope="2", RescaleIntercept="0").min() == 0


@pytest.mark.parametrize("kind", ["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("elements", "is_padding"),
    [
        ({"PixelPaddingValue": 4095}, lambda x: x == 4095),
        ({"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}, lambda x: x >= 4000),
        ({"PixelPaddingValue": 0}, lambda x: x == 0),
    ],
)
def test_padding_is_black_and_no_part_of_the_percentiles(kind, elements, is_padding):
    levels = RNG.integers(1000, 2000, (60, 60)).astype(np.uint16)
    levels[:, :20] = elements["PixelPaddingValue"]
    padding = is_padding(levels.astype(int))
    low, high = np.percentile(levels[~padding], [0.1, 99.9])
    expected = to_grey((levels - low) / (high - low))
    expected = np.where(padding, 0, 255 - expected if kind == "MONOCHROME1" else expected)
    found = decode(levels, PhotometricInterpretation=kind, **elements, **TWELVE)
    assert np.abs(found - expected).max() <= 1
    assert not found[padding].any()


def test_padding_of_signed_values_written_as_unsigned():
    levels = RNG.integers(-100, 900, (40, 40)).astype(np.int16)
    levels[:10] = -2000
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(levels, PixelRepresentation=1)))
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    out = io.BytesIO()
    dataset.save_as(out)
    found = decode_dicom(out.getvalue(), LIMIT)
    low, high = np.percentile(levels[10:], [0.1, 99.9])
    assert not found[:10].any()
    assert np.abs(found[10:].astype(int) - to_grey((levels[10:] - low) / (high - low))).max() <= 1


@pytest.mark.parametrize(
    ("entries", "bits"),
    [
        (np.arange(4096), 16),  # the descriptor says 16 bits, the entries end at 4095
        (np.arange(4096) * 16 + 15, 16),
        (np.arange(4096), 12),
        (np.sqrt(np.arange(4096) / 4095) * 4095, 12),
    ],
)
def test_a_table_has_its_own_range_whatever_its_descriptor_says(entries, bits):
    entries = entries.astype(int)
    found = decode(DEEP, VOILUTSequence=table(entries, bits=bits), **TWELVE)
    assert np.array_equal(found, to_grey(entries[DEEP] / entries.max()))


def test_a_table_of_eight_bits_for_deeper_pixels_in_words_and_packed():
    entries = (np.arange(4096) // 16).astype(np.uint8)
    expected = entries[DEEP].astype(int)
    words = table(entries, bits=8)
    packed = table(entries.tobytes(), bits=8, vr="OW")
    packed[0].LUTDescriptor = [4096, 0, 8]
    for sequence in (words, packed):
        assert np.array_equal(decode(DEEP, VOILUTSequence=sequence, **TWELVE), expected)


def test_a_table_of_all_16_bits_and_values_beyond_its_ends():
    entries = np.arange(65536)[::-1]
    assert np.array_equal(decode(RAMP, VOILUTSequence=table(entries)), to_grey(entries[RAMP] / 65535))
    short = np.arange(0, 1000)
    expected = to_grey(np.clip(DEEP.astype(int) - 500, 0, 999) / 999)
    assert np.array_equal(decode(DEEP, VOILUTSequence=table(short, first=500, bits=10), **TWELVE), expected)


@pytest.mark.parametrize("first", [-1024, 64512])
def test_the_first_value_of_a_table_may_be_written_with_the_wrong_sign(first):
    entries = np.arange(3000)
    found = decode(DEEP, RescaleSlope="1", RescaleIntercept="-1024", VOILUTSequence=table(entries, first, 12), **TWELVE)
    assert np.array_equal(found, to_grey(np.clip(DEEP.astype(int), 0, 2999) / 2999))


def test_a_modality_table_comes_before_the_window():
    entries = (np.arange(4096) ** 2 // 4096).astype(int)
    found = decode(DEEP, ModalityLUTSequence=table(entries, ModalityLUTType="US"), WindowCenter="2000",
                   WindowWidth="3000", **TWELVE)  # fmt: skip
    assert np.abs(found - to_grey(linear(entries[DEEP].astype(float), 2000, 3000))).max() <= 1


def test_an_empty_table_next_to_a_good_window_leaves_the_window():
    empty = Sequence([Dataset()])
    window = {"WindowCenter": "2000", "WindowWidth": "900"}
    expected = decode(DEEP, **window, **TWELVE)
    for sequence in (Sequence([]), empty):
        assert np.array_equal(decode(DEEP, VOILUTSequence=sequence, **window, **TWELVE), expected)


@pytest.mark.parametrize("groups", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_rescale_and_window_in_functional_groups(groups):
    voi, transform, group = Dataset(), Dataset(), Dataset()
    voi.WindowCenter, voi.WindowWidth, voi.VOILUTFunction = "-2000", "900", "LINEAR_EXACT"
    transform.RescaleSlope, transform.RescaleIntercept = "-1", "0"
    group.FrameVOILUTSequence = Sequence([voi])
    group.PixelValueTransformationSequence = Sequence([transform])
    found = decode(DEEP, **{groups: Sequence([group])}, **TWELVE)
    assert np.array_equal(found, to_grey((-DEEP.astype(float) + 2000) / 900 + 0.5))


def test_colour_of_12_in_16_bits_and_planes():
    colour = RNG.integers(0, 4096, (20, 30, 3)).astype(np.uint16)
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(decode(colour, **TWELVE) - to_grey(luma / 4095)).max() <= 1
    planes = np.ascontiguousarray(colour.transpose(2, 0, 1))
    content = make_dicom(colour, PlanarConfiguration=1, PixelData=planes.tobytes(), **TWELVE)
    assert np.array_equal(decode_dicom(content, LIMIT), decode_dicom(make_dicom(colour, **TWELVE), LIMIT))


def save_bare(dataset, *, implicit, little):
    out = io.BytesIO()
    bare = Dataset()
    for element in dataset:
        bare[element.tag] = element
    if not little:
        bare.PixelData = np.frombuffer(bare.PixelData, "<u2").astype(">u2").tobytes()
    bare.save_as(out, enforce_file_format=False, implicit_vr=implicit, little_endian=little)
    return out.getvalue()


@pytest.mark.parametrize(("implicit", "little"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("first", [(0x0008, 0x0005), (0x0008, 0x0016), (0x0008, 0x0060), (0x0008, 0x1030)])
def test_a_file_without_meta_is_read_whatever_it_begins_with(implicit, little, first):
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(DEEP, WindowCenter="2000", WindowWidth="900", **TWELVE)))
    expected = decode(DEEP, WindowCenter="2000", WindowWidth="900", **TWELVE)
    del dataset.SOPClassUID, dataset.SOPInstanceUID
    kind = {0x0005: "CS", 0x0016: "UI", 0x0060: "CS", 0x1030: "LO"}[first[1]]
    dataset.add_new(first, kind, "1.2" if kind == "UI" else "CR")
    content = save_bare(dataset, implicit=implicit, little=little)
    assert is_dicom(content)
    assert np.array_equal(decode_image(content), expected)


@pytest.mark.parametrize(
    "name", ["SamplesPerPixel", "PixelRepresentation", "PhotometricInterpretation", "BitsAllocated", "Rows"]
)
def test_a_missing_element_is_named(name):
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(DEEP, **TWELVE)))
    del dataset[name]
    out = io.BytesIO()
    dataset.save_as(out)
    with pytest.raises(InputError, match=f"its header lacks {name}$"):
        decode_dicom(out.getvalue(), LIMIT)


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"SOPClassUID": "1.2.840.10008.1.3.10"}, "DICOMDIR"),
        ({"EncapsulatedDocument": b"%PDF"}, "a document"),
        ({"FloatPixelData": np.zeros((40, 50), np.float32).tobytes()}, "floating-point"),
    ],
)
def test_other_kinds_of_files_have_sentences_of_their_own(elements, words):
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(DEEP, **TWELVE)))
    del dataset.PixelData
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    out = io.BytesIO()
    dataset.save_as(out)
    with pytest.raises(InputError, match=words):
        decode_image(out.getvalue())


@pytest.mark.parametrize(("start", "word"), [(b"PK\x03\x04", "zip"), (b"\x1f\x8b\x08", "gzip")])
def test_archives_are_named(start, word):
    with pytest.raises(InputError, match=f"a {word} archive, not an image"):
        decode_image(start + bytes(100))


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ({"ViewPosition": "LL"}, "lateral"),
        ({"ViewPosition": "LATERAL"}, "lateral"),
        ({"ViewPosition": "RAO"}, "oblique"),
        ({"BodyPartExamined": "HIP"}, "another part of the body"),
        ({"Modality": "CT"}, "not a radiograph"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "for processing"),
    ],
)
def test_the_header_warns_in_fixed_sentences(elements, words):
    (said,) = read_header_warnings(make_dicom(DEEP, **TWELVE, **elements))
    assert words in said
    value = next(iter(elements.values()))
    assert str(value) not in said


def test_a_usual_chest_gives_no_warning():
    for elements in (
        {},
        {"ViewPosition": "PA", "BodyPartExamined": "CHEST", "Modality": "DX"},
        {"ViewPosition": "AP", "BodyPartExamined": "PORT CHEST", "ImageType": ["ORIGINAL", "PRIMARY"]},
        {"BodyPartExamined": "THORAX"},
        {"BodyPartExamined": "RIBCAGE", "PresentationIntentType": "FOR PRESENTATION"},
    ):
        assert read_header_warnings(make_dicom(DEEP, **TWELVE, **elements)) == ()
    assert read_header_warnings(b"\x89PNG") == ()


def test_a_missing_decoder_is_advised_and_a_damaged_file_is_not():
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(DEEP, **TWELVE)))
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGLossless
    dataset.PixelData = pydicom.encaps.encapsulate([b"\xff\xd8\xff\xd9" * 20])
    dataset["PixelData"].is_undefined_length = True
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    decoder = pydicom.pixels.get_decoder(pydicom.uid.JPEGLossless)
    if decoder.is_available:
        with pytest.raises(InputError, match="damaged, or compressed otherwise than its header says"):
            decode_dicom(out.getvalue(), LIMIT)
    removed = {name: decoder._available.pop(name) for name in list(decoder._available)}
    try:
        with pytest.raises(InputError, match=r'another decoder: pip install "cxrkeras\[dicom\]", or .*GPL'):
            decode_dicom(out.getvalue(), LIMIT)
    finally:
        decoder._available.update(removed)


def test_threads_leave_the_filters_of_warnings_alone():
    content = make_dicom(DEEP, WindowCenter="2000", WindowWidth="900", **TWELVE)
    decode_dicom(content, LIMIT)
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [decode_dicom(content, LIMIT) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_the_gate_lets_in_what_fits_and_a_large_image_alone():
    gate, inside, most = PixelGate(100), [], []
    lock = threading.Lock()

    def work(pixels):
        with gate.hold(pixels):
            with lock:
                inside.append(pixels)
                most.append(sum(inside))
            threading.Event().wait(0.005)
            with lock:
                inside.remove(pixels)

    sizes = [30, 60, 90, 100, 10, 50] * 5
    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == len(sizes)
    assert max(most) <= 100
    with gate.hold(1000):
        assert not gate._free
