"""DICOM radiographs: their pixels, and nothing else that such a file knows of a person."""

import io

import numpy as np

from cxrkeras.data.dicom_header import GREY, check_deflated, is_deflated, load_pydicom, read_facts
from cxrkeras.data.dicom_pixels import is_compressed, read_patterns, to_grey
from cxrkeras.data.dicom_tables import read_grading
from cxrkeras.data.limits import DECODING, check_size
from cxrkeras.errors import InputError

LONGEST = 2**20  # bytes of an element that is read at once; tables have up to 128 KB
_DIRECTORY = "1.2.840.10008.1.3.10"  # SOP class of a DICOMDIR


def decode_dicom(content: bytes, max_pixels: int) -> np.ndarray:
    """Decode the one frame of a DICOM file to grey; uint8 (height, width), bright where little passed the body.

    Modality LUT or rescale, then VOI LUT or window, then MONOCHROME1 turned round, as PS3.3 C.11 says; padding is
    black. Without table or window the percentiles 0.1 and 99.9 of what is not padding are the window, but values of 8
    bits without a rescale are shown as they are stored, as those of an 8-bit PNG. Colour becomes grey as in Pillow's
    `convert("L")`. Pixels and frames are counted from the header before anything is decoded. Raises InputError; its
    text never quotes the file.
    """
    dataset = _read_dataset(content, max_pixels)
    try:
        facts = read_facts(dataset)
        check_size(facts["Columns"], facts["Rows"], max_pixels // facts["SamplesPerPixel"])
        with DECODING.hold(facts["Columns"] * facts["Rows"] * facts["SamplesPerPixel"]):
            patterns = read_patterns(dataset, facts, content)
            if facts["PhotometricInterpretation"] in GREY:
                return read_grading(dataset, facts).apply(patterns)
            return to_grey(dataset, facts, patterns)
    except InputError:
        raise
    except Exception:  # whatever a damaged file leads pydicom into
        raise InputError("the pixels of this DICOM file cannot be decoded: damaged, or of an unusual kind") from None


def _read_dataset(content: bytes, max_pixels: int):
    pydicom = load_pydicom()
    check_deflated(content, max_pixels)
    try:
        # Uncompressed pixels are left where they are, which saves a copy of them.
        defer = None if is_deflated(content) else LONGEST
        dataset = pydicom.dcmread(io.BytesIO(content), force=True, defer_size=defer)
        if is_compressed(dataset):
            dataset = pydicom.dcmread(io.BytesIO(content), force=True)
        kind = getattr(dataset, "file_meta", {}).get("MediaStorageSOPClassUID") or dataset.get("SOPClassUID")
        is_directory = kind == _DIRECTORY or "DirectoryRecordSequence" in dataset
        is_document = "EncapsulatedDocument" in dataset
        is_float = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
        has_pixels = "PixelData" in dataset
    except Exception:  # pydicom raises whatever a damaged file leads it into
        raise InputError("damaged DICOM file: its header cannot be read") from None
    if is_directory:
        raise InputError("a DICOMDIR, which is an index of files and not an image: give the files that it lists")
    if is_document:
        raise InputError("DICOM file without an image: it holds a document, as a PDF")
    if is_float:
        raise InputError("DICOM image of floating-point pixels, as parametric maps have: not a radiograph")
    if not has_pixels:
        raise InputError("DICOM file without an image: a report, a plan, a presentation state or a waveform")
    return dataset
