"""Checks that a records folder is what its manifest says, and names the shard and the record that is not."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from cxrkeras import labels
from cxrkeras.data.dataset import Release
from cxrkeras.data.folds import check_patients
from cxrkeras.errors import InputError
from cxrkeras.records.find_records import INDEX
from cxrkeras.records.manifest import Manifest, Shard, load_index, load_manifest, read_table
from cxrkeras.records.schema import parse_examples
from cxrkeras.text import num_of

BATCH = 64


def verify_records(
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
    *,
    release: Release | None = None,
) -> Manifest:
    """Check every shard and table of a records folder against its manifest.

    Checksums and counts of the shards; ids, patients and labels of each record against the index; patients against
    folds and splits; tables against their checksums; with `release`, its fingerprint against the manifest's.
    `progress` is called with the records checked and all. Returns the manifest. Raises InputError that names the
    shard, and if it can the record, that is wrong.
    """
    manifest = load_manifest(folder)
    if release is not None and release.fingerprint() != manifest.fingerprint:
        raise InputError(
            f"{folder} was not made of what is in {release.folder} now: the fingerprint there is "
            f"{release.fingerprint()}, in the manifest {manifest.fingerprint} ({num_of(manifest.num_listed, 'row')} of "
            f"{manifest.label_file} then, {release.listed['rows']:,} of {release.label_file} now); an image, a label, "
            "a patient or a list was changed, or images came or went: make the records anew"
        )
    for name in manifest.table_checksums:
        read_table(folder, name)
    index = load_index(folder)
    check_patients(index)
    total = sum(shard.count for shard in manifest.shards)
    if len(index) != total:
        raise InputError(
            f"{folder / INDEX} has {num_of(len(index), 'row')}; the manifest counts {num_of(total, 'record')}"
        )
    done = 0
    for shard in manifest.shards:
        rows = index.iloc[done : done + shard.count]
        _check_shard(folder / shard.file, shard, rows, manifest.size)
        done += shard.count
        progress(done, total)
    return manifest


def _check_shard(path: Path, shard: Shard, rows: pd.DataFrame, size: int) -> None:
    if not path.is_file():
        raise InputError(f"{path} is gone: make the records anew")
    if not ((rows["split"] == shard.split) & (rows["fold"] == shard.fold)).all():
        raise InputError(f"{path} is of {shard.split}, fold {shard.fold}; the index has its images elsewhere")
    count = 0
    hot = rows[list(labels.LABELS)].to_numpy(np.float32)
    try:
        for batch in tf.data.TFRecordDataset(str(path)).batch(BATCH):
            _, truth, image_ids, patient_ids = parse_examples(batch, size)
            expected = rows.iloc[count : count + len(truth)]
            if len(expected) < len(truth):
                raise InputError(f"{path} holds more than the {shard.count} records of the manifest")
            wrong = (truth.numpy() != hot[count : count + len(truth)]).any(axis=1)
            for ids, column in ((image_ids, "image_id"), (patient_ids, "patient_id")):
                wrong |= np.char.decode(ids.numpy().astype(bytes), "utf-8") != expected[column].to_numpy(str)
            if wrong.any():
                record = int(np.flatnonzero(wrong)[0])
                raise InputError(
                    f"{path}, record {count + record}: id, patient or labels differ from the index "
                    f"({expected['image_id'].iloc[record]}): make the records anew"
                )
            count += len(truth)
    except tf.errors.OpError as error:
        reason = error.message.splitlines()[0]
        raise InputError(
            f"{path} is damaged near record {_last_whole(path)} ({reason}): make the records anew"
        ) from None
    if count != shard.count:
        raise InputError(f"{path} holds {num_of(count, 'record')}; the manifest counts {shard.count}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
            raise InputError(f"{path} differs from its checksum in the manifest: make the records anew")


def _last_whole(path: Path) -> int:
    """How many records can be read before the damage."""
    count = 0
    try:
        for _ in tf.data.TFRecordDataset(str(path)):
            count += 1
    except tf.errors.OpError:
        pass
    return count
