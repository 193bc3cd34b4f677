"""Records to batches, compared with other ways to store the same images; and how long a step waits for them."""

import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks.table import Tables, time_in_turn, with_ratios
from cxrkeras.data.dataset import TEST, TRAIN_VAL, Dataset
from cxrkeras.data.images import load_image
from cxrkeras.data.readers import read_dataset
from cxrkeras.labels import NIH
from cxrkeras.models.classifier import build_classifier
from cxrkeras.phantoms.writing import sample_findings, write_tables
from cxrkeras.records.batches import SHUFFLE_BYTES, build_targets
from cxrkeras.records.folder import Records, open_records
from cxrkeras.records.write import write_records

SIZE = 224
BATCH = 64
IMAGES = 12_000  # several times what the shuffle buffer holds
FLOATS = 2_000  # images in the float32 array, 602 KB each
ENCODED = 2_000
RESNET_STEPS = 8
FOLD = 0  # held out


def measure_reading(tables: Tables, dataset: Dataset, folder: Path) -> Records:
    """Read from the page cache, and once with it dropped; returns the records of many images that are read."""
    images, records = write_many(folder, dataset)
    shards = {
        "training": [shard for shard in records.manifest.shards if shard.split == TRAIN_VAL and shard.fold != FOLD],
        "test": [shard for shard in records.manifest.shards if shard.split == TEST],
    }
    files = {name: [str(records.folder / shard.file) for shard in of_set] for name, of_set in shards.items()}
    counts = {name: sum(shard.count for shard in of_set) for name, of_set in shards.items()}

    def bare(paths, buffer=None):
        examples = tf.data.TFRecordDataset(paths)
        examples = examples.shuffle(buffer) if buffer else examples
        return lambda: drain(examples.batch(BATCH).prefetch(tf.data.AUTOTUNE))

    training = build_batches(records)
    evaluation = records.evaluation_batches(TEST, batch_size=BATCH)

    def train():
        drain(training)

    jobs = {
        "bare records": bare(files["training"]),
        "bare records, shuffled": bare(files["training"], SHUFFLE_BYTES // SIZE**2),
        "training batches": train,
    }
    rows = {name: counts["training"] / value for name, value in time_in_turn(jobs).items()}
    title = f"reading {counts['training']:,} images of {SIZE} px in training"
    tables.add(title, ["", "images/s", "ratio"], with_ratios(rows, "bare records, shuffled"))

    jobs = {"bare records": bare(files["test"]), "evaluation batches": lambda: drain(evaluation)}
    seconds = time_in_turn(jobs)
    rows = {name: counts["test"] / value for name, value in seconds.items()}
    title = f"reading {counts['test']:,} images of {SIZE} px in evaluation"
    tables.add(title, ["", "images/s", "ratio"], with_ratios(rows, "bare records"))

    floats = write_floats(folder / "floats.npy", images)
    others = {
        "training batches": (counts["training"], train, files["training"]),
        "float32 array, memory-mapped, in random order": (FLOATS, lambda: read_floats(floats), [floats]),
    }
    for kind, encode in (("JPEG", tf.io.encode_jpeg), ("PNG", tf.io.encode_png)):
        path = folder / f"{kind}.tfrecord"
        with tf.io.TFRecordWriter(str(path)) as writer:
            for number in range(ENCODED):
                writer.write(encode(images[number % len(images)][..., None]).numpy())
        others[f"{kind} records"] = (ENCODED, lambda file=str(path): read_encoded(file), [str(path)])
    for state in ("warm", "dropped"):
        rows = {}
        for name, (count, job, paths) in others.items():

            def run(job=job, paths=paths, state=state):
                if state == "dropped":
                    drop_from_cache(paths)
                started = time.perf_counter()
                job()
                return time.perf_counter() - started

            rows[name] = count / min(run() for _ in range(2))
        title = f"other ways to store images of {SIZE} px, page cache {state}"
        tables.add(title, ["", "images/s", "ratio"], with_ratios(rows, "training batches"))
    return records


def build_batches(records: Records) -> tf.data.Dataset:
    """The training batches of one epoch."""
    targets = build_targets(records.labels, records.labels, {})
    return records.training_batches(FOLD, targets, batch_size=BATCH, seed=0, epoch=0)


def measure_waiting(tables: Tables, records: Records) -> None:
    """The share of a training step spent waiting for its batch, after the first batch."""
    image = keras.Input((SIZE, SIZE, 1))
    trivial = keras.Model(image, keras.layers.Dense(len(NIH))(image[:, 0, 0]))
    rows = []
    for name, network, steps in (
        ("a trivial network", trivial, 100),
        ("resnet18", build_classifier("resnet18", SIZE, len(NIH)), RESNET_STEPS),
    ):
        network.compile(optimizer="sgd", loss=keras.losses.BinaryCrossentropy(from_logits=True))
        batches = iter(build_batches(records))
        started = time.perf_counter()
        batch = next(batches)
        first = time.perf_counter() - started
        network.train_on_batch(*batch)
        waited = worked = 0.0
        for _ in range(steps):
            started = time.perf_counter()
            batch = next(batches)
            received = time.perf_counter()
            network.train_on_batch(*batch)
            waited += received - started
            worked += time.perf_counter() - received
        rows.append(
            (
                name,
                f"{1000 * first:.0f}",
                f"{1000 * waited / steps:.2f}",
                f"{1000 * (waited + worked) / steps:.1f}",
                f"{waited / (waited + worked):.1%}",
            )
        )
    columns = ["network", "ms to the first batch", "ms waited per step", "ms per step", "share waited"]
    tables.add(f"waiting for batches of {BATCH} images of {SIZE} px", columns, rows)


def drain(batches: tf.data.Dataset) -> None:
    for _ in batches:
        pass


def write_many(folder: Path, dataset: Dataset) -> tuple[np.ndarray, Records]:
    """The images of a data set, uint8 (N, SIZE, SIZE), and records of many copies of them.

    Each copy has its number in its first pixels, as records refuse the same picture of two patients.
    """
    images = np.stack([load_image(Path(path).read_bytes(), SIZE) for path in dataset.table["path"]])
    source = folder / "many"
    (source / "images").mkdir(parents=True)
    table = sample_findings(IMAGES, "nih", seed=0)
    for number, image_id in enumerate(table["image_id"]):
        image = images[number % len(images)].copy()
        image[0, :2] = divmod(number, 256)
        Image.fromarray(image).save(source / "images" / image_id, compress_level=1)
    write_tables(source, table, [], SIZE)
    write_records(read_dataset(source), folder / "many-records", size=SIZE)
    return images, open_records(folder / "many-records")


def write_floats(path: Path, images: np.ndarray) -> str:
    """Write a scaled float32 RGB array, as the original stored its images."""
    array = np.lib.format.open_memmap(path, "w+", np.float32, (FLOATS, SIZE, SIZE, 3))
    for number in range(FLOATS):
        array[number] = (images[number % len(images)][..., None] / 255 - 0.45) / 0.225
    array.flush()
    return str(path)


def read_floats(path: str) -> None:
    array = np.load(path, mmap_mode="r")
    order = np.random.default_rng(0).permutation(FLOATS)
    for start in range(0, FLOATS, BATCH):
        np.ascontiguousarray(array[order[start : start + BATCH]])


def read_encoded(path: str) -> None:
    examples = tf.data.TFRecordDataset(path).shuffle(SHUFFLE_BYTES // SIZE**2)
    drain(examples.map(tf.io.decode_image, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE))


def drop_from_cache(paths: list[str]) -> None:
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
