"""DICOM radiographs: real ones in many encodings, DICOM files without images, and warnings from the header."""

import contextlib
import gzip
import io
import sys
import threading
import tracemalloc
import warnings
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels import decoders

from cxrkeras.data.dicom import decode_dicom, is_dicom, read_dicom_header, read_dicom_warnings
from cxrkeras.data.images import decode_image, load_image, read_header, read_warnings
from cxrkeras.errors import InputError
from tests.support.dicoms import RAMP, make_bare, make_dataset, make_dicom, make_item

LIMIT = 10_000_000
WINDOW = {"WindowCenter": "30000", "WindowWidth": "40000"}


def read_real(name):
    path = get_testdata_file(f"{name}.dcm", download=False)
    if path is None:
        pytest.skip("pydicom-data is not installed")
    with open(path, "rb") as file:
        return file.read()


def make_deflated(more=b""):
    """A file deflated as a whole, with extra bytes after its pixels."""
    whole = make_dicom(RAMP)
    start = 144 + int.from_bytes(whole[140:144], "little")
    uid, packed = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99"
    meta = bytearray(whole[:start])
    place = meta.index(uid)
    meta[place - 2 : place + len(uid) + 1] = len(packed).to_bytes(2, "little") + packed
    meta[140:144] = (len(meta) - 144).to_bytes(4, "little")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return bytes(meta) + packer.compress(whole[start:] + more) + packer.flush()


def make_compressed(frame, syntax, levels=RAMP, **elements):
    """A file whose pixels are a compressed image."""
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(levels, **elements)))
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.file_meta.TransferSyntaxUID = syntax
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def test_a_real_chest_is_the_same_in_all_encodings():
    decoded = {name: decode_image(read_real(name)) for name in ("RG1_UNCI", "RG1_UNCR", "RG1_J2KI", "RG1_J2KR")}
    first = decoded["RG1_UNCI"].astype(int)
    assert first.shape == (1955, 1841)
    # Stored as MONOCHROME1: bright lungs there are dark lungs here, between ribs and mediastinum.
    assert first[500:900, 400:700].mean() < first[500:900, 850:1000].mean()
    for image in decoded.values():
        assert np.abs(image - first).mean() < 1
        assert np.abs(image - first).max() <= 4
    small = load_image(read_real("RG1_J2KR"), 224)
    assert small.shape == (224, 224)
    assert small.dtype == np.uint8


def test_a_real_leg_is_read():
    leg = decode_image(read_real("RG3_UNCR"))
    assert leg.shape == (1760, 1760)
    assert leg.std() > 20


def test_unusual_files_look_like_the_plain_one(cases):
    folder = cases / "dicom"
    right = decode_image((folder / "right_plain_window.dcm").read_bytes()).astype(int)
    for name in ("neg_slope_window", "voifunction_empty", "no_meta_implicit", "voilut_16_of_12_agfa"):
        assert np.abs(decode_image((folder / f"{name}.dcm").read_bytes()) - right).max() <= 1, name
    assert np.corrcoef(decode_image((folder / "voilut_8bit_4096.dcm").read_bytes()).ravel(), right.ravel())[0, 1] > 0.99
    assert read_warnings((folder / "header_lateral.dcm").read_bytes()) == (LATERAL,)


def test_real_chests_of_other_libraries_are_read(dicom_real):
    for path in sorted(dicom_real.glob("[ct]h*.dcm")):
        grey = decode_image(path.read_bytes())
        assert grey.std() > 35, path.name
        assert read_warnings(path.read_bytes()) == (), path.name


def test_the_largest_image_takes_little_memory():
    """Two bytes per pixel including the result, whatever is done to the levels; pydicom's functions take 25."""
    levels = np.tile(RAMP[:40], (200, 156))
    assert levels.size == 79_872_000
    kind = {"PhotometricInterpretation": "MONOCHROME1", "PixelRepresentation": 1, "PixelPaddingValue": ("SS", -5)}
    content = make_bare(make_dataset(levels, **kind))
    tracemalloc.start()
    try:
        grey = decode_image(content)
        assert tracemalloc.get_traced_memory()[1] < 2 * levels.size
    finally:
        tracemalloc.stop()
    small = decode_image(make_bare(make_dataset(levels[:40, :256], **kind)))
    assert np.abs(grey[:40, :256] - small.astype(int)).max() <= 1


def test_files_without_file_meta_information_are_read():
    dataset = make_dataset(RAMP, **WINDOW)
    expected = decode_dicom(make_dicom(RAMP, **WINDOW), LIMIT)
    swapped = make_dataset(RAMP, **WINDOW, PixelData=("OW", RAMP.astype(">u2").tobytes()))
    files = {
        "explicit": make_bare(dataset),
        "implicit": make_bare(dataset, is_implicit=True),
        "big endian": make_bare(swapped, is_little=False),
        "without preamble": make_dicom(RAMP, **WINDOW)[132:],
        "preamble lost, prefix kept": make_dicom(RAMP, **WINDOW)[128:],
        "meta without its length": make_dicom(RAMP, **WINDOW)[132 + 12 :],
        "preamble, no meta": bytes(128) + b"DICM" + make_bare(dataset, is_implicit=True),
    }
    for name, content in files.items():
        assert is_dicom(content), name
        assert np.array_equal(decode_image(content), expected), name


@pytest.mark.parametrize(("is_implicit", "is_little"), [(True, True), (False, True), (False, False)])
@pytest.mark.parametrize("keyword", ["SpecificCharacterSet", "ImageType", "SOPClassUID", "StudyDate", "Modality"])
def test_a_file_may_begin_with_any_element(keyword, is_implicit, is_little):
    values = {"SpecificCharacterSet": "ISO_IR 100", "ImageType": ["DERIVED", "PRIMARY"], "SOPClassUID": "1.2.3",
              "StudyDate": "20200101", "Modality": "DX"}  # fmt: skip
    order = RAMP.astype("<u2" if is_little else ">u2")
    dataset = make_dataset(RAMP, leave_out=("SOPClassUID", "SOPInstanceUID"), PixelData=("OW", order.tobytes()))
    setattr(dataset, keyword, values[keyword])
    content = make_bare(dataset, is_implicit=is_implicit, is_little=is_little)
    assert is_dicom(content)
    assert np.array_equal(decode_image(content), decode_image(make_dicom(RAMP)))


def test_other_files_are_not_detected_as_dicom():
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "ICO", "WEBP"):
        picture = io.BytesIO()
        Image.fromarray(RAMP.astype(np.uint8)).save(picture, kind)
        assert not is_dicom(picture.getvalue()), kind
    texts = ("Image Index,Finding Labels\n" * 20, "\x08 a table\n" * 20)
    for content in (b"", b"\x08\x00", b"PK\x03\x04" + bytes(200), b"\x1f\x8b\x08" + bytes(200), bytes(500),
                    *(text.encode(code) for text in texts for code in ("utf-8", "utf-16"))):  # fmt: skip
        assert not is_dicom(content), content[:20]


def test_a_deflated_file_is_read():
    assert (decode_dicom(make_deflated(), LIMIT) == decode_dicom(make_dicom(RAMP), LIMIT)).all()


def test_single_bits_are_unpacked():
    bits = np.random.default_rng(0).integers(0, 2, (20, 31)).astype(np.uint8)
    packed = np.packbits(bits, bitorder="little").tobytes()
    content = make_dicom(bits, BitsAllocated=1, BitsStored=1, PixelData=("OB", packed + b"\0" * (len(packed) % 2)))
    assert np.array_equal(decode_dicom(content, LIMIT), 255 * bits)


def test_the_header_is_read_without_the_pixels():
    assert read_dicom_header(make_dicom(RAMP, BitsStored=14)) == ("L", 14, 64, 48, 3)
    assert read_dicom_header(make_compressed(b"frame", pydicom.uid.JPEG2000)) == ("L", 16, 64, 48, 16)
    header = read_header(make_dicom(np.zeros((20, 30, 3), np.uint8)))
    assert (header.mode, header.bits, header.width, header.height) == ("RGB", 8, 30, 20)


def test_a_compressed_image_larger_than_its_header_is_refused_before_decoding():
    inside = io.BytesIO()
    Image.new("L", (4000, 4000)).save(inside, "JPEG")
    frame = inside.getvalue()
    # A JPEG, which Pillow supports, and JPEG-LS, which it does not.
    start = frame.index(b"\xff\xc0")
    jpeg_ls = frame[:2] + b"\xff\xf7" + frame[start + 2 :]
    for content, syntax in ((frame, pydicom.uid.JPEGBaseline8Bit), (jpeg_ls, pydicom.uid.JPEGLSLossless)):
        with pytest.raises(InputError, match="64 x 48 by its header, 4000 x 4000 by the image in it"):
            decode_dicom(make_compressed(content, syntax, RAMP.astype(np.uint8)), LIMIT)


SYNTAXES = {
    "JPEG Lossless": (pydicom.uid.JPEGLosslessSV1, decoders.JPEGLosslessSV1Decoder),
    "JPEG-LS Lossless": (pydicom.uid.JPEGLSLossless, decoders.JPEGLSLosslessDecoder),
    "JPEG Extended": (pydicom.uid.JPEGExtended12Bit, decoders.JPEGExtended12BitDecoder),
}


@pytest.mark.parametrize("name", SYNTAXES)
def test_a_decoder_is_named_only_if_it_is_missing(name, monkeypatch):
    syntax, decoder = SYNTAXES[name]
    # Start of image, and start of a frame of 12 bits, 64 x 48.
    frame = b"\xff\xd8\xff\xc1\x00\x0b\x0c\x00\x30\x00\x40\x01\x01\x11\x00\xff\xd9\x00"
    content = make_compressed(frame, syntax, BitsStored=12)
    pillow = {"pillow": None} if name == "JPEG Extended" else {}  # available, but reads only 8 bits of it
    monkeypatch.setattr(decoder, "_available", pillow)
    with pytest.raises(InputError, match=rf"{name}.*pip install \"cxrkeras\[dicom\]\".*python-gdcm.*pylibjpeg-libjpeg"):
        decode_dicom(content, LIMIT)
    monkeypatch.setattr(decoder, "_available", {"some decoder": lambda *arguments: 1 / 0})
    with pytest.raises(InputError, match="damaged") as caught:
        decode_dicom(content, LIMIT)
    assert "install" not in str(caught.value)


def test_compressions_that_need_a_decoder_are_read_with_it(dicom_real):
    pytest.importorskip("gdcm")
    hips = [decode_image((dicom_real / f"hip-{name}.dcm").read_bytes()) for name in ("jpeg-ls", "jpeg-extended-12bit")]
    assert hips[0].shape == hips[1].shape == (2140, 1760)
    assert np.corrcoef(hips[0].ravel(), hips[1].ravel())[0, 1] > 0.999
    assert np.unique(hips[0]).size > 200
    assert decode_image(read_real("JPEG-LL")).std() > 20


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: make_dicom(RAMP, NumberOfFrames=40), "40 frames"),
        (lambda: make_dicom(RAMP, Rows=60000, Columns=60000), "more pixels than the limit"),
        (lambda: make_dicom(RAMP, Rows=0), "without an image"),
        (lambda: make_dicom(RAMP)[:400], "without an image|cannot be"),
        (lambda: make_dicom(RAMP)[:-100], "cannot be decoded: damaged, the file ends before its pixels do"),
        (lambda: make_dicom(RAMP, Rows=1, Columns=3072), "more than 10 times as long as wide"),
        (lambda: make_dicom(RAMP, RescaleSlope="nan", RescaleIntercept="0"), "slope or intercept"),
        (lambda: make_dicom(RAMP, RescaleSlope="0", RescaleIntercept="0"), "slope is 0"),
        (lambda: make_dicom(RAMP, SamplesPerPixel=2), "2 values per pixel"),
        (lambda: make_dicom(RAMP, BitsAllocated=24), "BitsAllocated"),
        (lambda: make_dicom(RAMP, BitsStored=17), "BitsStored"),
        (lambda: make_dicom(RAMP, PixelRepresentation=7), "PixelRepresentation"),
        (lambda: make_deflated(bytes(200_000_000)), "inflates to more than 10,000,000 pixels"),
        (
            lambda: make_dicom(RAMP, PhotometricInterpretation="STRANGE"),
            "Interpretation must be one of MONOCHROME1, MONO",
        ),
        (lambda: b"\x00" * 128 + b"DICM", "without an image|header"),
        (lambda: b"\x00" * 128 + b"DICM" + bytes(range(256)) * 4, "without an image|header"),
        (lambda: make_compressed(b"nothing", pydicom.uid.MPEG2MPML), "no decoder for their compression"),
        (lambda: make_compressed(b"nothing", pydicom.uid.ExplicitVRLittleEndian), "does not name the transfer syntax"),
        (lambda: make_compressed(b"nothing", pydicom.uid.JPEG2000), "damaged"),
    ],
)
def test_errors_give_the_reason_and_never_quote_the_file(content, words):
    with pytest.raises(InputError, match=words) as caught:
        decode_dicom(content(), LIMIT)
    assert "ecret" not in str(caught.value)
    assert "STRANGE" not in str(caught.value)


@pytest.mark.parametrize(
    "name",
    ["SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns", "BitsAllocated", "BitsStored",
     "PixelRepresentation"],
)  # fmt: skip
def test_missing_or_empty_elements_are_named(name):
    for content in (make_dicom(RAMP, leave_out=[name]), make_dicom(RAMP, **{name: None})):
        with pytest.raises(InputError, match=f"DICOM file without {name}: "):
            decode_dicom(content, LIMIT)


def test_a_missing_high_bit_is_the_highest_stored_bit():
    levels = RAMP >> 4
    expected = decode_dicom(make_dicom(levels, BitsStored=12, HighBit=11), LIMIT)
    assert np.array_equal(decode_dicom(make_dicom(levels, BitsStored=12, leave_out=["HighBit"]), LIMIT), expected)


@pytest.mark.parametrize(
    ("sop_class", "words"),
    [
        ("1.2.840.10008.1.3.10", "DICOMDIR"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "document packed into DICOM, such as a PDF"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "presentation state"),
        ("1.2.840.10008.5.1.4.1.1.88.11", "structured report"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "waveform"),
        ("1.2.840.10008.5.1.4.1.1.481.5", "radiotherapy"),
        ("1.2.3", "DICOM file without an image"),
    ],
)
def test_files_without_pixels_say_what_they_are(sop_class, words):
    elements = {"SOPClassUID": sop_class, "leave_out": ["PixelData", "Rows", "BitsAllocated"]}
    with pytest.raises(InputError, match=words):
        decode_image(make_dicom(RAMP, **elements))


def test_floating_point_pixels_and_archives_say_what_they_are():
    for keyword, vr in (("FloatPixelData", "OF"), ("DoubleFloatPixelData", "OD")):
        elements = {keyword: (vr, np.zeros(RAMP.size).tobytes())}
        with pytest.raises(InputError, match="floating-point"):
            decode_image(make_dicom(RAMP, leave_out=["PixelData"], **elements))
    with pytest.raises(InputError, match="a gzip archive, not an image: unpack it"):
        decode_image(gzip.compress(make_dicom(RAMP)))
    with pytest.raises(InputError, match="a ZIP archive"):
        decode_image(b"PK\x03\x04" + make_dicom(RAMP))


LATERAL = "its header says that it is a lateral view"
SPECIAL = "its header says that it is an oblique, decubitus or other special view"
BODY_PART = "its header names a body part other than the chest"
MODALITY = "its header names a modality other than radiography"
LOCALIZER = "its header says that it is a localizer"
PROCESSING = "its header says that it is for processing, not for presentation"


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, ()),
        *(({"ViewPosition": view}, ()) for view in ("PA", "AP", "", "pa", "AP SUPINE", "FRONTAL", "PA_ERECT")),
        *(({"ViewPosition": view}, (LATERAL,)) for view in ("LL", "RL", "LATERAL", "Left Lateral", "LAT", "L_LAT")),
        *(({"ViewPosition": view}, (SPECIAL,)) for view in ("LLD", "RLO", "RAO", "OBLIQUE", "LEFT LATERAL DECUBITUS")),
        *(({"BodyPartExamined": name}, ()) for name in ("CHEST", "", "THORAX", "RIBCAGE", "RIB", "LUNG", "Chest PA")),
        *(({"BodyPartExamined": name}, (BODY_PART,)) for name in ("LEG", "TSPINE", "HIP", "Abdomen", "SKULL")),
        *(({"Modality": modality}, ()) for modality in ("DX", "CR", "RG", "", "OT")),
        *(({"Modality": modality}, (MODALITY,)) for modality in ("CT", "MR", "US", "PX", "MG")),
        ({"ImageType": ["ORIGINAL", "PRIMARY"]}, ()),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, (LOCALIZER,)),
        ({"ImageType": "LOCALIZER"}, (LOCALIZER,)),
        ({"PresentationIntentType": "FOR PRESENTATION"}, ()),
        ({"PresentationIntentType": "FOR PROCESSING"}, (PROCESSING,)),
        ({"ViewPosition": "LL", "BodyPartExamined": "KNEE", "Modality": "CT"}, (LATERAL, BODY_PART, MODALITY)),
        ({"ViewPosition": "SECRET", "ImageType": ["SECRET", "", "SECRET"]}, ()),
    ],
)  # fmt: skip
def test_warnings_from_the_header_have_fixed_words(elements, expected):
    content = make_dicom(RAMP, **elements)
    assert read_dicom_warnings(content) == read_warnings(content) == expected
    assert np.array_equal(decode_image(content), decode_image(make_dicom(RAMP)))


def test_png_has_no_such_header():
    picture = io.BytesIO()
    Image.fromarray(RAMP.astype(np.uint8)).save(picture, "PNG")
    assert read_warnings(picture.getvalue()) == ()


def test_nothing_else_in_the_header_is_read(monkeypatch):
    """Elements about the patient are skipped before they are parsed."""
    from cxrkeras.data import dicom_header

    kept = []
    read = dicom_header.read_elements

    def keep(*arguments, **options):
        dataset, end = read(*arguments, **options)
        kept.append({element.keyword for element in dataset})
        return dataset, end

    monkeypatch.setattr(dicom_header, "read_elements", keep)
    read_warnings(make_dicom(RAMP, ViewPosition="PA", PatientSex="F", InstitutionName="Secret"))
    assert kept[0] <= {*dicom_header.ELEMENTS, "SpecificCharacterSet"}
    assert {"Rows", "ViewPosition"} <= kept[0]
    assert not any(name.startswith(("Patient", "Institution")) for name in dicom_header.ELEMENTS)


def test_threads_leave_warning_filters_alone():
    content = make_dicom(RAMP, SpecificCharacterSet="ISO_IR 100")
    content = content.replace(b"ISO_IR 100", b"SECRET 100")  # pydicom warns about it and quotes it
    others = list(warnings.filters)
    decode_image(content)  # adds the filter, once
    before, sums = list(warnings.filters), []
    assert [entry for entry in before if entry in others] == others
    assert all("pydicom" in entry[3].pattern for entry in before if entry not in others)

    def work():
        for _ in range(20):
            sums.append(decode_image(content).sum())
            with contextlib.suppress(InputError):
                decode_image(content[:-9])

    threads = [threading.Thread(target=work) for _ in range(8)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert warnings.filters == before
    assert len(sums) == 160
    assert len(set(sums)) == 1


def test_flipped_bits_give_an_image_or_an_input_error():
    rng = np.random.default_rng(0)
    group = make_item(FrameVOILUTSequence=make_item(WindowCenter="30000", WindowWidth="20000"))
    for whole in (make_dicom(RAMP), make_dicom(RAMP, SharedFunctionalGroupsSequence=group, ViewPosition="LL")):
        read = 0
        for _ in range(300):
            broken = bytearray(whole)
            for place in rng.integers(0, 800, 3):
                broken[place] ^= 1 << int(rng.integers(8))
            with contextlib.suppress(InputError):
                grey = decode_image(bytes(broken))
                assert (grey.dtype, grey.ndim) == (np.uint8, 2)
                read_warnings(bytes(broken))
                read += 1
        assert 0 < read < 300
