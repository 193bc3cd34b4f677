"""Reads the NIH ChestX-ray14 release: label file, split lists, boxes."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.csv_table import name_lines, read_csv_table, read_text
from cxrkeras.data.dataset import (
    BOX_COLUMNS,
    PHANTOM_FILE,
    TEST,
    TRAIN_VAL,
    Dataset,
    Listing,
    build_dataset,
    check_ids,
    count_listed,
    digest_lines,
    parse_label_texts,
)
from cxrkeras.data.demographics import parse_demographics
from cxrkeras.data.identity import NIH_PATIENTS, normalise_id
from cxrkeras.data.image_files import ImageFiles, list_files
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import EFFUSION, INFILTRATION, NIH, NO_FINDING, PNEUMONIA
from cxrkeras.text import num_of

NIH_KIND, PHANTOMS = "nih", "phantoms"
LABEL_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
TRAIN_VAL_LIST, TEST_LIST, BOX_LIST = "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"
BOX_FRAME = 1024  # boxes of the release are in pixels of its 1024 x 1024 images, whatever size is on disk
BOX_SPELLING = {"Infiltrate": INFILTRATION}
# Counts of labels that differ between the two label files of the whole release.
LABEL_COUNTS = {
    "2017 (the older file)": {EFFUSION: 13307, PNEUMONIA: 1353, NO_FINDING: 60412},
    "v2020 (the corrected file)": {EFFUSION: 13317, PNEUMONIA: 1431, NO_FINDING: 60361},
}
OFFICIAL_SPLIT = "nih-official"
OFFICIAL_LISTS = {
    TRAIN_VAL_LIST: "61fbe896321c1c1c",
    TEST_LIST: "38ca5ef7f7560929",
}
_IMAGE_NAME = re.compile(r"(\d{8})_\d{3,}\.")  # patient and follow-up number


def read_nih_labels(path: Path, notes: list[str], errors: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the label file of the release; the usable rows, and all rows as in the file."""
    # Two names in the header contain a comma, and the lines of the older file end with one, so that only the first
    # seven columns match the header.
    given = read_csv_table(path, num_columns=7)
    given.columns = ["Patient Sex" if name == "Patient Gender" else name for name in given.columns]
    required = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Sex", "View Position"]
    if missing := [name for name in required if name not in given.columns]:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(given.columns)}")
    table = pd.DataFrame({"image_id": given["Image Index"].str.strip(), "patient_id": given["Patient ID"].str.strip()})
    people = parse_demographics(
        given.index, notes, age=given["Patient Age"], sex=given["Patient Sex"], view=given["View Position"]
    )
    table = table.join(people)
    table = table.join(parse_label_texts(given["Finding Labels"], NIH, path, errors), how="inner")
    return _check_names(check_ids(table, path, notes, errors), path, errors), given


def _check_names(table: pd.DataFrame, path: Path, errors: list[str]) -> pd.DataFrame:
    """Keep the rows whose patient matches the name of the image."""
    named = table["image_id"].str.extract(_IMAGE_NAME, expand=False)
    differs = named.notna() & (named.map(normalise_id, na_action="ignore") != table["patient_id"].map(normalise_id))
    if differs.any():
        first = table[differs].iloc[0]
        errors.append(
            f"{path}, {name_lines(differs)}: the patient is {first['patient_id']}, but {named[differs].iloc[0]} in "
            f"the name of the image, {first['image_id']}"
        )
    return table[~differs]


def read_nih(folder: Path, path: Path, reading: Reading) -> Dataset:
    """Read the release in a folder; what would invalidate results is in the `errors` of the data set."""
    notes, errors = [], []
    if reading.namespace not in (None, NIH_PATIENTS):
        raise InputError(
            f"{folder} holds the NIH release, whose namespace is {NIH_PATIENTS!r}; got {reading.namespace!r}"
        )
    table, given = read_nih_labels(path, notes, errors)
    listed = count_listed(table, NIH)
    files = list_nih_files(folder)
    pictures = {file.rpartition("/")[2] for file in files.paths if file.lower().endswith((".png", ".jpg", ".jpeg"))}
    if unknown := len(pictures - set(table["image_id"])):
        notes.append(f"{num_of(unknown, 'image file')} without a row in {path.name} left out")
    is_synthetic = (folder / PHANTOM_FILE).is_file()
    namespace = (
        f"phantoms-{digest_lines([(folder / PHANTOM_FILE).read_text('utf-8')])}" if is_synthetic else NIH_PATIENTS
    )
    rows = set(given["Image Index"].str.strip())
    lists = _read_lists(folder, rows, notes, errors)
    checksums = {name: digest_lines(names) for name, names in lists.items()}
    counts, split_name = {}, ""
    if lists:
        if without_row := len({name for names in lists.values() for name in names} - rows):
            notes.append(f"{num_of(without_row, 'image')} of the split lists without a row in {path.name}")
        table, counts = _split_by_lists(table, lists, notes, errors)
        is_official = checksums == OFFICIAL_LISTS
        split_name = OFFICIAL_SPLIT if is_official else f"custom-{digest_lines(sorted(checksums.values()))[:8]}"
    return build_dataset(
        folder,
        Listing(path, table, NIH, notes, errors),
        reading,
        kind=PHANTOMS if is_synthetic else NIH_KIND,
        namespace=namespace,
        files=files,
        place=f"{folder}/images or {folder}/images_*/images",
        boxes=_read_boxes(folder / BOX_LIST, set(table["image_id"]), notes, errors),
        split_name=split_name,
        list_checksums=checksums,
        lists=counts,
        is_synthetic=is_synthetic,
        listed=listed,
    )


def list_nih_files(folder: Path) -> ImageFiles:
    """List the files in the folders of images of the release."""
    return list_files(
        folder, [folder / "images", *sorted(folder.glob("images_*/images")), *sorted(folder.glob("images_*"))]
    )


def _read_lists(folder: Path, listed: set[str], notes: list[str], errors: list[str]) -> dict[str, list[str]]:
    """Read the names in each split list, spelled as in the label file; empty without lists."""
    for name in (TRAIN_VAL_LIST, TEST_LIST, BOX_LIST):
        if (folder / name).exists() and not (folder / name).is_file():
            errors.append(f"{folder / name} is not a file")
    has_lists = (folder / TRAIN_VAL_LIST).is_file()
    if has_lists != (folder / TEST_LIST).is_file():
        present, missing = (TRAIN_VAL_LIST, TEST_LIST) if has_lists else (TEST_LIST, TRAIN_VAL_LIST)
        errors.append(f"{folder} has {present} but no {missing}: provide both, or neither for a split by patient")
        return {}
    return {name: read_list(folder / name, listed, notes) for name in (TRAIN_VAL_LIST, TEST_LIST)} if has_lists else {}


def _split_by_lists(
    table: pd.DataFrame, lists: dict[str, list[str]], notes: list[str], errors: list[str]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """Add the split by the lists and drop rows in neither; the table, and counts as in `Dataset.lists`."""
    train_val, test = (set(names) for names in lists.values())
    if both := train_val & test:
        errors.append(
            f"{num_of(len(both), 'image', 'is')} in both {TRAIN_VAL_LIST} and {TEST_LIST} (first: {min(both)})"
        )
    split = np.select([table["image_id"].isin(train_val), table["image_id"].isin(test)], [TRAIN_VAL, TEST], "")
    table = table.assign(split=split)
    in_neither = table["split"] == ""
    counts = {TRAIN_VAL_LIST: len(train_val), TEST_LIST: len(test), "in_neither": int(in_neither.sum())}
    if counts["in_neither"]:
        notes.append(f"{num_of(counts['in_neither'], 'image')} in neither split list left out")
    return table[~in_neither], counts


def read_list(path: Path, listed: set[str], notes: list[str]) -> list[str]:
    """Read the image names of a split list, the first word of each line without its folder, spelled as in `listed`.

    A name without an extension takes that of the listed image. Lines with more than a name are noted. Raises InputError
    if none of the images is listed.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    by_stem = {name.rpartition(".")[0]: name for name in listed}
    by_lower_case = {name.lower(): name for name in listed}
    names, changed = [], []
    for line in lines:
        name = line
        if name not in listed:  # image names may contain spaces
            word = re.split(r"[\s,;]", line, maxsplit=1)[0].strip("\"'")
            name = word.replace("\\", "/").rpartition("/")[2]
            name = name if name in listed else by_lower_case.get(name.lower()) or by_stem.get(name, name)
        names.append(name)
        if name != line:
            changed.append((line, name))
    if changed:
        line, name = changed[0]
        notes.append(
            f"{path.name}: {num_of(len(changed), 'line', 'is')} not exactly the name of an image in the label file "
            f"(first: {line[:60]!r}, read as {name})"
        )
    if lines and not any(name in listed for name in names):
        raise InputError(
            f"{path}: none of its {num_of(len(lines), 'line')} begins with the name of an image in the label file "
            f"(first: {lines[0][:60]!r}; expected a name like {min(listed, default='00000001_000.png')})"
        )
    return names


def _read_boxes(path: Path, image_ids: set[str], notes: list[str], errors: list[str]) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(columns=BOX_COLUMNS)
    # The header has three unnamed columns and a comma inside a name: columns are read by position.
    boxes = read_csv_table(path, num_columns=6)
    boxes.columns = BOX_COLUMNS
    boxes["image_id"] = boxes["image_id"].str.strip()
    found = boxes["label"].replace(BOX_SPELLING).map(lambda name: NIH.find(name) or name)
    boxes["label"] = found
    if unknown := sorted(set(boxes["label"]) - set(NIH.findings)):
        errors.append(f"{path}: unknown finding {unknown[0]!r}")
        boxes = boxes[~boxes["label"].isin(unknown)]
    sides = boxes[BOX_COLUMNS[2:]].apply(pd.to_numeric, errors="coerce").astype(float) / BOX_FRAME
    wrong = ~np.isfinite(sides).all(axis=1) | (sides[["width", "height"]] <= 0).any(axis=1)
    if wrong.any():
        notes.append(f"{num_of(int(wrong.sum()), 'box')} of {path.name} without an area left out")
    boxes = boxes.assign(**sides)
    return boxes[~wrong & boxes["image_id"].isin(image_ids)].reset_index(drop=True)
