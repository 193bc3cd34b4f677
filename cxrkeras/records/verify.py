"""Verifies a records folder against its manifest and names the shard and record that differ."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import tensorflow as tf

from cxrkeras.data.dataset import Dataset
from cxrkeras.data.folds import check_patients
from cxrkeras.errors import InputError
from cxrkeras.progress import SILENT, Progress
from cxrkeras.records.find_records import INDEX
from cxrkeras.records.manifest import Manifest, Shard
from cxrkeras.records.schema import parse_examples
from cxrkeras.text import num_of

if TYPE_CHECKING:
    from cxrkeras.records.folder import Records

BATCH = 64


def verify_records(records: Records, progress: Progress = SILENT) -> None:
    """Check every shard and table of a records folder against its manifest.

    Checks the checksums and counts of the shards, the checksums of the tables, the ids, patients and labels of each
    record against the index, and that no patient is on two sides of a split. Raises InputError that names the shard
    and, where possible, the record at fault.
    """
    manifest, folder = records.manifest, records.folder
    records.read_tables()
    index = records.index
    check_patients(index)
    if len(index) != manifest.num_records:
        raise InputError(
            f"{folder / INDEX} has {num_of(len(index), 'row')}; the manifest counts "
            f"{num_of(manifest.num_records, 'record')}"
        )
    advance, done = progress.start(f"verifying {folder}", manifest.num_records), 0
    for shard in manifest.shards:
        rows = index.iloc[done : done + shard.count]
        _check_shard(folder / shard.file, shard, rows, manifest)
        done += shard.count
        advance(shard.count)


def check_source(records: Records, dataset: Dataset) -> None:
    """Check that records were made from the current state of a data set. Raises InputError if not."""
    manifest = records.manifest
    if dataset.fingerprint() != manifest.fingerprint:
        raise InputError(
            f"{records.folder} was not made of what is in {dataset.folder} now: the fingerprint there is "
            f"{dataset.fingerprint()}, in the manifest {manifest.fingerprint} ({num_of(manifest.num_listed, 'row')} of "
            f"{manifest.label_files} then, {dataset.listed['rows']:,} of {dataset.label_file} now); an image, a label, "
            "a patient or a list was changed, or images were added or removed: recreate the records"
        )


def _check_shard(path: Path, shard: Shard, rows: pd.DataFrame, manifest: Manifest) -> None:
    if not path.is_file():
        raise InputError(f"{path} is gone: recreate the records")
    if not ((rows["split"] == shard.split) & (rows["fold"] == shard.fold)).all():
        raise InputError(
            f"{path} belongs to {shard.split}, fold {shard.fold}, but the index places its images elsewhere"
        )
    count = 0
    expected_values = rows[list(manifest.labels)].to_numpy(np.int8)
    try:
        for batch in tf.data.TFRecordDataset(str(path)).batch(BATCH):
            _, values, image_ids, patient_ids = parse_examples(batch, manifest.size, len(manifest.labels))
            expected = rows.iloc[count : count + len(values)]
            if len(expected) < len(values):
                raise InputError(f"{path} holds more than the {shard.count} records in the manifest")
            wrong = (values.numpy() != expected_values[count : count + len(values)]).any(axis=1)
            for ids, column in ((image_ids, "image_id"), (patient_ids, "patient_id")):
                wrong |= np.char.decode(ids.numpy().astype(bytes), "utf-8") != expected[column].to_numpy(str)
            if wrong.any():
                record = int(np.flatnonzero(wrong)[0])
                raise InputError(
                    f"{path}, record {count + record}: id, patient or labels differ from the index "
                    f"({expected['image_id'].iloc[record]}): recreate the records"
                )
            count += len(values)
    except tf.errors.OpError as error:
        reason = error.message.splitlines()[0]
        raise InputError(
            f"{path} is damaged near record {_count_readable(path)} ({reason}): recreate the records"
        ) from None
    if count != shard.count:
        raise InputError(f"{path} holds {num_of(count, 'record')}; the manifest counts {shard.count}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != shard.sha256:
            raise InputError(f"{path} differs from its checksum in the manifest: recreate the records")


def _count_readable(path: Path) -> int:
    """Count the records that can be read before the damage."""
    count = 0
    try:
        for _ in tf.data.TFRecordDataset(str(path)):
            count += 1
    except tf.errors.OpError:
        pass
    return count
