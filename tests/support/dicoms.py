"""DICOM files drawn for tests, one trait each."""

import io

import numpy as np
from pydicom import Sequence
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian

RADIOGRAPH = "1.2.840.10008.5.1.4.1.1.1"
RAMP = np.linspace(0, 65535, 64 * 48).astype(np.uint16).reshape(48, 64)


def make_dataset(levels, leave_out=(), **elements):
    """A data set with the levels as its pixels, of any whole dtype; elements by keyword, or `(VR, value)` of one."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = RADIOGRAPH, "1.2.3"
    dataset.PatientName, dataset.PatientID = "Secret^Name", "secret-id"
    dataset.Rows, dataset.Columns = levels.shape[:2]
    dataset.SamplesPerPixel = 3 if levels.ndim == 3 else 1
    dataset.PhotometricInterpretation = "RGB" if levels.ndim == 3 else "MONOCHROME2"
    if levels.ndim == 3:
        dataset.PlanarConfiguration = 0
    dataset.BitsAllocated = dataset.BitsStored = 8 * levels.itemsize
    dataset.PixelRepresentation = int(levels.dtype.kind == "i")
    dataset.add_new("PixelData", "OW", levels.tobytes())
    for name, value in elements.items():
        if isinstance(value, tuple):
            dataset.add_new(name, *value)
        else:
            setattr(dataset, name, value)
    if "HighBit" not in elements:
        dataset.HighBit = (dataset.BitsStored or 8) - 1
    for name in leave_out:
        del dataset[name]
    return dataset


def make_dicom(levels, *, preamble=True, **elements):
    """A file of such a data set, explicit and little endian, with or without a preamble."""
    dataset = make_dataset(levels, **elements)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", RADIOGRAPH)
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=preamble, implicit_vr=False, little_endian=True)
    return out.getvalue()


def make_bare(dataset, *, is_implicit=False, is_little=True):
    """The bytes of a data set alone, without file meta information."""
    out = DicomBytesIO()
    out.is_implicit_VR, out.is_little_endian = is_implicit, is_little
    write_dataset(out, dataset)
    return out.getvalue()


def make_table(entries, first=0, bits=16, count=None, packed=False):
    """A sequence of one lookup table; entries as words, or packed as bytes."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries) % 2**16 if count is None else count, first % 2**16, bits])
    data = np.asarray(entries, "u1" if packed else "<u2").tobytes()
    item.add_new("LUTData", "OW", data)
    return Sequence([item])


def make_item(**elements):
    item = Dataset()
    for name, value in elements.items():
        setattr(item, name, value)
    return Sequence([item])
