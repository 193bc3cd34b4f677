"""Records to batches, beside other ways to keep the same images; and how long a step waits for them."""

import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from benchmarks.table import Tables, time_in_turn, with_ratios
from cxrkeras.data.dataset import TEST, TRAIN_VAL, Release
from cxrkeras.data.images import load_image
from cxrkeras.data.release import read_release
from cxrkeras.models.classifier import build_classifier
from cxrkeras.phantoms.writing import sample_findings, write_tables
from cxrkeras.records.batches import SHUFFLE_BYTES, build_evaluation_batches, build_training_batches
from cxrkeras.records.manifest import load_manifest
from cxrkeras.records.write import write_records

SIZE = 224
BATCH = 64
IMAGES = 12_000  # many times what the shuffle buffer holds
FLOATS = 2_000  # images in the float32 array, 602 KB each
ENCODED = 2_000
RESNET_STEPS = 8


def measure_reading(tables: Tables, release: Release, folder: Path) -> None:
    """Read from the page cache, and once with it dropped."""
    images = write_many(folder, release)
    manifest = load_manifest(folder / "many-records")
    files = {
        split: [str(folder / "many-records" / shard.file) for shard in manifest.shards if shard.split == split]
        for split in (TRAIN_VAL, TEST)
    }
    training = [file for file in files[TRAIN_VAL] if "fold0" not in file]
    counts = {
        name: sum(1 for _ in tf.data.TFRecordDataset(names))
        for name, names in (("training", training), ("test", files[TEST]))
    }

    def bare(paths, buffer=None):
        examples = tf.data.TFRecordDataset(paths)
        examples = examples.shuffle(buffer) if buffer else examples
        return lambda: drain(examples.batch(BATCH).prefetch(tf.data.AUTOTUNE))

    batches = build_training_batches(folder / "many-records", 0, batch_size=BATCH, seed=0, epoch=0)

    def train():
        drain(batches)

    jobs = {
        "bare records": bare(training),
        "bare records, shuffled": bare(training, SHUFFLE_BYTES // SIZE**2),
        "training batches": train,
    }
    rows = {name: counts["training"] / value for name, value in time_in_turn(jobs).items()}
    title = f"reading {counts['training']:,} images of {SIZE} px in training"
    tables.add(title, ["", "images/s", "ratio"], with_ratios(rows, "bare records, shuffled"))

    tested = build_evaluation_batches(folder / "many-records", TEST, batch_size=BATCH)
    seconds = time_in_turn({"bare records": bare(files[TEST]), "evaluation batches": lambda: drain(tested)})
    rows = {name: counts["test"] / value for name, value in seconds.items()}
    title = f"reading {counts['test']:,} images of {SIZE} px in evaluation"
    tables.add(title, ["", "images/s", "ratio"], with_ratios(rows, "bare records"))

    floats = write_floats(folder / "floats.npy", images)
    others = {
        "training batches": (counts["training"], train, training),
        "float32 array, memory-mapped, at random": (FLOATS, lambda: read_floats(floats), [floats]),
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
        title = f"other ways to keep images of {SIZE} px, page cache {state}"
        tables.add(title, ["", "images/s", "ratio"], with_ratios(rows, "training batches"))


def measure_waiting(tables: Tables, folder: Path) -> None:
    """The share of a training step that passes before its batch is there, after the first batch."""
    image = keras.Input((SIZE, SIZE, 1))
    nothing = keras.Model(image, keras.layers.Dense(15)(image[:, 0, 0]))
    rows = []
    for name, network, steps in (
        ("a network that does nothing", nothing, 100),
        ("resnet18", build_classifier("resnet18", SIZE), RESNET_STEPS),
    ):
        network.compile(optimizer="sgd", loss=keras.losses.BinaryCrossentropy(from_logits=True))
        batches = iter(build_training_batches(folder / "many-records", 0, batch_size=BATCH, seed=0, epoch=0))
        started = time.perf_counter()
        batch = next(batches)
        first = time.perf_counter() - started
        network.train_on_batch(*batch)
        waited = worked = 0.0
        for _ in range(steps):
            started = time.perf_counter()
            batch = next(batches)
            there = time.perf_counter()
            network.train_on_batch(*batch)
            waited += there - started
            worked += time.perf_counter() - there
        rows.append(
            (
                name,
                f"{1000 * first:.0f}",
                f"{1000 * waited / steps:.2f}",
                f"{1000 * (waited + worked) / steps:.1f}",
                f"{waited / (waited + worked):.1%}",
            )
        )
    columns = ["", "ms to the first batch", "ms waited a step", "ms a step", "share waited"]
    tables.add(f"waiting for batches of {BATCH} images of {SIZE} px", columns, rows)


def drain(batches: tf.data.Dataset) -> None:
    for _ in batches:
        pass


def write_many(folder: Path, release: Release) -> np.ndarray:
    """Records of many images, of which as many are distinct as the release has; uint8 (n, SIZE, SIZE) of these."""
    images = np.stack([load_image(Path(path).read_bytes(), SIZE) for path in release.table["path"]])
    source = folder / "many"
    (source / "images").mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image).save(source / f"{number}.png", compress_level=1)
    table = sample_findings(IMAGES, "nih", seed=0)
    for number, image_id in enumerate(table["image_id"]):
        os.link(source / f"{number % len(images)}.png", source / "images" / image_id)
    write_tables(source, table, [], SIZE)
    write_records(read_release(source), folder / "many-records", size=SIZE)
    return images


def write_floats(path: Path, images: np.ndarray) -> str:
    """The scaled float32 RGB array that the original kept."""
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
