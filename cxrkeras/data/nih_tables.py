"""Reads the NIH ChestX-ray14 release: label file, split lists, boxes."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras import labels
from cxrkeras.data.csv_table import name_lines, read_csv_table, read_text
from cxrkeras.data.dataset import (
    BOX_COLUMNS,
    PHANTOM_FILE,
    TEST,
    TRAIN_VAL,
    Release,
    check_ids,
    check_patients_of_splits,
    check_splits,
    count_listed,
    digest_lines,
    drop_missing,
    parse_label_texts,
    split_by_patient,
)
from cxrkeras.data.demographics import parse_ages, parse_sexes, parse_views
from cxrkeras.data.identity import NIH, normalise_id
from cxrkeras.data.image_files import list_files, locate_images
from cxrkeras.errors import InputError
from cxrkeras.text import num_of

LABEL_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
TRAIN_VAL_LIST, TEST_LIST, BOX_LIST = "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"
BOX_FRAME = 1024  # boxes of the release are in pixels of its 1024 x 1024 images, whatever size is on disk
BOX_SPELLING = {"Infiltrate": labels.INFILTRATION}
OFFICIAL_SPLIT = "nih-official"
OFFICIAL_LISTS = {
    TRAIN_VAL_LIST: "61fbe896321c1c1c",
    TEST_LIST: "38ca5ef7f7560929",
}
_IMAGE_NAME = re.compile(r"(\d{8})_\d{3,}\.")  # patient and number of the visit


def read_nih_labels(path: Path, notes: list[str], errors: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that can be used, and all as they stand in the file."""
    # Two of the header's names contain a comma and the older file ends its lines with one, so that only the first
    # seven columns are where the header says.
    entry = read_csv_table(path, num_columns=7)
    entry.columns = ["Patient Sex" if name == "Patient Gender" else name for name in entry.columns]
    wanted = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Sex", "View Position"]
    if missing := [name for name in wanted if name not in entry.columns]:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(entry.columns)}")
    ages, on_ages = parse_ages(entry["Patient Age"])
    sexes, on_sexes = parse_sexes(entry["Patient Sex"])
    views, on_views = parse_views(entry["View Position"])
    notes += [*on_ages, *on_sexes, *on_views]
    table = pd.DataFrame(
        {
            "image_id": entry["Image Index"].str.strip(),
            "patient_id": entry["Patient ID"].str.strip(),
            "age": ages,
            "sex": sexes,
            "view": views,
        }
    )
    table = table.join(parse_label_texts(entry["Finding Labels"], path, errors), how="inner")
    return _check_names(check_ids(table, path, notes, errors), path, errors), entry


def _check_names(table: pd.DataFrame, path: Path, errors: list[str]) -> pd.DataFrame:
    """The rows whose patient is the one that the image's name says."""
    named = table["image_id"].str.extract(_IMAGE_NAME, expand=False)
    differs = named.notna() & (named.map(normalise_id, na_action="ignore") != table["patient_id"].map(normalise_id))
    if differs.any():
        first = table[differs].iloc[0]
        errors.append(
            f"{path}, {name_lines(differs)}: the patient is {first['patient_id']} and the name of the image, "
            f"{first['image_id']}, says {named[differs].iloc[0]}"
        )
    return table[~differs]


def read_nih(folder: Path, label_file: str, split_rule: str, split_seed: int) -> Release:
    """Read the release in a folder; what would make a result wrong stands in the errors of what is returned."""
    notes, errors = [], []
    table, given = read_nih_labels(folder / label_file, notes, errors)
    listed = count_listed(table)
    roots = [folder / "images", *sorted(folder.glob("images_*/images")), *sorted(folder.glob("images_*"))]
    files = list_files(folder, roots)
    located = locate_images(table["image_id"], folder, files)
    table["path"] = located.paths
    errors += located.errors
    listed["missing"] = int(table["path"].isna().sum())
    pictures = {file.rpartition("/")[2] for file in files if file.lower().endswith((".png", ".jpg", ".jpeg"))}
    if unknown := len(pictures - set(table["image_id"])):
        notes.append(f"{num_of(unknown, 'image file', 'has')} no row in {label_file} and are left out")

    is_synthetic = (folder / PHANTOM_FILE).is_file()
    namespace = f"phantoms-{digest_lines([(folder / PHANTOM_FILE).read_text('utf-8')])}" if is_synthetic else NIH
    lists = _read_lists(folder, set(given["Image Index"].str.strip()), notes, errors)
    checksums, counts = {}, {}
    if lists:
        checksums = {name: digest_lines(names) for name, names in lists.items()}
        train_val, test = (set(names) for names in lists.values())
        if both := train_val & test:
            errors.append(
                f"{num_of(len(both), 'image', 'is')} in both {TRAIN_VAL_LIST} and {TEST_LIST} (first: {min(both)})"
            )
        if without_row := len((train_val | test) - set(given["Image Index"].str.strip())):
            notes.append(f"{num_of(without_row, 'image')} of the split lists have no row in {label_file}")
        table["split"] = np.select(
            [table["image_id"].isin(train_val), table["image_id"].isin(test)], [TRAIN_VAL, TEST], ""
        )
        in_neither = table["split"] == ""
        counts = {TRAIN_VAL_LIST: len(train_val), TEST_LIST: len(test), "in_neither": int(in_neither.sum())}
        if counts["in_neither"]:
            notes.append(f"{num_of(counts['in_neither'], 'image', 'is')} in neither split list and are left out")
        check_patients_of_splits(table[~in_neither], folder, errors)  # whether or not their images are on disk
        table = table[~in_neither]
        is_official = checksums == OFFICIAL_LISTS
        split_name = OFFICIAL_SPLIT if is_official else f"custom-{digest_lines(sorted(checksums.values()))[:8]}"
    table = drop_missing(table, located, notes, f"{folder}/images or {folder}/images_*/images")
    if not lists:
        table["split"], split_name = split_by_patient(table, namespace, split_rule, split_seed, notes)
    check_splits(table, folder, errors)
    return Release(
        folder=folder,
        table=table.reset_index(drop=True),
        boxes=_read_boxes(folder / BOX_LIST, set(table["image_id"]), notes, errors),
        label_file=label_file,
        split_name=split_name,
        list_checksums=checksums,
        is_synthetic=is_synthetic,
        namespace=namespace,
        listed=listed,
        lists=counts,
        notes=notes,
        errors=errors,
    )


def _read_lists(folder: Path, listed: set[str], notes: list[str], errors: list[str]) -> dict[str, list[str]]:
    """The names in both split lists, as the label file spells them; empty without lists."""
    for name in (TRAIN_VAL_LIST, TEST_LIST, BOX_LIST):
        if (folder / name).exists() and not (folder / name).is_file():
            errors.append(f"{folder / name} is not a file")
    has_lists = (folder / TRAIN_VAL_LIST).is_file()
    if has_lists != (folder / TEST_LIST).is_file():
        there, gone = (TRAIN_VAL_LIST, TEST_LIST) if has_lists else (TEST_LIST, TRAIN_VAL_LIST)
        errors.append(f"{folder} has {there} and no {gone}: bring both, or neither for a split by patient")
        return {}
    return {name: read_list(folder / name, listed, notes) for name in (TRAIN_VAL_LIST, TEST_LIST)} if has_lists else {}


def read_list(path: Path, listed: set[str], notes: list[str]) -> list[str]:
    """The image names of a split list, the first word of each line without its folder, as `listed` has them.

    A name without an ending takes that of the listed image. Notes say what was more than a name. InputError for a list
    of which nothing is listed.
    """
    lines = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    endings = {name.rpartition(".")[0]: name for name in listed}
    lower = {name.lower(): name for name in listed}
    names, changed = [], []
    for line in lines:
        name = line
        if name not in listed:  # names of images may have blanks
            word = re.split(r"[\s,;]", line, maxsplit=1)[0].strip("\"'")
            name = word.replace("\\", "/").rpartition("/")[2]
            name = name if name in listed else lower.get(name.lower()) or endings.get(name, name)
        names.append(name)
        if name != line:
            changed.append((line, name))
    if changed:
        line, name = changed[0]
        notes.append(
            f"{path.name}: {num_of(len(changed), 'line', 'is')} not just the name of an image as the label file "
            "has it (first: "
            f"{line[:60]!r}, read as {name})"
        )
    if lines and not any(name in listed for name in names):
        raise InputError(
            f"{path}: none of its {num_of(len(lines), 'line')} begins with the name of an image of the label "
            "file (first: "
            f"{lines[0][:60]!r}; wanted a name as {min(listed, default='00000001_000.png')})"
        )
    return names


def _read_boxes(path: Path, image_ids: set[str], notes: list[str], errors: list[str]) -> pd.DataFrame:
    if not path.is_file():
        return pd.DataFrame(columns=BOX_COLUMNS)
    # The header has three nameless columns and a comma inside a name: only the position counts.
    boxes = read_csv_table(path, num_columns=6)
    boxes.columns = BOX_COLUMNS
    boxes["image_id"] = boxes["image_id"].str.strip()
    found = boxes["label"].replace(BOX_SPELLING).map(lambda name: labels.find_label(name) or name)
    boxes["label"] = found
    if unknown := sorted(set(boxes["label"]) - set(labels.FINDINGS)):
        errors.append(f"{path}: unknown finding {unknown[0]!r}")
        boxes = boxes[~boxes["label"].isin(unknown)]
    sides = boxes[BOX_COLUMNS[2:]].apply(pd.to_numeric, errors="coerce").astype(float) / BOX_FRAME
    wrong = ~np.isfinite(sides).all(axis=1) | (sides[["width", "height"]] <= 0).any(axis=1)
    if wrong.any():
        notes.append(f"{num_of(int(wrong.sum()), 'box')} of {path.name} have no area and are left out")
    boxes = boxes.assign(**sides)
    return boxes[~wrong & boxes["image_id"].isin(image_ids)].reset_index(drop=True)
