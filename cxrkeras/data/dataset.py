"""A data set on disk as one table, and what all readers of data sets check."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras import labels
from cxrkeras.data.csv_table import name_lines
from cxrkeras.data.folds import HASHED, TEST_SHARE, choose_test_set
from cxrkeras.data.identity import unify_patients
from cxrkeras.data.image_files import Located
from cxrkeras.errors import InputError
from cxrkeras.text import num_of

PHANTOM_FILE = "phantom.json"  # in a folder of synthetic images
TRAIN_VAL, TEST = "train_val", "test"
DETAILS = ["image_id", "patient_id", "split", "age", "sex", "view"]
BOX_COLUMNS = ["image_id", "label", "x", "y", "width", "height"]


@dataclass(frozen=True)
class Release:
    """A data set on disk.

    `table` has a row for each image that is on disk: image_id (its name, or its path from the folder), patient_id
    (text, one spelling for each patient), split (train_val or test), age (years or NaN), sex (F, M, other or ""), view
    (PA, AP, lateral, other or ""), path, and a uint8 column for each of the 15 labels. `boxes` has image_id, label, x,
    y, width, height as fractions of the image. `namespace` says whose patients these are: ids of one namespace are
    the same people. `listed` counts the rows of the label file and the positives of each label in it, whether or not
    the images are on disk, and as `missing` those that are not. `lists` counts the images of each split list, and of
    the label file those in neither (empty without lists). `notes` are sentences about what was left out or assumed,
    `errors` about what would make a result wrong.
    """

    folder: Path
    table: pd.DataFrame
    boxes: pd.DataFrame
    label_file: str
    split_name: str
    list_checksums: dict[str, str]
    is_synthetic: bool
    namespace: str
    listed: dict[str, int]
    lists: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def fingerprint(self) -> str:
        """SHA-256 over ids, patients, splits, labels and file sizes, 16 hex digits; independent of times and paths."""
        digest = hashlib.sha256()
        table = self.table.sort_values("image_id")
        hot = table[list(labels.LABELS)].to_numpy(np.uint8)
        for row, positive in zip(table.itertuples(), hot, strict=True):
            digest.update(f"{row.image_id}\t{row.patient_id}\t{row.split}\t{_size(row.path)}\t".encode())
            digest.update(positive.tobytes())
        return digest.hexdigest()[:16]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1  # a dead link: it will be among the skipped


def digest_lines(lines: Iterable[str]) -> str:
    """SHA-256 of the sorted lines, 16 hex digits: the same for any order and line ending."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def parse_label_texts(texts: pd.Series, path: Path, errors: list[str]) -> pd.DataFrame:
    """The 15 label columns of the rows whose text can be read; the others stand in `errors`, by line."""
    distinct = {}
    for text in texts.unique():
        try:
            distinct[text] = labels.parse_labels(text)
        except InputError as error:
            errors.append(f"{path}, {name_lines(texts == text)}: {error}")
    texts = texts[texts.isin(list(distinct))]
    values = np.array([distinct[text] for text in texts], np.uint8).reshape(-1, len(labels.LABELS))
    return pd.DataFrame(values, texts.index, list(labels.LABELS))


def check_ids(table: pd.DataFrame, path: Path, notes: list[str], errors: list[str]) -> pd.DataFrame:
    """The rows with an image and a patient, each image once, with one spelling for each patient."""
    for column in ("image_id", "patient_id"):
        blank = table[column].str.strip() == ""
        if blank.any():
            errors.append(f"{path}, {name_lines(blank)}: no {column.replace('_id', '')}")
            table = table[~blank]
    is_again = table["image_id"].duplicated()
    if is_again.any():
        first = table["image_id"][is_again].iloc[0]
        errors.append(f"{path} lists {num_of(int(is_again.sum()), 'image')} more than once (first: {first})")
        table = table[~is_again]
    if not len(table):
        raise InputError("; ".join(errors) or f"{path} has a header and no rows")
    patients, said = unify_patients(table["patient_id"])
    notes += said
    return table.assign(patient_id=patients)


def count_listed(table: pd.DataFrame) -> dict[str, int]:
    return {"rows": len(table), **{label: int(table[label].sum()) for label in labels.LABELS}}


def check_patients_of_splits(table: pd.DataFrame, source: Path, errors: list[str]) -> None:
    shared = table.groupby("patient_id")["split"].nunique()
    if (shared > 1).any():
        errors.append(
            f"{source}: {num_of(int((shared > 1).sum()), 'patient', 'is')} in both the training and the test set "
            f"(first: {shared.index[shared > 1][0]}); all images of a patient belong in one of them"
        )


def check_splits(table: pd.DataFrame, source: Path, errors: list[str]) -> None:
    for split in (TRAIN_VAL, TEST):
        if not (table["split"] == split).any():
            errors.append(f"{source}: no image on disk belongs to {split}")


def drop_missing(table: pd.DataFrame, located: Located, notes: list[str], place: Path | str) -> pd.DataFrame:
    """The rows whose image is on disk."""
    missing = table["path"].isna()
    hints = "".join(f"; {hint}" for hint in located.hints)
    if missing.all():
        raise InputError(f"none of the {len(table):,} listed images is on disk; looked in {place}{hints}")
    if missing.any():
        first = ", ".join(table["image_id"][missing].head(3))
        notes.append(f"{int(missing.sum()):,} of {len(table):,} listed images are not on disk (first: {first}){hints}")
    return table[~missing].copy()


def split_by_patient(
    table: pd.DataFrame, namespace: str, rule: str, seed: int, notes: list[str]
) -> tuple[np.ndarray, str]:
    """The split of each image of a data set that brings none, and the name of that split."""
    is_test = choose_test_set(table["patient_id"].to_numpy(), namespace, rule, seed)
    patients = table["patient_id"][is_test].nunique(), table["patient_id"].nunique()
    grown = "; they stay there when the data grow" if rule == HASHED else ""
    share = round(100 * TEST_SHARE)
    notes.append(
        f"no split is given: {patients[0]:,} of {num_of(patients[1], 'patient')} "
        f"({patients[0] / patients[1]:.1%}, wanted "
        f"{share} %), {int(is_test.sum()):,} of {num_of(len(table), 'image')}, are the test set, chosen with "
        f"seed {seed}{grown}"
    )
    return np.where(is_test, TEST, TRAIN_VAL), f"{rule}-{share}-{seed}"
