"""Builds batches from records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from cxrkeras.data.dataset import TRAIN_VAL
from cxrkeras.errors import InputError
from cxrkeras.labels import ABSENT, NOT_KNOWN, PRESENT, UNCERTAIN, LabelSet
from cxrkeras.records.manifest import NO_FOLD, Shard
from cxrkeras.records.schema import parse_examples

if TYPE_CHECKING:
    from cxrkeras.records.folder import Records

SHUFFLE_BYTES = 128 * 2**20
READ_AHEAD = 16  # shards read in parallel in training
BLOCK = 16  # examples read from a shard at a time


VALUES = (NOT_KNOWN, UNCERTAIN, ABSENT, PRESENT)  # in ascending order


@dataclass(frozen=True)
class Targets:
    """How the loss encodes label values.

    columns: indices of the labels in the records, int (L,); table: for each of VALUES a target from 0 to 1, or NaN to
    leave the element out of the loss, float32 (L, 4).
    """

    columns: np.ndarray
    table: np.ndarray

    def encode(self, values: np.ndarray) -> np.ndarray:
        """Encode the values of all labels of the records, int8 (N, .), as targets, float32 (N, L)."""
        targets: np.ndarray = self.table[np.arange(len(self.columns)), values[:, self.columns].astype(int) - VALUES[0]]
        return targets


def build_targets(chosen: LabelSet, of_records: LabelSet, uncertain: Mapping[str, float]) -> Targets:
    """Build the targets of the `chosen` labels; `uncertain` maps a label to the target of its uncertain values, by
    default NaN."""
    columns = np.array([of_records.index(label) for label in chosen])
    table = [[np.nan, uncertain.get(label, np.nan), 0.0, 1.0] for label in chosen]
    return Targets(columns, np.array(table, np.float32))


def build_training_batches(
    records: Records,
    fold: int,
    targets: Targets,
    *,
    batch_size: int,
    seed: int,
    epoch: int,
    copies: np.ndarray | None = None,
) -> tf.data.Dataset:
    """Build the batches of one epoch over all folds but `fold`: images uint8 (N, S, S, 1), targets float32 (N, L).

    Each example occurs once or, with `copies`, int (P, N), the given number of times in each of P passes through the N
    examples in the order of index.csv. The order is a function of seed and epoch alone: shards are shuffled and
    interleaved, and their undecoded examples shuffled in a buffer of up to 128 MB.
    """
    size, num_labels = records.manifest.size, len(records.labels)
    files, counts = _find_shards(records, lambda shard: shard.split == TRAIN_VAL and shard.fold != fold)
    num_examples = sum(counts)
    order = np.random.default_rng([seed, epoch])
    shards: tuple[np.ndarray, ...]
    if copies is None:
        shards, read = (order.permutation(files),), tf.data.TFRecordDataset
    else:
        if copies.shape[1] != num_examples:
            raise ValueError(f"copies must have {num_examples} columns, one per example; got {copies.shape[1]}")
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
    columns, table = tf.constant(targets.columns), tf.constant(targets.table)

    def parse(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, values, _, _ = parse_examples(batch, size, num_labels)
        places = tf.cast(tf.gather(values, columns, axis=1), tf.int32) - VALUES[0]
        return images, tf.transpose(tf.gather(table, tf.transpose(places), axis=1, batch_dims=1))

    return _batch(shuffled, num_examples, batch_size, parse)


def _repeat_examples(copies: np.ndarray) -> Callable[[tf.Tensor, tf.Tensor], tf.data.Dataset]:
    """Build a reader of a shard, whose first example has the number `start`, that repeats each example by `copies`."""
    repeats = tf.constant(copies)

    def read(file: tf.Tensor, start: tf.Tensor) -> tf.data.Dataset:
        def repeat(number: tf.Tensor, block: tf.Tensor) -> tf.Tensor:
            first = start + BLOCK * number
            return tf.repeat(block, repeats[first : first + tf.size(block, tf.int64)])

        return tf.data.TFRecordDataset(file).batch(BLOCK).enumerate().map(repeat)

    return read


def build_evaluation_batches(
    records: Records, split: str, *, batch_size: int, fold: int = NO_FOLD, labels: LabelSet | None = None
) -> tf.data.Dataset:
    """Build the batches of a split (for train_val: of one fold) in the order of the index; the last may be smaller.

    Yields images uint8 (N, S, S, 1), values int8 (N, L) of the `labels`, by default all, image ids and patient ids,
    string (N,).
    """
    size, all_labels = records.manifest.size, records.labels
    columns = tf.constant([all_labels.index(label) for label in labels or all_labels])
    files, counts = _find_shards(records, lambda shard: shard.split == split and shard.fold == fold)

    def parse(batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
        images, values, image_ids, patient_ids = parse_examples(batch, size, len(all_labels))
        return images, tf.gather(values, columns, axis=1), image_ids, patient_ids

    return _batch(tf.data.TFRecordDataset(files), sum(counts), batch_size, parse)


def read_images(records: Records, image_ids: Iterable[str]) -> dict[str, np.ndarray]:
    """Read images by their ids, uint8 (S, S). Raises InputError for an image that is not in the records."""
    size, index, wanted = records.manifest.size, records.index, set(image_ids)
    if unknown := wanted - set(index["image_id"]):
        raise InputError(f"{records.folder} has no image {min(unknown)}")
    images, first = {}, 0
    for file, count in zip(*_find_shards(records, lambda shard: True), strict=True):
        here = wanted & set(index["image_id"].iloc[first : first + count])
        if here:
            try:
                for example in tf.data.TFRecordDataset(file).batch(BLOCK):
                    pixels, _, names, _ = parse_examples(example, size, len(records.labels))
                    for name, image in zip(names.numpy(), pixels.numpy(), strict=True):
                        if name.decode() in wanted:
                            images[name.decode()] = image[..., 0]
            except tf.errors.OpError:
                pass  # images that could not be read are reported below
        if missing := here - images.keys():
            raise InputError(f"{file} is damaged ({min(missing)} cannot be read): `cxrkeras verify` locates the damage")
        first += count
    return images


def _find_shards(records: Records, is_wanted: Callable[[Shard], bool]) -> tuple[list[str], list[int]]:
    """Return the paths of the wanted shards, in the order of the index, and the number of examples in each."""
    shards, folder = [shard for shard in records.manifest.shards if is_wanted(shard)], records.folder
    for shard in shards:
        if not (folder / shard.file).is_file():
            raise InputError(f"{folder / shard.file} is gone: recreate the records")
    counts = [shard.count for shard in shards]
    if not sum(counts):
        raise InputError(f"{folder} has no images for this split and fold")
    return [str(folder / shard.file) for shard in shards], counts


def _batch(
    examples: tf.data.Dataset, num_examples: int, batch_size: int, parse: Callable[[tf.Tensor], Any]
) -> tf.data.Dataset:
    # Batch first, so that one call parses the whole batch. The asserted length raises an error for a truncated shard.
    return (
        examples.batch(batch_size)
        .map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .apply(tf.data.experimental.assert_cardinality(-(-num_examples // batch_size)))
        .prefetch(tf.data.AUTOTUNE)
    )
