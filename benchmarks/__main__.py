"""Measure drawing, conversion and reading: `make bench`, or `python -m benchmarks --data path/to/nih`.

Without a data folder, phantoms of 1024 x 1024 pixels are drawn first. Everything that is compared is measured in
turn, three rounds, and the best round counts: other work on the machine only ever adds time.
"""

import argparse
import dataclasses
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pandas as pd
import tensorflow as tf
from PIL import Image
from rich.console import Console
from rich.table import Table

from cxrkeras.data.images import load_image
from cxrkeras.data.phantom import sample_findings, write_phantoms, write_tables
from cxrkeras.data.release import Release, read_release
from cxrkeras.records.pipeline import SHUFFLE_BYTES, build_evaluation_batches, build_training_batches
from cxrkeras.records.schema import TEST
from cxrkeras.records.write import write_records

ROUNDS = 3
SIZE = 224
MAX_IMAGES = 300
DRAWN = 1200
BATCH = 64


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


def decode_with_pillow(paths: list[str], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda path: load_image(Path(path).read_bytes(), SIZE), paths):
            pass


def measure_drawing(folder: Path) -> None:
    started = time.perf_counter()
    write_phantoms(folder / "drawn", num_images=DRAWN, size=256)
    seconds = time.perf_counter() - started
    print_table("drawing phantoms, 256 px", "images/s", {"write_phantoms": DRAWN / seconds}, "write_phantoms")


def measure_conversion(release: Release, folder: Path) -> None:
    """Convert the images four times over, so that what is done once a conversion does not count."""
    for path in release.table["path"]:
        Path(path).read_bytes()  # everyone finds the files in the page cache
    copies = [release.table.assign(image_id=release.table["image_id"] + f"-{number}") for number in range(4)]
    release = dataclasses.replace(release, table=pd.concat(copies, ignore_index=True))
    paths = release.table["path"].tolist()
    runs = iter(range(1000))
    jobs = {}
    for threads in (1, 2):
        jobs[f"tf.data, {threads} thread(s)"] = lambda n=threads: decode_with_tf(paths, n)
        jobs[f"load_image, {threads} thread(s)"] = lambda n=threads: decode_with_pillow(paths, n)
        jobs[f"write_records, {threads} thread(s)"] = lambda n=threads: write_records(
            release, folder / f"records{next(runs)}", size=SIZE, num_folds=2, num_threads=n
        )
    seconds = time_in_turn(jobs)
    rows = {name: 1000 * value / len(paths) for name, value in seconds.items()}
    title = f"{len(paths):,} PNGs to {SIZE} px: decode and resize, and the whole conversion"
    for threads in (1, 2):
        part = {name: value for name, value in rows.items() if f" {threads} " in name}
        print_table(title, "ms an image", part, f"tf.data, {threads} thread(s)")


def measure_reading(folder: Path) -> None:
    """Read from the page cache a set many times larger than the shuffle buffer."""
    tables = sample_findings(12_000, "nih", seed=0)
    records = folder / "many-records"
    write_noise(records, tables)
    files = sorted(str(path) for path in records.glob("train_val-fold[1-4]*"))
    test = sorted(str(path) for path in records.glob("test-*"))
    count, tested = (sum(1 for _ in tf.data.TFRecordDataset(paths)) for paths in (files, test))

    def bare(paths, buffer=None):
        examples = tf.data.TFRecordDataset(paths)
        examples = examples.shuffle(buffer) if buffer else examples
        return lambda: drain(examples.batch(BATCH).prefetch(tf.data.AUTOTUNE))

    seconds = time_in_turn(
        {
            "bare records": bare(files),
            "bare records, shuffled": bare(files, SHUFFLE_BYTES // SIZE**2),
            "training batches": lambda: drain(build_training_batches(records, 0, batch_size=BATCH, seed=0, epoch=0)),
        }
    )
    rows = {name: count / value for name, value in seconds.items()}
    print_table(f"reading {count:,} records of {SIZE} px in training", "images/s", rows, "bare records, shuffled")
    seconds = time_in_turn(
        {
            "bare records": bare(test),
            "evaluation batches": lambda: drain(build_evaluation_batches(records, TEST, batch_size=BATCH)),
        }
    )
    rows = {name: tested / value for name, value in seconds.items()}
    print_table(f"reading {tested:,} records of {SIZE} px in evaluation", "images/s", rows, "bare records")


def drain(batches: tf.data.Dataset) -> None:
    for _ in batches:
        pass


def write_noise(records: Path, table: pd.DataFrame) -> None:
    """Records of the wanted size from tiny PNGs."""
    source = records.with_name("many")
    (source / "images").mkdir(parents=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)).save(source / "one.png")
    for image_id in table["image_id"]:
        os.link(source / "one.png", source / "images" / image_id)
    write_tables(source, table, [], 64)
    write_records(read_release(source), records, size=SIZE)


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
        measure_conversion(dataclasses.replace(release, table=table), folder)
        measure_reading(folder)


if __name__ == "__main__":
    main()
