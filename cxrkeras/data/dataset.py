"""A data set on disk as one table, and the checks that all readers share."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.csv_table import name_lines
from cxrkeras.data.folds import HASHED, TEST_SHARE, choose_test_set
from cxrkeras.data.identity import unify_patients
from cxrkeras.data.image_files import ImageFiles, Located, locate_by_stem, locate_images
from cxrkeras.data.reading import FRONTAL, Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import ABSENT, NIH, NOT_KNOWN, PRESENT, UNCERTAIN, LabelSet
from cxrkeras.text import num_of

PHANTOM_FILE = "phantom.json"  # in a folder of synthetic images
TRAIN_VAL, TEST = "train_val", "test"
DETAILS = ["image_id", "patient_id", "split", "age", "sex", "view"]
NOT_FRONTAL = ("lateral", "other")  # views
BOX_COLUMNS = ["image_id", "label", "x", "y", "width", "height"]


@dataclass(frozen=True)
class Dataset:
    """A data set on disk.

    `table` has one row per image on disk: image_id (its name, or its path relative to the folder), patient_id (text,
    one spelling per patient), source (the name of the folder), split (train_val or test), age (years or NaN), sex (F,
    M, other or ""), view (PA, AP, frontal, lateral, other or ""), path, and one int8 column per label of `labels` with
    1, 0, -1 or NOT_KNOWN; sets that know it have `origin`, the name of the image in the set that it was taken from.
    `boxes` has image_id, label, x, y, width, height as fractions of the image. `kind` names the reader and `settings`
    its options, so that the folder can be read again in the same way. `namespace` identifies the patients: equal ids in
    one namespace are the same patient. `listed` counts the positives of each label in the label file and, as `rows`,
    its rows without those of unwanted views, whether or not the images are on disk, and as `missing` those that are
    not. `lists` counts the images of each split list, and the images of the label file that are in neither (empty
    without lists). `notes` are sentences about what was left out or assumed, `errors` about what would invalidate
    results. `members` are the sets that were joined, by source.
    """

    folder: Path
    table: pd.DataFrame
    boxes: pd.DataFrame
    labels: LabelSet
    kind: str
    label_file: str
    split_name: str
    list_checksums: dict[str, str]
    is_synthetic: bool
    namespace: str
    listed: dict[str, int]
    settings: dict[str, object] = field(default_factory=dict)
    lists: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    members: dict[str, "Dataset"] = field(default_factory=dict)

    def fingerprint(self) -> str:
        """SHA-256 over ids, patients, splits, labels and file sizes, 16 hex digits; independent of times and paths."""
        digest = hashlib.sha256()
        if self.labels != NIH:  # fingerprints of records made before other label sets existed stay valid
            digest.update("\t".join([*self.labels, "", self.labels.no_finding or ""]).encode())
        table = self.table.sort_values("image_id")
        columns = ("image_id", "patient_id", "split", "path")
        rows = zip(*(table[column] for column in columns), table[list(self.labels)].to_numpy(np.int8), strict=True)
        for image_id, patient_id, split, path, values in rows:
            digest.update(f"{image_id}\t{patient_id}\t{split}\t{_size(path)}\t".encode())
            digest.update(values.tobytes())
        return digest.hexdigest()[:16]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1  # a broken link: the image will be skipped


def digest_lines(lines: Iterable[str]) -> str:
    """SHA-256 of the sorted lines, 16 hex digits; independent of order and line endings."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def parse_label_texts(texts: pd.Series, label_set: LabelSet, path: Path, errors: list[str]) -> pd.DataFrame:
    """Parse label texts to one column per label; rows that cannot be parsed are dropped and go to `errors`, by line."""
    distinct = {}
    for text in texts.unique():
        try:
            distinct[text] = label_set.parse(text)
        except InputError as error:
            errors.append(f"{path}, {name_lines(texts == text)}: {error}")
    texts = texts[texts.isin(list(distinct))]
    values = np.array([distinct[text] for text in texts], np.int8).reshape(-1, len(label_set))
    return pd.DataFrame(values, texts.index, list(label_set))


def count_values(table: pd.DataFrame, label_set: LabelSet) -> pd.DataFrame:
    """Count the images with each label present, absent, uncertain and unknown, int64; one row per label."""
    values = table[list(label_set)].to_numpy(np.int8)
    kinds = {"present": PRESENT, "absent": ABSENT, "uncertain": UNCERTAIN, "unknown": NOT_KNOWN}
    counts = {name: (values == value).sum(axis=0) for name, value in kinds.items()}
    return pd.DataFrame(counts, index=pd.Index(label_set.names, name="label"))


def check_ids(table: pd.DataFrame, path: Path, notes: list[str], errors: list[str]) -> pd.DataFrame:
    """Keep rows that have an image and a patient, each image once, with one spelling per patient."""
    for column in ("image_id", "patient_id"):
        blank = table[column].str.strip() == ""
        if blank.any():
            errors.append(f"{path}, {name_lines(blank)}: no {column.replace('_id', '')}")
            table = table[~blank]
    is_duplicate = table["image_id"].duplicated()
    if is_duplicate.any():
        first = table["image_id"][is_duplicate].iloc[0]
        errors.append(f"{path} lists {num_of(int(is_duplicate.sum()), 'image')} more than once (first: {first})")
        table = table[~is_duplicate]
    if not len(table):
        raise InputError("; ".join(errors) or f"{path} has a header and no rows")
    patients, spelling_notes = unify_patients(table["patient_id"])
    notes += spelling_notes
    return table.assign(patient_id=patients)


def count_listed(table: pd.DataFrame, label_set: LabelSet) -> dict[str, int]:
    """Count the rows, and the positives of each label."""
    return {"rows": len(table), **{label: int((table[label] == PRESENT).sum()) for label in label_set}}


def check_patients_of_splits(table: pd.DataFrame, source: Path, errors: list[str]) -> None:
    """Add an error if a patient is in both splits."""
    shared = table.groupby("patient_id")["split"].nunique()
    if (shared > 1).any():
        errors.append(
            f"{source}: {num_of(int((shared > 1).sum()), 'patient', 'is')} in both the training and the test set "
            f"(first: {shared.index[shared > 1][0]}); all images of a patient belong in one of them"
        )


def check_splits(table: pd.DataFrame, source: Path, notes: list[str], errors: list[str]) -> None:
    """Add an error if no image is in the test set, and a note if all are."""
    is_test = table["split"] == TEST
    if not is_test.any():
        errors.append(f"{source}: no image on disk belongs to {TEST}")
    elif is_test.all():
        notes.append("all images belong to the test set: a network can be scored on them, not trained")


def drop_missing(table: pd.DataFrame, located: Located, notes: list[str], place: Path | str) -> pd.DataFrame:
    """Keep the rows whose image is on disk."""
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
    """Split a data set that has no split of its own; the split of each image, and the name of the split."""
    is_test = choose_test_set(table["patient_id"].to_numpy(), namespace, rule, seed)
    patients = table["patient_id"][is_test].nunique(), table["patient_id"].nunique()
    stability = "; they stay there when the data grow" if rule == HASHED else ""
    share = round(100 * TEST_SHARE)
    notes.append(
        f"no split is given: {patients[0]:,} of {num_of(patients[1], 'patient')} "
        f"({patients[0] / patients[1]:.1%}, target {share} %) with {int(is_test.sum()):,} of "
        f"{num_of(len(table), 'image')} form the test set, chosen with seed {seed}{stability}"
    )
    return np.where(is_test, TEST, TRAIN_VAL), f"{rule}-{share}-{seed}"


@dataclass
class Listing:
    """The rows of a label file, before its images are located.

    `table` has image_id, patient_id, age, sex, view and one column per label, and may have split, origin, and `path`,
    where the images are located already; `notes` and `errors` are as in `Dataset`.
    """

    path: Path
    table: pd.DataFrame
    labels: LabelSet
    notes: list[str]
    errors: list[str]


def build_dataset(
    folder: Path,
    listing: Listing,
    reading: Reading,
    *,
    kind: str,
    namespace: str,
    files: ImageFiles,
    place: Path | str | None = None,
    boxes: pd.DataFrame | None = None,
    split_name: str = "",
    list_checksums: dict[str, str] | None = None,
    lists: dict[str, int] | None = None,
    is_synthetic: bool = False,
    settings: dict[str, object] | None = None,
    listed: dict[str, int] | None = None,
    by_stem: bool = False,
) -> Dataset:
    """Build a data set from the rows of its label file.

    Locates the images among `files`, leaves out those that are missing or of unwanted views, and chooses a test set
    unless the table has a split; `split_name` names that. place: where images are looked for, in messages; by_stem:
    whether images are named without their extension; settings: those of the reader in addition to `reading`; listed:
    counts as in `Dataset`, by default those of the listing.
    """
    notes, errors = listing.notes, listing.errors
    listed = dict(listed or count_listed(listing.table, listing.labels))
    table = drop_views(listing.table, reading.views, notes)
    listed["rows"] -= len(listing.table) - len(table)
    if "path" in table.columns:
        located = Located(list(table["image_id"]), list(table["path"]))
    else:
        located = (locate_by_stem if by_stem else locate_images)(table["image_id"], files)
    errors += located.errors
    paths = [os.path.normpath(path) if isinstance(path, str) else None for path in located.paths]
    table = drop_repeated(table.assign(image_id=located.ids, path=paths), listing.path, errors)
    listed["missing"] = int(table["path"].isna().sum())
    has_split = "split" in table.columns
    if has_split:
        check_patients_of_splits(table, listing.path, errors)  # whether or not their images are on disk
    table = drop_missing(table, located, notes, place or folder)
    if has_split and not split_name:
        lines = [f"{image} {split}" for image, split in zip(table["image_id"], table["split"], strict=True)]
        split_name = f"custom-{digest_lines(lines)[:8]}"
    elif not has_split:
        table["split"], split_name = split_by_patient(table, namespace, reading.split_rule, reading.split_seed, notes)
    check_splits(table, listing.path, notes, errors)
    table["source"] = folder.resolve().name
    boxes = pd.DataFrame(columns=BOX_COLUMNS) if boxes is None else boxes
    return Dataset(
        folder=folder,
        table=table.reset_index(drop=True),
        boxes=boxes[boxes["image_id"].isin(table["image_id"])].reset_index(drop=True),
        labels=listing.labels,
        kind=kind,
        label_file=listing.path.name,
        split_name=split_name,
        list_checksums=list_checksums or {},
        is_synthetic=is_synthetic,
        namespace=namespace,
        listed=listed,
        settings=reading.describe() | (settings or {}),
        lists=lists or {},
        notes=notes,
        errors=errors,
    )


def drop_repeated(table: pd.DataFrame, path: Path, errors: list[str]) -> pd.DataFrame:
    """Keep each file once; an error names the lines that name it again."""
    is_repeated = table["path"].duplicated() & table["path"].notna()
    if is_repeated.any():
        errors.append(f"{path}, {name_lines(is_repeated)}: an image that another line already names")
    return table[~is_repeated]


def drop_views(table: pd.DataFrame, views: str, notes: list[str]) -> pd.DataFrame:
    """Leave out the images known not to be frontal, unless all views are wanted; the notes count both kinds."""
    counts = table["view"].value_counts()
    is_other = table["view"].isin(NOT_FRONTAL)
    shown = ", ".join(f"{counts[view]:,} {view}" for view in NOT_FRONTAL if view in counts)
    if not is_other.any():
        return table
    if views != FRONTAL:
        notes.append(f"images that are not frontal are kept: {shown}")
        return table
    if is_other.all():
        raise InputError(f"no image is frontal ({shown}): keep all views", option="views")
    unknown = f"; {num_of(int(counts['']), 'image')} without a view kept" if "" in counts else ""
    notes.append(f"{num_of(int(is_other.sum()), 'image')} left out as not frontal: {shown}{unknown}")
    return table[~is_other].copy()
