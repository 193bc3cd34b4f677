"""Measure drawing, conversion and reading: `make bench`, or `python -m benchmarks --data path/to/nih`.

Without a data folder, phantoms of 1024 x 1024 pixels are drawn first. Everything that is compared is measured in
turn, three rounds, and the best round counts: other work on the machine only ever adds time.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf
from rich.console import Console
from rich.table import Table

from cxrkeras.data.phantom import write_phantoms
from cxrkeras.data.release import Release, read_release
from cxrkeras.records.pipeline import build_training_batches
from cxrkeras.records.write import write_records

ROUNDS = 3
SIZE = 224
MAX_IMAGES = 300
DRAWN = 600


def time_in_turn(jobs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of the best of three rounds of each job."""
    best = dict.fromkeys(jobs, float("inf"))
    for _ in range(ROUNDS):
        for name, job in jobs.items():
            started = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def print_table(title: str, unit: str, rows: dict[str, float], reference: str) -> None:
    """Print a figure a row and its ratio to the reference row."""
    table = Table(title=title, title_justify="left")
    for column in ("", unit, f"ratio to {reference}"):
        table.add_column(column, justify="right" if column else "left")
    for name, value in rows.items():
        table.add_row(name, f"{value:,.2f}", f"{value / rows[reference]:.2f}")
    Console().print(table)


def decode_with_tf(paths: list[str], threads: int) -> None:
    def load(path):
        image = tf.io.decode_png(tf.io.read_file(path), channels=1)
        return tf.cast(tf.image.resize(image, (SIZE, SIZE), "area"), tf.uint8)

    for _ in tf.data.Dataset.from_tensor_slices(paths).map(load, num_parallel_calls=threads):
        pass


def measure_drawing(folder: Path) -> None:
    started = time.perf_counter()
    write_phantoms(folder / "drawn", num_images=DRAWN, size=256)
    seconds = time.perf_counter() - started
    print_table("drawing phantoms, 256 px", "images/s", {"write_phantoms": DRAWN / seconds}, "write_phantoms")


def measure_conversion(release: Release, folder: Path) -> None:
    paths = release.table["path"].tolist()
    for path in paths:
        Path(path).read_bytes()  # everyone finds the files in the page cache
    runs = iter(range(1000))
    jobs = {}
    for threads in (1, 2):
        jobs[f"tf.data decode and resize, threads {threads}"] = lambda n=threads: decode_with_tf(paths, n)
        jobs[f"write_records, threads {threads}"] = lambda n=threads: write_records(
            release, folder / f"records{next(runs)}", size=SIZE, num_folds=2, num_threads=n
        )
    seconds = time_in_turn(jobs)
    rows = {name: 1000 * value / len(paths) for name, value in seconds.items()}
    title = f"conversion of {len(paths)} PNGs to {SIZE} px"
    print_table(title, "ms an image", rows, "tf.data decode and resize, threads 2")


def measure_reading(folder: Path) -> None:
    """Read a set large enough to matter, from the page cache."""
    write_phantoms(folder / "many", num_images=2000, size=64)
    records = folder / "many-records"
    write_records(read_release(folder / "many"), records, size=SIZE)
    files = sorted(str(path) for path in records.glob("train_val-fold[1-4]*"))
    count = sum(1 for _ in tf.data.TFRecordDataset(files))

    def bare():
        for _ in tf.data.TFRecordDataset(files).batch(64).prefetch(tf.data.AUTOTUNE):
            pass

    def ours():
        for _ in build_training_batches(records, 0, batch_size=64, seed=0, epoch=0):
            pass

    seconds = time_in_turn({"bare records, batched": bare, "training batches": ours})
    rows = {name: count / value for name, value in seconds.items()}
    print_table(f"reading {count:,} records of {SIZE} px", "images/s", rows, "bare records, batched")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="an NIH release to convert; its 1024 px images are taken")
    data = parser.parse_args().data
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        measure_drawing(folder)
        if data is None:
            data = folder / "large"
            write_phantoms(data, num_images=60, size=1024)
        release = read_release(data)
        large = [path for path in release.table["path"] if Path(path).stat().st_size > 100_000][:MAX_IMAGES]
        table = release.table[release.table["path"].isin(large)].reset_index(drop=True)
        measure_conversion(Release(**{**vars(release), "table": table}), folder)
        measure_reading(folder)


if __name__ == "__main__":
    main()
