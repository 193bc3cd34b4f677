"""Reads the RSNA pneumonia challenge: boxes around lung opacities in DICOM files of NIH's images."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.boxes import frame_boxes
from cxrkeras.data.csv_table import name_lines, parse_numbers, read_csv_table, read_header, require_ids
from cxrkeras.data.dataset import BOX_COLUMNS, Dataset, Listing, build_dataset, check_ids
from cxrkeras.data.demographics import parse_demographics
from cxrkeras.data.identity import NIH_PATIENTS
from cxrkeras.data.image_files import list_folder
from cxrkeras.data.reader import Reader, Tables, find_tables
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import ABSENT, PRESENT, LabelSet
from cxrkeras.text import num_of

OPACITY, OTHER, NORMAL = "Lung Opacity", "No Lung Opacity / Not Normal", "Normal"
TWO_CLASSES, THREE_CLASSES = LabelSet((OPACITY,)), LabelSet((OPACITY, OTHER, NORMAL), NORMAL)
FRAME = 1024  # pixels of an image's side
MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
_BOXES = ("patientId", "x", "y", "width", "height", "Target")
_CLASSES = ("patientId", "class")
_HEADERS = ("PatientID", "PatientAge", "PatientSex", "ViewPosition")


def find_rsna(folder: Path, tables: Tables) -> list[Path]:
    boxes = find_tables(tables, _BOXES)
    return [*boxes, *find_tables(tables, _CLASSES), *find_tables(tables, _HEADERS)] if boxes else []


def read_rsna(folder: Path, paths: list[Path], reading: Reading) -> Dataset:
    """Read the boxes, and the three classes, the headers and the images' names in NIH where their files are there."""
    notes, errors = [], []
    header_of = {path: frozenset(read_header(path)) for path in paths}
    by_columns = {columns: [path for path in paths if set(columns) <= header_of[path]]
                  for columns in (_BOXES, _CLASSES, _HEADERS)}  # fmt: skip
    if several := next((found for found in by_columns.values() if len(found) > 1), None):
        raise InputError(
            f"{folder} has two tables of one kind: {' and '.join(path.name for path in several)}; keep one"
        )
    path = by_columns[_BOXES][0]
    entry = read_csv_table(path)
    ids, targets = require_ids(entry["patientId"], path), entry["Target"].str.strip()
    if (wrong := ~targets.isin(("0", "1"))).any():
        raise InputError(f"{path}, {name_lines(wrong)}: Target is {targets[wrong].iloc[0]!r}; expected 0 or 1")
    is_opacity = targets == "1"
    by_image = is_opacity.groupby(ids, sort=False).max()
    if (torn := by_image != is_opacity.groupby(ids, sort=False).min()).any():
        errors.append(f"{path}: {by_image.index[torn][0]} has rows with Target 0 and 1")
    label_set, values = TWO_CLASSES, pd.DataFrame({OPACITY: np.where(by_image, PRESENT, ABSENT)}, by_image.index)
    if by_columns[_CLASSES]:
        label_set, values = THREE_CLASSES, _read_classes(by_columns[_CLASSES][0], by_image)
    table = pd.DataFrame({"image_id": by_image.index, "patient_id": by_image.index}, by_image.index)
    namespace = _identify(folder, table, notes)
    table = table.join(_read_people(by_columns[_HEADERS], table.index, notes)).join(values.astype(np.int8))
    table = check_ids(table.reset_index(drop=True), path, notes, errors)
    sides = parse_numbers(entry[is_opacity], BOX_COLUMNS[2:], path, is_blank_allowed=False)
    boxes = sides.assign(image_id=ids[is_opacity], label=OPACITY)
    return build_dataset(
        folder,
        Listing(path, table, label_set, notes, errors),
        reading,
        kind=KIND,
        namespace=namespace,
        files=list_folder(folder),
        boxes=frame_boxes(boxes.drop_duplicates(), FRAME),
        by_stem=True,
    )


def _read_classes(path: Path, by_image: pd.Series) -> pd.DataFrame:
    """Read the class of each image; an image has as many rows as boxes."""
    entry = read_csv_table(path, columns=_CLASSES)
    classes = entry["class"].str.strip()
    if (wrong := ~classes.isin(THREE_CLASSES.names)).any():
        raise InputError(f"{path}, {name_lines(wrong)}: unknown class {classes[wrong].iloc[0]!r}")
    by_class = classes.groupby(entry["patientId"].str.strip()).first().reindex(by_image.index)
    if by_class.isna().any() or ((by_class == OPACITY) != by_image).any():
        raise InputError(f"{path} and the table of boxes disagree about {OPACITY}, or about their images")
    return pd.DataFrame({name: np.where(by_class == name, PRESENT, ABSENT) for name in THREE_CLASSES}, by_image.index)


def _read_people(paths: list[Path], index: pd.Index, notes: list[str]) -> pd.DataFrame:
    if not paths:
        notes.append("age, sex and view are in the DICOM headers alone and stay blank")
        return parse_demographics(index, notes)
    entry = read_csv_table(paths[0], columns=_HEADERS)
    entry = entry.set_index(entry["PatientID"].str.strip()).reindex(index).fillna("")
    return parse_demographics(
        index, notes, age=entry["PatientAge"], sex=entry["PatientSex"], view=entry["ViewPosition"]
    )


def _identify(folder: Path, table: pd.DataFrame, notes: list[str]) -> str:
    """Give the images their patients and names in NIH if the mapping is there; return the patients' namespace."""
    path = folder / MAPPING
    if not path.is_file():
        notes.append(
            f"the images are of NIH, and without {MAPPING} (from rsna.org) their patients are not known: each image "
            "counts as a patient of its own, who may be in NIH's data too"
        )
        return KIND
    try:
        names = {row["subset_img_id"]: row["img_id"] for row in json.loads(path.read_text("utf-8"))}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a list with subset_img_id and img_id ({error})") from None
    origin = table["image_id"].map(names)
    if (missing := origin.isna()).any():
        raise InputError(
            f"{path} does not list {num_of(int(missing.sum()), 'image')} (first: {table['image_id'][missing].iloc[0]})"
        )
    table["origin"], table["patient_id"] = origin, origin.str.partition("_")[0]
    return NIH_PATIENTS


KIND = "rsna"
READER = Reader(
    kind=KIND,
    title="RSNA pneumonia challenge 2018",
    size="26,684 images of NIH with labels, 4 GB",
    labels="Lung Opacity with boxes, by radiologists; with the file of classes also Normal, and neither",
    licence="rules of the challenge: academic research and education",
    access="https://www.kaggle.com/c/rsna-pneumonia-detection-challenge; the mapping to NIH from rsna.org",
    layout="stage_2_train_labels.csv, stage_2_train_images/*.dcm; if present stage_2_detailed_class_info.csv "
    f"and {MAPPING}",
    source="Shih et al., Radiology: Artificial Intelligence 1, 2019",
    find=find_rsna,
    read=read_rsna,
)
