"""DICOM radiographs: real ones in four encodings, and what a file of the format may also be."""

import contextlib
import io
import zlib

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from cxrkeras.data.dicom import decode_dicom
from cxrkeras.data.dicom_header import is_dicom
from cxrkeras.data.images import decode_image, load_image
from cxrkeras.errors import InputError

LIMIT = 10_000_000


def read_real(name):
    path = get_testdata_file(f"{name}.dcm", download=False)
    if path is None:
        pytest.skip("pydicom-data is not installed")
    with open(path, "rb") as file:
        return file.read()


def make_dicom(levels, *, preamble=True, **elements):
    """A file with the levels as its pixels, uint8 or uint16."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.PatientName, dataset.PatientID = "Secret^Name", "secret-id"
    dataset.Rows, dataset.Columns = levels.shape[:2]
    dataset.SamplesPerPixel = 3 if levels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if levels.ndim == 3 else "MONOCHROME2"
    dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * levels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = levels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=preamble, implicit_vr=False, little_endian=True)
    return out.getvalue()


def make_deflated(more=b""):
    """A file packed as a whole, with zeros behind its pixels."""
    whole = make_dicom(RAMP)
    start = 144 + int.from_bytes(whole[140:144], "little")
    uid, packed = b"1.2.840.10008.1.2.1", b"1.2.840.10008.1.2.1.99"
    meta = bytearray(whole[:start])
    place = meta.index(uid)
    meta[place - 2 : place + len(uid) + 1] = len(packed).to_bytes(2, "little") + packed
    meta[140:144] = (len(meta) - 144).to_bytes(4, "little")
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return bytes(meta) + packer.compress(whole[start:] + more) + packer.flush()


RAMP = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)


def test_a_real_chest_is_the_same_from_all_its_encodings():
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


def test_a_real_leg_is_read_too():
    leg = decode_image(read_real("RG3_UNCR"))
    assert leg.shape == (1760, 1760)
    assert leg.std() > 20


def test_without_a_window_the_darkest_and_brightest_pixels_are_one():
    grey = decode_dicom(make_dicom(RAMP // 2 + 100), LIMIT)
    assert (grey.min(), grey.max()) == (0, 255)
    assert (np.diff(grey.ravel().astype(int)) >= 0).all()


@pytest.mark.parametrize(
    "window",
    [
        {"WindowCenter": None, "WindowWidth": None},
        {"WindowWidth": "100"},
        {"WindowCenter": "100", "WindowWidth": "0"},
        {"WindowCenter": "nan", "WindowWidth": "100"},
    ],
)
def test_a_window_that_is_none_is_as_without_one(window):
    assert (decode_dicom(make_dicom(RAMP, **window), LIMIT) == decode_dicom(make_dicom(RAMP), LIMIT)).all()


def test_a_file_packed_as_a_whole_is_read():
    assert (decode_dicom(make_deflated(), LIMIT) == decode_dicom(make_dicom(RAMP), LIMIT)).all()


def test_a_compressed_image_larger_than_its_header_is_refused_before_it_is_decoded():
    inside = io.BytesIO()
    Image.new("L", (4000, 4000)).save(inside, "JPEG")
    dataset = pydicom.dcmread(io.BytesIO(make_dicom(RAMP.astype(np.uint8))))
    dataset.PixelData = pydicom.encaps.encapsulate([inside.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    with pytest.raises(InputError, match="header says 64 x 48, the image in it 4000 x 4000"):
        decode_dicom(out.getvalue(), LIMIT)


def test_window_rescale_and_inversion_are_applied():
    window = {"WindowCenter": "20000", "WindowWidth": "10000"}
    grey = decode_dicom(make_dicom(RAMP, **window), LIMIT)
    assert (grey[RAMP < 15000] == 0).all()
    assert (grey[RAMP > 25100] == 255).all()
    middle = np.abs(RAMP.astype(int) - 20000) < 15
    assert np.abs(grey[middle].astype(int) - 128).max() <= 1
    inverted = decode_dicom(make_dicom(RAMP, PhotometricInterpretation="MONOCHROME1", **window), LIMIT)
    assert (inverted == 255 - grey).all()
    rescaled = decode_dicom(
        make_dicom(RAMP, RescaleSlope="0.5", RescaleIntercept="-100", WindowCenter="9900", WindowWidth="5000"), LIMIT
    )
    assert np.abs(rescaled.astype(int) - grey).max() <= 1


def test_a_voi_lookup_table_is_applied_whole():
    table = Dataset()
    table.LUTDescriptor = [256, 0, 8]
    table.add_new("LUTData", "US", list(range(255, -1, -1)))
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    grey = decode_dicom(make_dicom(levels, VOILUTSequence=pydicom.Sequence([table])), LIMIT)
    assert (grey == 255 - levels).all()


def test_colour_becomes_grey_as_elsewhere():
    colour = np.random.default_rng(0).integers(0, 256, (32, 40, 3)).astype(np.uint8)
    assert (decode_dicom(make_dicom(colour), LIMIT) == np.asarray(Image.fromarray(colour).convert("L"))).all()


def test_files_are_known_by_their_content():
    with_preamble = make_dicom(RAMP)
    assert is_dicom(with_preamble)
    assert is_dicom(with_preamble[132:])
    assert (decode_dicom(with_preamble[132:], LIMIT) == decode_dicom(with_preamble, LIMIT)).all()
    picture = io.BytesIO()
    Image.fromarray(RAMP.astype(np.uint8)).save(picture, "PNG")
    assert not is_dicom(picture.getvalue())
    assert not is_dicom(b"")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (lambda: make_dicom(RAMP, NumberOfFrames=40), "40 frames"),
        (lambda: make_dicom(RAMP, Rows=60000, Columns=60000), "more pixels than the limit"),
        (lambda: make_dicom(RAMP, Rows=0), "without an image"),
        (lambda: make_dicom(RAMP)[:400], "without an image|cannot be"),
        (lambda: make_dicom(RAMP)[:-100], "cannot be decoded: damaged, or of an unusual kind"),
        (lambda: make_dicom(RAMP, Rows=1, Columns=3072), "over 10 times as long as wide"),
        (lambda: make_dicom(RAMP, RescaleSlope="nan", RescaleIntercept="0"), "slope or intercept"),
        (lambda: make_dicom(RAMP, SamplesPerPixel=2), "2 values a pixel"),
        (lambda: make_deflated(bytes(200_000_000)), "unpacks to more than 10,000,000 pixels"),
        (lambda: make_dicom(RAMP, PhotometricInterpretation="STRANGE"), "unknown PhotometricInterpretation"),
        (lambda: b"\x00" * 128 + b"DICM", "without an image|header"),
        (lambda: b"\x00" * 128 + b"DICM" + bytes(range(256)) * 4, "without an image|header"),
    ],
)
def test_what_cannot_be_read_says_why_and_never_quotes_the_file(content, words):
    with pytest.raises(InputError, match=words) as caught:
        decode_dicom(content(), LIMIT)
    assert "ecret" not in str(caught.value)


def test_flipped_bits_are_an_image_or_an_error_and_nothing_else():
    rng = np.random.default_rng(0)
    whole = make_dicom(RAMP)
    read = 0
    for _ in range(300):
        broken = bytearray(whole)
        for place in rng.integers(0, 700, 3):
            broken[place] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(InputError):
            grey = decode_image(bytes(broken))
            assert (grey.dtype, grey.ndim) == (np.uint8, 2)
            read += 1
    assert 0 < read < 300
