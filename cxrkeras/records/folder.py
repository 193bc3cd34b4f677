"""An open records folder: its tables are read once and verified against the manifest."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxrkeras.data.dataset import DETAILS, TEST, TRAIN_VAL
from cxrkeras.data.identity import HASH_BYTES, hash_patients
from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet, parse_values
from cxrkeras.progress import SILENT, Progress
from cxrkeras.records.find_records import BOXES, INDEX, PATIENTS, find_records
from cxrkeras.records.manifest import NO_FOLD, Manifest, load_manifest

if TYPE_CHECKING:  # tables of records are read without TensorFlow
    import tensorflow as tf

    from cxrkeras.records.batches import Targets

INDEX_COLUMNS = [*DETAILS[:2], "source", "split", "fold", *DETAILS[3:]]  # and one per label


class Records:
    """Converted images with their labels, patients and folds; opened by `open_records`.

    folder: its path; manifest: its description.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder, self.manifest = folder, manifest
        self.is_verified = False

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def labels(self) -> LabelSet:
        return self.manifest.label_set

    @cached_property
    def index(self) -> pd.DataFrame:
        """One row per image, in the order of the shards: image_id, patient_id, source, split, fold, age, sex, view, and
        one int8 column per label of 1, 0, -1 or NOT_KNOWN.

        Raises InputError if the table is missing or was changed.
        """
        content = self._read_table(INDEX)
        texts = {"image_id": str, "patient_id": str, "source": str, **dict.fromkeys(self.labels, str)}
        table = pd.read_csv(content, dtype=texts, keep_default_na=False, na_values={"age": [""]})
        if "source" not in table.columns:  # records of schema 1
            table.insert(2, "source", self.manifest.sources[0].name)
        values = {label: parse_values(table[label]) for label in self.labels}
        return pd.concat([table[INDEX_COLUMNS], pd.DataFrame(values, table.index)], axis=1)

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """One row per box: image_id, label, x, y, width, height as fractions of the image. Raises as `index`."""
        texts = {"image_id": str, "label": str}
        return pd.read_csv(self._read_table(BOXES), dtype=texts, keep_default_na=False, na_values={})

    @cached_property
    def patient_hashes(self) -> pd.Series:
        """The salted hash of each patient, hex, by patient_id. Raises as `index`."""
        table = pd.read_csv(self._read_table(PATIENTS), dtype=str, keep_default_na=False)
        return table.set_index("patient_id")["hash"]

    def rows(self, split: str, fold: int = NO_FOLD) -> pd.DataFrame:
        """Return the rows of the index in a split; in train_val those of one fold."""
        return self.index[(self.index["split"] == split) & (self.index["fold"] == fold)]

    def training_rows(self, fold: int) -> pd.DataFrame:
        """Return the rows of the index in the training set when `fold` is held out."""
        return self.index[(self.index["split"] == TRAIN_VAL) & (self.index["fold"] != fold)]

    def set_rows(self, fold: int) -> dict[str, pd.DataFrame]:
        """Return the rows of the training, validation and test set when `fold` is held out."""
        return {
            "training": self.training_rows(fold),
            "validation": self.rows(TRAIN_VAL, fold),
            "test": self.rows(TEST),
        }

    def hash_patients(self, patient_ids: Iterable[str], salt: bytes, rounds: int) -> np.ndarray:
        """Hash patients with a salt and a number of rounds, (N,) of 16 bytes each.

        The hashes stored with the records are looked up if they were made with the same salt and rounds.
        """
        patient_ids = list(patient_ids)
        if (salt.hex(), rounds) == (self.manifest.patient_salt, self.manifest.patient_rounds):
            return np.frombuffer(bytes.fromhex("".join(self.patient_hashes[patient_ids])), f"V{HASH_BYTES}")
        return hash_patients(self.manifest.namespace, patient_ids, salt, rounds)

    def training_batches(
        self,
        fold: int,
        targets: Targets,
        *,
        batch_size: int,
        seed: int,
        epoch: int,
        copies: np.ndarray | None = None,
    ) -> tf.data.Dataset:
        """Build the batches of one epoch, see `batches.build_training_batches`."""
        from cxrkeras.records.batches import build_training_batches

        return build_training_batches(self, fold, targets, batch_size=batch_size, seed=seed, epoch=epoch, copies=copies)

    def evaluation_batches(
        self, split: str, *, batch_size: int, fold: int = NO_FOLD, labels: LabelSet | None = None
    ) -> tf.data.Dataset:
        """Build batches in the order of the index, see `batches.build_evaluation_batches`."""
        from cxrkeras.records.batches import build_evaluation_batches

        return build_evaluation_batches(self, split, batch_size=batch_size, fold=fold, labels=labels)

    def read_images(self, image_ids: Iterable[str]) -> dict[str, np.ndarray]:
        """Read images by their ids, uint8 (S, S). Raises InputError for an image that is not in the records."""
        from cxrkeras.records.batches import read_images

        return read_images(self, image_ids)

    def verify(self, progress: Progress = SILENT) -> None:
        """Verify shards and tables against the manifest, once. Raises as `verify.verify_records`."""
        from cxrkeras.records.verify import verify_records

        if not self.is_verified:
            verify_records(self, progress)
        self.is_verified = True

    def read_tables(self) -> None:
        """Read every table. Raises InputError for a table whose checksum differs from the manifest."""
        for name in self.manifest.table_checksums:
            self._read_table(name)

    def _read_table(self, name: str) -> io.BytesIO:
        """Read the content of a table. Raises InputError unless its checksum matches the manifest."""
        path, checksum = self.folder / name, self.manifest.table_checksums.get(name)
        if checksum is None or not path.is_file():
            raise InputError(f"{path} is gone: recreate the records")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != checksum:
            raise InputError(f"{path} was changed after the records were written: restore it, or recreate the records")
        return io.BytesIO(content)


def open_records(name: str | Path | None = None) -> Records:
    """Open records by their name under records/ or their path; without a name, the newest.

    Raises InputError if there are none or the manifest is damaged.
    """
    folder = find_records(None if name is None else str(name))
    return Records(folder, load_manifest(folder))
