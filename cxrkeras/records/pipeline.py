"""Records to batches."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from cxrkeras.errors import InputError
from cxrkeras.records.schema import NO_FOLD, TEST, TRAIN_VAL, load_manifest, parse_examples

SHUFFLE_BYTES = 256 * 2**20
READ_AHEAD = 16  # shards read side by side in training


def list_shards(folder: Path, split: str, folds: list[int] | None = None) -> list[Path]:
    """Paths of the shards of a split, for train_val of the given folds, in the order of index.csv."""
    manifest = load_manifest(folder)
    folds = [NO_FOLD] if split == TEST else folds
    if unknown := sorted(set(folds) - {NO_FOLD, *range(manifest.num_folds)}):
        raise InputError(f"{folder} has folds 0 to {manifest.num_folds - 1}; got {unknown[0]}")
    paths = [folder / shard.file for shard in manifest.shards if shard.split == split and shard.fold in folds]
    if missing := [path for path in paths if not path.is_file()]:
        raise InputError(
            f"{len(missing)} shards of {folder} are gone (first: {missing[0].name}): make the records anew"
        )
    return paths


def training_folds(folder: Path, fold: int) -> list[int]:
    """All folds but the one held out for validation."""
    return [other for other in range(load_manifest(folder).num_folds) if other != fold]


def build_training_batches(folder: Path, fold: int, *, batch_size: int, seed: int, epoch: int) -> tf.data.Dataset:
    """Batches of one epoch over all folds but `fold`: uint8 (N, S, S, 1) and float32 (N, 15).

    Each example comes once. The order is a function of seed and epoch alone: shards are shuffled, interleaved,
    and their undecoded examples shuffled in a buffer of up to 256 MB.
    """
    size = load_manifest(folder).size
    paths = list_shards(folder, TRAIN_VAL, training_folds(folder, fold))
    order = np.random.default_rng([seed, epoch])
    files = [str(path) for path in order.permutation(paths)]
    # tf.data's own seed is 64 bits; drawn, so that neighbouring seeds and epochs have nothing in common.
    shuffle_seed = int(order.integers(2**62))
    examples = tf.data.Dataset.from_tensor_slices(files).interleave(
        tf.data.TFRecordDataset,
        cycle_length=READ_AHEAD,
        block_length=8,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    return (
        examples.shuffle(SHUFFLE_BYTES // (size * size), seed=shuffle_seed)
        .batch(batch_size)
        .map(lambda batch: parse_examples(batch, size)[:2], num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )


def build_evaluation_batches(folder: Path, split: str, *, batch_size: int, fold: int = NO_FOLD) -> tf.data.Dataset:
    """Batches of a split (for train_val: of one fold) in the order of index.csv, the last one as small as it comes.

    Yields images uint8 (N, S, S, 1), labels float32 (N, 15), image ids and patient ids, string (N,).
    """
    size = load_manifest(folder).size
    files = [str(path) for path in list_shards(folder, split, [fold])]
    return (
        tf.data.TFRecordDataset(files)
        .batch(batch_size)
        .map(lambda batch: parse_examples(batch, size), num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        .prefetch(tf.data.AUTOTUNE)
    )
