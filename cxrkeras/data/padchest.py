"""Reads PadChest: labels as lists in Python's notation, sexes and views from DICOM, 16-bit PNGs."""

import ast
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.csv_table import name_lines, read_csv_table
from cxrkeras.data.dataset import Dataset, Listing, build_dataset, check_ids
from cxrkeras.data.demographics import parse_demographics
from cxrkeras.data.image_files import list_folder
from cxrkeras.data.reader import Reader, Tables, find_tables
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import ABSENT, NOT_KNOWN, PRESENT, LabelSet
from cxrkeras.text import num_of

NORMAL = "normal"
EXCLUDE = "exclude"  # reports that the set itself excludes
# Words in the lists that name no finding: they say that a report compares with an earlier one, or that the image is
# poor.
NOT_FINDINGS = ("", EXCLUDE, "unchanged", "suboptimal study")
_COLUMNS = (
    "ImageID", "StudyDate_DICOM", "PatientID", "PatientBirth", "PatientSex_DICOM", "Projection", "MethodLabel",
    "Labels",
)  # fmt: skip
_VIEWS = {"AP_horizontal": "AP supine", "COSTAL": "other", "EXCLUDE": "other", "UNK": ""}


def find_padchest(folder: Path, tables: Tables) -> list[Path]:
    return find_tables(tables, _COLUMNS)


def read_padchest(folder: Path, paths: list[Path], reading: Reading) -> Dataset:
    """Read the table; a report's list is complete, so that a finding that it does not name is absent."""
    path, *others = paths
    if others:
        raise InputError(f"{folder} has two label files of PadChest: {path.name} and {others[0].name}; keep one")
    notes, errors = [], []
    entry = read_csv_table(path, columns=_COLUMNS)
    entry, lists = _parse_lists(entry, path, notes)
    label_set, values = _tabulate(lists, notes)
    year = pd.to_numeric(entry["StudyDate_DICOM"].str[:4], errors="coerce")
    ages = year - pd.to_numeric(entry["PatientBirth"], errors="coerce")
    people = parse_demographics(
        entry.index,
        notes,
        age=ages.where(ages >= 0).map(lambda age: "" if np.isnan(age) else f"{age:g}"),
        sex=entry["PatientSex_DICOM"],
        view=entry["Projection"].replace(_VIEWS),
    )
    methods = entry["MethodLabel"].value_counts()
    notes.append("labels by: " + ", ".join(f"{name} {count:,}" for name, count in methods.items()))
    table = pd.DataFrame({"image_id": entry["ImageID"].str.strip(), "patient_id": entry["PatientID"].str.strip()})
    table = check_ids(table.join(people).join(values), path, notes, errors)
    return build_dataset(
        folder,
        Listing(path, table, label_set, notes, errors),
        reading,
        kind=KIND,
        namespace=KIND,
        files=list_folder(folder),
    )


def _parse_lists(entry: pd.DataFrame, path: Path, notes: list[str]) -> tuple[pd.DataFrame, pd.Series]:
    """Parse the labels of each image to a set of names; images without labels or excluded by the set are left out."""
    parsed: dict[str, frozenset[str] | None] = {}
    for text in entry["Labels"].unique():
        try:
            names = ast.literal_eval(text) if text.strip().startswith("[") else None
            parsed[text] = None if names is None else frozenset(" ".join(str(name).split()) for name in names)
        except (ValueError, SyntaxError):
            raise InputError(
                f"{path}, {name_lines(entry['Labels'] == text)}: the labels {text[:60]!r} are not a list of names"
            ) from None
    lists = entry["Labels"].map(parsed)
    is_blank = lists.isna()
    if is_blank.any():
        notes.append(f"{num_of(int(is_blank.sum()), 'image')} without labels left out")
    excluded = lists.map(lambda names: names is not None and EXCLUDE in names)
    if excluded.any():
        notes.append(f"{num_of(int(excluded.sum()), 'image')} labelled {EXCLUDE} left out")
    kept = ~is_blank & ~excluded
    return entry[kept], lists[kept]


def _tabulate(lists: pd.Series, notes: list[str]) -> tuple[LabelSet, pd.DataFrame]:
    """Tabulate sets of names; the labels are all that occur in the table, in alphabetical order, `normal` last."""
    counts = Counter(name for names in lists for name in names if name not in NOT_FINDINGS)
    findings = sorted((name for name in counts if name != NORMAL), key=str.casefold)
    label_set = LabelSet((*findings, *([NORMAL] if NORMAL in counts else [])), NORMAL if NORMAL in counts else None)
    values = np.zeros((len(lists), len(label_set)), np.int8)
    by_names: dict[frozenset[str], np.ndarray] = {}
    contradictory = silent = 0
    for row, names in enumerate(lists):
        if names not in by_names:
            found = [label_set.index(name) for name in names if name not in NOT_FINDINGS]
            of_names = np.full(len(label_set), ABSENT if found else NOT_KNOWN, np.int8)
            of_names[found] = PRESENT
            if NORMAL in counts and of_names[-1] == PRESENT and len(found) > 1:
                of_names[-1] = ABSENT
            by_names[names] = of_names
        values[row] = by_names[names]
        contradictory += NORMAL in names and len(names - {*NOT_FINDINGS, NORMAL}) > 0
        silent += not names - set(NOT_FINDINGS)
    if contradictory:
        notes.append(f"{num_of(contradictory, 'image')} labelled {NORMAL} and with a finding: read with the finding")
    if silent:
        words = ", ".join(NOT_FINDINGS[2:])
        notes.append(f"{num_of(silent, 'image')} whose labels name no finding ({words}): their labels are not known")
    return label_set, pd.DataFrame(values, lists.index, list(label_set))


KIND = "padchest"
READER = Reader(
    kind=KIND,
    title="PadChest",
    size="160,868 images of 67,625 patients, 1 TB",
    labels="174 findings and 19 diagnoses; 27 % of the reports labelled by hand, the others by a network",
    licence="PadChest Dataset Research Use Agreement",
    access="register at https://bimcv.cipf.es/bimcv-projects/padchest",
    layout="PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv (or .csv.gz) and the unpacked archives of PNGs, in "
    "folders of any name",
    source="Bustos et al., Medical Image Analysis 66, 2020",
    find=find_padchest,
    read=read_padchest,
)
