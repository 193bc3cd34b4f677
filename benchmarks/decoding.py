"""Time and memory of the largest images that are allowed, each decoded in a process of its own.

`python -m benchmarks.decoding`. The aims are 3 s and 700 MB above what the process had before.
"""

import io
import multiprocessing
import os
import struct
import tempfile
import time
import zlib
from pathlib import Path

import numpy as np

from benchmarks.table import Tables

SIDE = (8000, 10000)  # 80 megapixels, the limit


def _draw(dtype: str) -> np.ndarray:
    rows, columns = np.ogrid[: SIDE[0], : SIDE[1]]
    return ((rows * 3 + columns) % 4096).astype(dtype)


def _write_dicom(path: Path, levels: np.ndarray, **elements) -> None:
    import pydicom
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *levels.shape, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8 * levels.itemsize, 12, 11
    dataset.PixelRepresentation = int(levels.dtype.kind == "i")
    dataset.PixelData = levels.tobytes()
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.save_as(path, enforce_file_format=True)


def _write_png(path: Path, levels: np.ndarray, colour: int) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    out, packer = io.BytesIO(), zlib.compressobj(1)
    channels = {0: 1, 2: 3}[colour]
    for row in levels:
        line = np.repeat(row[:, None], channels, axis=1).astype(f">u{levels.itemsize}")
        out.write(packer.compress(b"\0" + line.tobytes()))
    out.write(packer.flush())
    header = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], 8 * levels.itemsize, colour, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", out.getvalue()) + chunk(b"IEND", b"")
    )


KINDS = {
    "DICOM, 12 of 16 bits, window": lambda path: _write_dicom(
        path, _draw("u2"), WindowCenter="2000", WindowWidth="3000"
    ),
    "DICOM, 12 of 16 bits, percentiles, padding": lambda path: _write_dicom(path, _draw("u2"), PixelPaddingValue=0),
    "DICOM, signed, MONOCHROME1, rescale": lambda path: _write_dicom(
        path, (_draw("i2") - 2048).astype("i2"), PhotometricInterpretation="MONOCHROME1", RescaleSlope="-1",
        RescaleIntercept="0",
    ),
    "DICOM, 12 of 32 bits, window": lambda path: _write_dicom(
        path, _draw("u4"), WindowCenter="2000", WindowWidth="3000"
    ),
    "PNG, grey, 8 bits": lambda path: _write_png(path, _draw("u2").astype("u1"), 0),
    "PNG, grey, 16 bits": lambda path: _write_png(path, _draw("u2"), 0),
    "PNG, colour, 8 bits": lambda path: _write_png(path, _draw("u2").astype("u1"), 2),
}  # fmt: skip


def _read_status(name: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) // 1024


def _measure(path: Path) -> tuple[float, int]:
    from cxrkeras.data.images import load_image

    load_image((path.parent / "small").read_bytes(), 224)  # imports all that is needed
    before = _read_status("VmRSS")
    started = time.perf_counter()
    load_image(path.read_bytes(), 224)
    return time.perf_counter() - started, _read_status("VmHWM") - before


def main() -> None:
    context = multiprocessing.get_context("spawn")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        small = Path(folder) / "small"
        _write_dicom(small, np.zeros((64, 64), "u2"))
        for kind, write in KINDS.items():
            path = Path(folder) / "large"
            write(path)
            with context.Pool(1) as pool:
                seconds, megabytes = pool.apply(_measure, (path,))
            rows.append([kind, f"{os.path.getsize(path) / 1e6:,.0f}", f"{seconds:.2f}", f"{megabytes:,}"])
    tables = Tables("Decoding", "python -m benchmarks.decoding")
    tables.add("80 megapixels, from file to 224 px", ["kind", "MB of file", "seconds", "MB above at the most"], rows)
    tables.save()


if __name__ == "__main__":
    main()
