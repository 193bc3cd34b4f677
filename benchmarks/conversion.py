"""Image files to records, compared with the bare decoding and resizing of the same files by other libraries."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pydicom
import tensorflow as tf
from PIL import Image
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from benchmarks.pytorch import import_torchvision
from benchmarks.table import Tables, time_in_turn, with_ratios
from cxrkeras.data.dataset import Dataset
from cxrkeras.data.images import load_image
from cxrkeras.records.write import write_records

SIZE = 224
COPIES = 2  # so that what is done once per conversion does not count


def measure_conversion(tables: Tables, dataset: Dataset, folder: Path) -> None:
    for path in dataset.table["path"]:
        Path(path).read_bytes()  # into the page cache, for every reader alike
    copies = [dataset.table.assign(image_id=dataset.table["image_id"] + f"-{number}") for number in range(COPIES)]
    dataset = dataclasses.replace(dataset, table=pd.concat(copies, ignore_index=True))
    paths = dataset.table["path"].tolist()
    numbers = iter(range(1000))
    readers = {"Pillow, its default resize": resize_with_pillow, "load_image": load_with_cxrkeras}
    if import_torchvision() and (reader := find_torchxrayvision()):
        readers["torchxrayvision's reader and resizer"] = reader
    jobs = {}
    for threads in (1, 2):
        count = f"{threads} thread{'s'[: threads - 1]}"
        jobs[f"tf.data decode and resize, {count}"] = lambda n=threads: decode_with_tf(paths, n)
        for name, reader in readers.items():
            jobs[f"{name}, {count}"] = lambda n=threads, read=reader: read_in_threads(read, paths, n)
        jobs[f"write_records, {count}"] = lambda n=threads: write_records(
            dataset, folder / f"records{next(numbers)}", size=SIZE, num_folds=2, num_threads=n
        )
    seconds = time_in_turn(jobs)
    milliseconds = {name: 1000 * value / len(paths) for name, value in seconds.items()}
    for count in ("1 thread", "2 threads"):
        of_count = {name: value for name, value in milliseconds.items() if name.endswith(count)}
        tables.add(
            f"{len(paths) // COPIES:,} PNGs of {read_size(paths[0])} px to {SIZE} px with {count}, {COPIES} times over",
            ["", "ms per image", "ratio"],
            with_ratios(of_count, next(iter(of_count))),
        )
    speedup = milliseconds["write_records, 1 thread"] / milliseconds["write_records, 2 threads"]
    tables.add("write_records", ["", "speed-up"], [("two threads compared with one", f"{speedup:.2f}")])


def measure_dicom(tables: Tables, dataset: Dataset, folder: Path) -> None:
    """The same images as PNG and as uncompressed and deflated DICOM, by the reader of all image files."""
    paths = {"PNG": dataset.table["path"].tolist()}
    for name, syntax in (("DICOM", ExplicitVRLittleEndian), ("DICOM, deflated", DeflatedExplicitVRLittleEndian)):
        paths[name] = [write_dicom(path, folder / f"{name}-{number}.dcm", syntax) for number, path in
                       enumerate(paths["PNG"])]  # fmt: skip
    jobs = {name: lambda files=files: read_in_threads(load_with_cxrkeras, files, 2) for name, files in paths.items()}
    milliseconds = {name: 1000 * value / len(paths["PNG"]) for name, value in time_in_turn(jobs).items()}
    title = (
        f"{len(paths['PNG']):,} images of {read_size(paths['PNG'][0])} px to {SIZE} px with 2 threads, by load_image"
    )
    tables.add(title, ["", "ms per image", "ratio"], with_ratios(milliseconds, "PNG"))


def write_dicom(png: str, path: Path, syntax: str) -> str:
    """Write a grey image as a digital radiograph; returns the path."""
    with Image.open(png) as image:
        grey = image.convert("L")
    file = pydicom.Dataset()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = syntax
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    file.Modality, file.PhotometricInterpretation, file.SamplesPerPixel = "DX", "MONOCHROME2", 1
    file.Columns, file.Rows = grey.size
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.PixelData = grey.tobytes()
    file["PixelData"].VR = "OB"
    file.save_as(path, enforce_file_format=True)
    return str(path)


def read_size(path: str) -> str:
    with Image.open(path) as image:
        return " x ".join(map(str, image.size))


def decode_with_tf(paths: list[str], threads: int) -> None:
    def load(path):
        image = tf.io.decode_png(tf.io.read_file(path), channels=1)
        return tf.cast(tf.image.resize(image, (SIZE, SIZE), "area"), tf.uint8)

    options = tf.data.Options()
    options.threading.private_threadpool_size = threads
    options.threading.max_intra_op_parallelism = 1
    for _ in tf.data.Dataset.from_tensor_slices(paths).map(load, num_parallel_calls=threads).with_options(options):
        pass


def read_in_threads(read: Callable[[str], object], paths: list[str], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(read, paths):
            pass


def load_with_cxrkeras(path: str) -> None:
    load_image(Path(path).read_bytes(), SIZE)


def resize_with_pillow(path: str) -> None:
    with Image.open(path) as image:
        image.convert("L").resize((SIZE, SIZE))


def find_torchxrayvision() -> Callable[[str], object] | None:
    """Its reader and resizer of a file; None where it is not installed."""
    try:
        import torchxrayvision
    except ImportError:
        return None
    resize = torchxrayvision.datasets.XRayResizer(SIZE)
    return lambda path: resize(torchxrayvision.utils.load_image(path))
