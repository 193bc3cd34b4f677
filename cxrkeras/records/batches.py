"""Records to batches."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import tensorflow as tf

from cxrkeras.data.dataset import TRAIN_VAL
from cxrkeras.errors import InputError
from cxrkeras.records.manifest import NO_FOLD, Shard, load_index, load_manifest
from cxrkeras.records.schema import parse_examples

SHUFFLE_BYTES = 128 * 2**20
READ_AHEAD = 16  # shards read side by side in training
BLOCK = 16  # examples taken from a shard at a time


def build_training_batches(
    folder: Path, fold: int, *, batch_size: int, seed: int, epoch: int, copies: np.ndarray | None = None
) -> tf.data.Dataset:
    """Batches of one epoch over all folds but `fold`: uint8 (N, S, S, 1) and float32 (N, 15).

    Each example comes once, or, with `copies`, int (P, N), in each of P passes through the data as often as that
    says of the N examples in the order of index.csv. The order is a function of seed and epoch alone: shards are
    shuffled, interleaved, and their undecoded examples shuffled in a buffer of up to 128 MB.
    """
    size = load_manifest(folder).size
    files, counts = _find_shards(folder, lambda shard: shard.split == TRAIN_VAL and shard.fold != fold)
    num_examples = sum(counts)
    order = np.random.default_rng([seed, epoch])
    if copies is None:
        shards, read = (order.permutation(files),), tf.data.TFRecordDataset
    else:
        if copies.shape[1] != num_examples:
            raise ValueError(f"copies of {copies.shape[1]} examples; wanted {num_examples}")
        starts = np.cumsum([0, *counts[:-1]])
        passes = [order.permutation(len(files)) for _ in copies]
        numbers = np.concatenate([number * num_examples + starts[places] for number, places in enumerate(passes)])
        shards = np.array(files)[np.concatenate(passes)], numbers
        read, num_examples = _repeat_examples(copies.ravel()), int(copies.sum())
    examples = tf.data.Dataset.from_tensor_slices(shards).interleave(
        read,
        cycle_length=READ_AHEAD,
        block_length=BLOCK if copies is None else 1,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if copies is not None:
        examples = examples.unbatch()
    shuffled = examples.shuffle(SHUFFLE_BYTES // (size * size), seed=int(order.integers(2**62)))
    return _batch(shuffled, num_examples, batch_size, lambda batch: parse_examples(batch, size)[:2])


def _repeat_examples(copies: np.ndarray) -> Callable:
    """Reads a shard whose first example has the number `start`, each as often as `copies` says, in blocks."""
    copies = tf.constant(copies)

    def read(file, start):
        def repeat(number, block):
            first = start + BLOCK * number
            return tf.repeat(block, copies[first : first + tf.size(block, tf.int64)])

        return tf.data.TFRecordDataset(file).batch(BLOCK).enumerate().map(repeat)

    return read


def build_evaluation_batches(folder: Path, split: str, *, batch_size: int, fold: int = NO_FOLD) -> tf.data.Dataset:
    """Batches of a split (for train_val: of one fold) in the order of index.csv, the last one as small as it comes.

    Yields images uint8 (N, S, S, 1), labels float32 (N, 15), image ids and patient ids, string (N,).
    """
    size = load_manifest(folder).size
    files, counts = _find_shards(folder, lambda shard: shard.split == split and shard.fold == fold)
    return _batch(tf.data.TFRecordDataset(files), sum(counts), batch_size, lambda batch: parse_examples(batch, size))


def read_images(folder: Path, image_ids: Iterable[str]) -> dict[str, np.ndarray]:
    """Some images by their ids, uint8 (S, S); InputError that names one that is not in the records."""
    size, index, wanted = load_manifest(folder).size, load_index(folder), set(image_ids)
    if unknown := wanted - set(index["image_id"]):
        raise InputError(f"{folder} has no image {min(unknown)}")
    images, first = {}, 0
    for file, count in zip(*_find_shards(folder, lambda shard: True), strict=True):
        here = wanted & set(index["image_id"].iloc[first : first + count])
        if here:
            try:
                for example in tf.data.TFRecordDataset(file).batch(BLOCK):
                    pixels, _, names, _ = parse_examples(example, size)
                    for name, image in zip(names.numpy(), pixels.numpy(), strict=True):
                        if name.decode() in wanted:
                            images[name.decode()] = image[..., 0]
            except tf.errors.OpError:
                pass  # what could not be read is missing below
        if missing := here - images.keys():
            raise InputError(f"{file} is damaged ({min(missing)} cannot be read): `make verify` says where")
        first += count
    return images


def _find_shards(folder: Path, is_wanted: Callable[[Shard], bool]) -> tuple[list[str], list[int]]:
    """Paths of the wanted shards, in the order of index.csv, and how many examples each holds."""
    shards = [shard for shard in load_manifest(folder).shards if is_wanted(shard)]
    for shard in shards:
        if not (folder / shard.file).is_file():
            raise InputError(f"{folder / shard.file} is gone: make the records anew")
    counts = [shard.count for shard in shards]
    if not sum(counts):
        raise InputError(f"{folder} has no images for this split and fold")
    return [str(folder / shard.file) for shard in shards], counts


def _batch(examples: tf.data.Dataset, num_examples: int, batch_size: int, parse: Callable) -> tf.data.Dataset:
    # Batch first, so that one call parses all of it; the known length also fails loudly when a shard is cut short.
    return (
        examples.batch(batch_size)
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(-(-num_examples // batch_size)))
        .prefetch(tf.data.AUTOTUNE)
    )
