"""Reads MIMIC-CXR-JPG 2.x: labels by study, joined with the metadata and the official split by image."""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.chexpert_labels import CHEXPERT, LUNG_OPACITY, parse_chexpert_labels, read_blanks
from cxrkeras.data.csv_table import name_lines, read_csv_table, require_ids
from cxrkeras.data.dataset import TEST, TRAIN_VAL, Dataset, Listing, build_dataset, check_ids
from cxrkeras.data.demographics import parse_demographics
from cxrkeras.data.image_files import list_folder
from cxrkeras.data.reader import Reader, Tables
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.text import num_of

NAMESPACE = "mimic"
_SPLITS = {"train": TRAIN_VAL, "validate": TRAIN_VAL, "test": TEST}


def _find_one(tables: Tables, ending: str) -> Path | None:
    """Find the table `mimic-cxr-<version>-<ending>.csv`, packed or not."""
    found = [path for path in tables if path.name.startswith("mimic-cxr-") and path.name.partition(".csv")[0].endswith(
        f"-{ending}")]  # fmt: skip
    if len(found) > 1:
        raise InputError(f"{' and '.join(map(str, found))} are the same table twice: keep one")
    return found[0] if found else None


def find_mimic(labeller: str, folder: Path, tables: Tables) -> list[Path]:
    labels, metadata = _find_one(tables, labeller), _find_one(tables, "metadata")
    if labels and not metadata:
        raise InputError(f"{folder} has {labels.name} but no mimic-cxr-...-metadata.csv.gz, which lists the images")
    others = (_find_one(tables, "split"), _find_one(tables, "test-set-labeled"))
    return [labels, metadata, *filter(None, others)] if labels and metadata else []


def read_mimic(labeller: str, folder: Path, paths: list[Path], reading: Reading) -> Dataset:
    """Read the tables; the labels of a study are those of each of its images."""
    notes, errors = [], []
    labels, metadata, *others = paths
    entry = read_csv_table(metadata, columns=("dicom_id", "subject_id", "study_id", "ViewPosition"))
    table = pd.DataFrame({"image_id": entry["dicom_id"].str.strip(), "patient_id": entry["subject_id"].str.strip()})
    table["study"] = entry["study_id"].str.strip()
    table = table.join(parse_demographics(entry.index, notes, view=entry["ViewPosition"]))
    split = next((path for path in others if "split" in path.name), None)
    if split:
        table = _join_split(table, split, notes)
    by_study = _read_studies(labels, notes)
    if without := int((~table["study"].isin(by_study.index)).sum()):
        notes.append(f"{num_of(without, 'image')} of studies without labels in {labels.name} left out")
        table = table[table["study"].isin(by_study.index)]
    readers = next((path for path in others if "labeled" in path.name), None)
    if readers and split:
        table, by_study = _use_readers(table, by_study, readers, notes)
    elif readers:
        notes.append(f"{readers.name} is not used: without the official split no image belongs to its test set")
    values = by_study.reindex(table["study"]).set_axis(table.index)
    values, settings = read_blanks(values.astype(np.int8), reading, notes)
    table = check_ids(table.drop(columns="study").join(values), metadata, notes, errors)
    return build_dataset(
        folder,
        Listing(labels, table, CHEXPERT, notes, errors),
        reading,
        kind=f"mimic-{labeller}",
        namespace=NAMESPACE,
        files=list_folder(folder),
        split_name=f"mimic-official{'-readers' if readers else ''}" if split else "",
        settings=settings,
        by_stem=True,
    )


def _join_split(table: pd.DataFrame, path: Path, notes: list[str]) -> pd.DataFrame:
    entry = read_csv_table(path, columns=("dicom_id", "split"))
    names = entry["split"].str.strip()
    if unknown := sorted(set(names) - set(_SPLITS)):
        raise InputError(f"{path}: the split must be {', '.join(_SPLITS)}; got {unknown[0]!r}")
    ids = require_ids(entry["dicom_id"], path)
    if (again := ids.duplicated()).any():
        raise InputError(f"{path}, {name_lines(again)}: {ids[again].iloc[0]} is listed twice")
    split = table["image_id"].map(pd.Series(names.map(_SPLITS).to_numpy(), ids))
    if without := int(split.isna().sum()):
        notes.append(f"{num_of(without, 'image')} without a split in {path.name} left out")
    return table.assign(split=split)[split.notna()]


def _read_studies(path: Path, notes: list[str]) -> pd.DataFrame:
    """Read the labels by study, int8; a column that the table lacks is not known."""
    entry = read_csv_table(path)
    # The table of the readers calls Lung Opacity by a name of its own.
    entry = entry.rename(columns={"Airspace Opacity": LUNG_OPACITY} if LUNG_OPACITY not in entry.columns else {})
    known = [label for label in CHEXPERT if label in entry.columns]
    if "study_id" not in entry.columns or not known:
        raise InputError(f"{path} lacks the column study_id or all labels; it has {', '.join(entry.columns)}")
    values = parse_chexpert_labels(entry, path).set_axis(require_ids(entry["study_id"], path))
    if len(known) < len(CHEXPERT):
        lacking = [label for label in CHEXPERT if label not in known]
        notes.append(f"{path.name} has no column of {', '.join(lacking)}: not known there")
    if values.index.duplicated().any():
        raise InputError(f"{path} lists the study {values.index[values.index.duplicated()][0]} twice")
    return values


def _use_readers(
    table: pd.DataFrame, by_study: pd.DataFrame, path: Path, notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Label the test set by readers; its images that they did not label are left out."""
    read = _read_studies(path, notes)
    is_test = table["split"] == TEST
    kept = ~is_test | table["study"].isin(read.index)
    notes.append(
        f"the test set has the labels of readers, {path.name}: {num_of(int((kept & is_test).sum()), 'image')}, and "
        f"{num_of(int((~kept).sum()), 'image')} that they did not label left out"
    )
    return table[kept], pd.concat([by_study[~by_study.index.isin(read.index)], read])


def _build_reader(labeller: str, name: str) -> Reader:
    return Reader(
        kind=f"mimic-{labeller}",
        title=f"MIMIC-CXR-JPG, labels by {name}",
        size="377,110 images of 65,379 patients, 570 GB",
        labels=f"14, extracted from reports by {name}: 1, 0, -1 for uncertain, blank for unmentioned",
        licence="PhysioNet Credentialed Health Data License 1.5.0",
        access="a course and an agreement, then https://physionet.org/content/mimic-cxr-jpg",
        layout=f"mimic-cxr-2.0.0-{labeller}.csv.gz, -metadata.csv.gz, -split.csv.gz, if present "
        "mimic-cxr-2.1.0-test-set-labeled.csv, and files/p10/p10000032/s50414267/*.jpg",
        source="Johnson et al., 2019, https://doi.org/10.13026/jsn5-t979",
        takes=("blank",),
        find=partial(find_mimic, labeller),
        read=partial(read_mimic, labeller),
    )


READERS = (_build_reader("chexpert", "CheXpert"), _build_reader("negbio", "NegBio"))
