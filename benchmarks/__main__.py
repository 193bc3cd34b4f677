"""Measure drawing, conversion, reading and scale: `make bench [DATA=path/to/nih]`, or only the ones that are named.

Without a data folder, phantoms of 1024 x 1024 pixels are drawn first. Whatever is compared is measured alternately in
three rounds, of which the best counts. The tables are saved in `benchmarks/README.md`.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import scale
from benchmarks.conversion import measure_conversion, measure_dicom
from benchmarks.reading import measure_reading, measure_waiting
from benchmarks.table import Tables
from cxrkeras.data.dataset import Dataset
from cxrkeras.data.readers import read_dataset
from cxrkeras.phantoms.writing import write_phantoms

MAX_IMAGES = 300
DRAWN = 1200
LARGE = 100_000  # bytes; images of full size, where a folder has smaller ones too


def measure_drawing(tables: Tables, dataset: Dataset, folder: Path) -> None:
    started = time.perf_counter()
    write_phantoms(folder / "drawn", num_images=DRAWN, size=256)
    seconds = time.perf_counter() - started
    tables.add("drawing phantoms of 256 px", ["", "images/s"], [("write_phantoms", f"{DRAWN / seconds:.0f}")])


def measure_pipeline(tables: Tables, dataset: Dataset, folder: Path) -> None:
    records = measure_reading(tables, dataset, folder)
    measure_waiting(tables, records)


def measure_scale(tables: Tables, dataset: Dataset, folder: Path) -> None:
    scale.measure_scale(tables)


MEASUREMENTS = {
    "drawing": measure_drawing,
    "conversion": measure_conversion,
    "DICOM": measure_dicom,
    "reading": measure_pipeline,
    "scale": measure_scale,
}


def find_large_images(data: Path) -> Dataset:
    dataset = read_dataset(data)
    large = [path for path in dataset.table["path"] if Path(path).stat().st_size > LARGE][:MAX_IMAGES]
    table = dataset.table[dataset.table["path"].isin(large)].reset_index(drop=True)
    return dataclasses.replace(dataset, table=table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="the NIH release; its images of 1024 px are converted")
    parser.add_argument(
        "measurements", nargs="*", choices=[[], *MEASUREMENTS], metavar="MEASUREMENT", help=", ".join(MEASUREMENTS)
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = arguments.data
        if data is None:
            data = folder / "large"
            write_phantoms(data, num_images=100, size=1024)
        dataset = find_large_images(data)
        for name in arguments.measurements or MEASUREMENTS:
            tables = Tables(
                name[0].upper() + name[1:], f"make bench{' DATA=<the NIH release>' if arguments.data else ''}"
            )
            MEASUREMENTS[name](tables, dataset, folder)
            tables.save()


if __name__ == "__main__":
    main()
