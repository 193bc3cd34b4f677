"""Image files to records, beside the bare decode and resize of the same files by others."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import tensorflow as tf
from PIL import Image

from benchmarks.pytorch import import_torchvision
from benchmarks.table import Tables, time_in_turn, with_ratios
from cxrkeras.data.dataset import Release
from cxrkeras.data.images import load_image
from cxrkeras.records.write import write_records

SIZE = 224
COPIES = 2  # so that what is done once a conversion does not count


def measure_conversion(tables: Tables, release: Release, folder: Path) -> None:
    for path in release.table["path"]:
        Path(path).read_bytes()  # everyone finds the files in the page cache
    copies = [release.table.assign(image_id=release.table["image_id"] + f"-{number}") for number in range(COPIES)]
    release = dataclasses.replace(release, table=pd.concat(copies, ignore_index=True))
    paths = release.table["path"].tolist()
    runs = iter(range(1000))
    readers = {"Pillow, its default resize": resize_with_pillow, "load_image": load_here}
    if import_torchvision() and (reader := find_torchxrayvision()):
        readers["torchxrayvision's reader and resizer"] = reader
    jobs = {}
    for threads in (1, 2):
        count = f"{threads} thread{'s'[: threads - 1]}"
        jobs[f"tf.data decode and resize, {count}"] = lambda n=threads: decode_with_tf(paths, n)
        for name, reader in readers.items():
            jobs[f"{name}, {count}"] = lambda n=threads, read=reader: in_threads(read, paths, n)
        jobs[f"write_records, {count}"] = lambda n=threads: write_records(
            release, folder / f"records{next(runs)}", size=SIZE, num_folds=2, num_threads=n
        )
    seconds = time_in_turn(jobs)
    rows = {name: 1000 * value / len(paths) for name, value in seconds.items()}
    for count in ("1 thread", "2 threads"):
        part = {name: value for name, value in rows.items() if name.endswith(count)}
        tables.add(
            f"{len(paths) // COPIES:,} PNGs of {read_size(paths[0])} px to {SIZE} px on {count}, {COPIES} times over",
            ["", "ms an image", "ratio"],
            with_ratios(part, next(iter(part))),
        )
    speedup = rows["write_records, 1 thread"] / rows["write_records, 2 threads"]
    tables.add("write_records", ["", "times as fast"], [("two threads against one", f"{speedup:.2f}")])


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


def in_threads(read: Callable[[str], object], paths: list[str], threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(read, paths):
            pass


def load_here(path: str) -> None:
    load_image(Path(path).read_bytes(), SIZE)


def resize_with_pillow(path: str) -> None:
    with Image.open(path) as image:
        image.convert("L").resize((SIZE, SIZE))


def find_torchxrayvision() -> Callable[[str], object] | None:
    try:
        import torchxrayvision
    except ImportError:
        return None
    resize = torchxrayvision.datasets.XRayResizer(SIZE)
    return lambda path: resize(torchxrayvision.utils.load_image(path))
