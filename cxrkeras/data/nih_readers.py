"""Reads the labels that radiologists gave to images of NIH ChestX-ray14: four findings, or all fourteen."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.csv_table import name_lines, read_csv_table, read_header
from cxrkeras.data.dataset import TEST, TRAIN_VAL, Dataset, Listing, build_dataset, check_ids
from cxrkeras.data.demographics import parse_demographics
from cxrkeras.data.identity import NIH_PATIENTS
from cxrkeras.data.image_files import list_folder
from cxrkeras.data.reader import Find, Reader, Tables, find_tables
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import ABSENT, NIH, PNEUMOTHORAX, PRESENT, LabelSet
from cxrkeras.text import num_of

NORMAL = "Normal"  # not Abnormal
FOUR = LabelSet(("Fracture", PNEUMOTHORAX, "Airspace opacity", "Nodule or mass"))
FOURTEEN = LabelSet((*NIH.findings, "Other", NORMAL), NORMAL)
_ABNORMAL, _READER = "Abnormal", "Reader ID"
_VALUES = {"YES": PRESENT, "NO": ABSENT, "1": PRESENT, "0": ABSENT}
_SPLITS = {"val": TRAIN_VAL, "validation": TRAIN_VAL, "test": TEST}


def find_four(folder: Path, tables: Tables) -> list[Path]:
    return find_tables(tables, ("Image Index", "Patient ID", *FOUR.names))


def find_fourteen(folder: Path, tables: Tables) -> list[Path]:
    found = find_tables(tables, ("Image ID", "Patient ID", _ABNORMAL, "Other"))
    return [path for path in found if _READER not in tables[path]]


def read_reader_labels(path: Path, notes: list[str], errors: list[str]) -> tuple[pd.DataFrame, LabelSet]:
    """Read the rows of a table of four or fourteen findings, whether or not their images are on disk."""
    is_four = set(FOUR) <= set(read_header(path))
    # A name in the header of four findings contains a comma, which is no separator there.
    entry = read_csv_table(path)
    label_set = FOUR if is_four else FOURTEEN
    values = {}
    for label in label_set:
        column = _ABNORMAL if label == NORMAL else next(name for name in entry.columns if _is_same(name, label))
        texts = entry[column].str.strip().str.upper()
        if (wrong := ~texts.isin(list(_VALUES))).any():
            raise InputError(f"{path}, {name_lines(wrong)}: {column} is {texts[wrong].iloc[0]!r}; expected YES or NO")
        found = texts.map(_VALUES).astype(np.int8)
        values[label] = (1 - found).astype(np.int8) if label == NORMAL else found
    people = parse_demographics(
        entry.index,
        notes,
        age=entry.get("Patient Age"),
        sex=entry.get("Patient Gender"),
        view=entry.get("View Position", pd.Series("" if is_four else "PA", entry.index)),
    )
    image = entry["Image Index" if is_four else "Image ID"].str.strip()
    table = pd.DataFrame({"image_id": image, "patient_id": entry["Patient ID"].str.strip(), "origin": image})
    table = table.join(people).join(pd.DataFrame(values, entry.index))
    if is_four and "Set Id" in entry.columns:
        table["split"] = entry["Set Id"].str.strip().str.casefold().map(_SPLITS)
        if (wrong := table["split"].isna()).any():
            raise InputError(f"{path}, {name_lines(wrong)}: Set Id must be {', '.join(_SPLITS)}")
    elif not is_four:
        table["split"] = TEST
    return check_ids(table, path, notes, errors), label_set


def _is_same(name: str, label: str) -> bool:
    return NIH.find(name) == label or name == label


def read_nih_readers(kind: str, folder: Path, paths: list[Path], reading: Reading) -> Dataset:
    """Read the tables of one kind; the images are those of NIH, in folders of any name."""
    notes, errors = [], []
    tables, label_sets = zip(*(read_reader_labels(path, notes, errors) for path in paths), strict=True)
    table = pd.concat(tables, ignore_index=True)
    is_again = table["image_id"].duplicated()
    if is_again.any():
        raise InputError(
            f"{' and '.join(path.name for path in paths)} share {num_of(int(is_again.sum()), 'image')} (first: "
            f"{table['image_id'][is_again].iloc[0]}); keep one of them"
        )
    return build_dataset(
        folder,
        Listing(paths[0], table, label_sets[0], notes, errors),
        reading,
        kind=kind,
        namespace=NIH_PATIENTS,
        files=list_folder(folder),
        split_name=f"{kind}-official" if "split" in table.columns else "",
    )


def _build_reader(kind: str, labels: str, source: str, layout: str, find: Find) -> Reader:
    return Reader(
        kind=kind,
        title=f"NIH images labelled by radiologists, {labels}",
        size="4,376 images" if kind == FOUR_KIND else "810 images",
        labels=labels,
        licence="CC BY 4.0 for the labels",
        access="bucket gcs-public-data--healthcare-nih-chest-xray-labels of Google Cloud Storage; the images are NIH's",
        layout=layout,
        source=source,
        find=find,
        read=partial(read_nih_readers, kind),
    )


FOUR_KIND, FOURTEEN_KIND = "google-four", "google-fourteen"
READERS = (
    _build_reader(
        FOUR_KIND,
        ", ".join(FOUR),
        "Majkowska et al., Radiology 294, 2020",
        "four_findings_expert_labels/*.csv in the folder of the images",
        find_four,
    ),
    _build_reader(
        FOURTEEN_KIND,
        "NIH's 14 findings, Other, Normal",
        "Nabulsi et al., Scientific Reports 11, 2021",
        "all_findings_expert_labels/test_labels.csv in the folder of the images",
        find_fourteen,
    ),
)
