"""Measure drawing, conversion, reading and scale: `make bench [DATA=path/to/nih]`, or the parts you name.

Without a data folder, phantoms of 1024 x 1024 pixels are drawn first. Everything that is compared is measured in
turn, three rounds, and the best round counts. The tables stand in `benchmarks/README.md` afterwards.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from benchmarks import scale
from benchmarks.conversion import measure_conversion
from benchmarks.reading import measure_reading, measure_waiting
from benchmarks.table import Tables
from cxrkeras.data.dataset import Release
from cxrkeras.data.release import read_release
from cxrkeras.phantoms.writing import write_phantoms

MAX_IMAGES = 300
DRAWN = 1200
LARGE = 100_000  # bytes; the images of full size, where a folder has others too


def measure_drawing(tables: Tables, release: Release, folder: Path) -> None:
    started = time.perf_counter()
    write_phantoms(folder / "drawn", num_images=DRAWN, size=256)
    seconds = time.perf_counter() - started
    tables.add("drawing phantoms of 256 px", ["", "images/s"], [("write_phantoms", f"{DRAWN / seconds:.0f}")])


def measure_pipeline(tables: Tables, release: Release, folder: Path) -> None:
    measure_reading(tables, release, folder)
    measure_waiting(tables, folder)


def measure_scale(tables: Tables, release: Release, folder: Path) -> None:
    scale.measure_scale(tables)


PARTS = {
    "drawing": measure_drawing,
    "conversion": measure_conversion,
    "reading": measure_pipeline,
    "scale": measure_scale,
}


def find_large_images(data: Path) -> Release:
    release = read_release(data)
    large = [path for path in release.table["path"] if Path(path).stat().st_size > LARGE][:MAX_IMAGES]
    table = release.table[release.table["path"].isin(large)].reset_index(drop=True)
    return dataclasses.replace(release, table=table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an NIH release to convert; its 1024 px images are taken")
    parser.add_argument("parts", nargs="*", choices=[[], *PARTS], metavar="PART", help=", ".join(PARTS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = arguments.data
        if data is None:
            data = folder / "large"
            write_phantoms(data, num_images=100, size=1024)
        release = find_large_images(data)
        for part in arguments.parts or PARTS:
            tables = Tables(part.capitalize(), f"make bench{' DATA=<the NIH release>' if arguments.data else ''}")
            PARTS[part](tables, release, folder)
            tables.save()


if __name__ == "__main__":
    main()
