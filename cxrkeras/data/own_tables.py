"""Reads a folder of one's own images with one CSV."""

import os
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras import labels
from cxrkeras.data.csv_table import name_lines, read_csv_table
from cxrkeras.data.dataset import (
    BOX_COLUMNS,
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
from cxrkeras.data.image_files import list_folder, locate_images
from cxrkeras.errors import InputError

WANTED = ("image", "patient")
_COLUMNS = (*WANTED, "labels", "split", "age", "sex", "view")
_PRESENT, _ABSENT = ("1", "1.0", "yes", "y", "true"), ("0", "0.0", "no", "n", "false")
_UNCERTAIN = ("-1", "-1.0")


def name_columns(header: list[str]) -> list[str]:
    """The columns as we call them, in any case; a label whatever its spelling, others as they are."""
    return [name.casefold() if name.casefold() in _COLUMNS else labels.find_label(name) or name for name in header]


def read_own_labels(path: Path, notes: list[str], errors: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that can be used, and all as they stand in the file with our names of columns.

    Raises InputError for a column that holds labels and is none of ours: its positives would become No Finding.
    """
    entry = read_csv_table(path)
    given = dict(zip(entry.columns, name_columns(list(entry.columns)), strict=True))
    for name in set(given.values()):
        if len(twice := [column for column in given if given[column] == name]) > 1:
            raise InputError(f"{path} has two columns for {name}: {' and '.join(map(repr, twice))}; keep one")
    entry = entry.rename(columns=given)
    others = [name for name in entry.columns if name not in (*_COLUMNS, *labels.LABELS)]
    if strange := [name for name in others if _holds_labels(entry[name])]:
        raise InputError(
            f"{path}: the column {strange[0]!r} holds labels (0 and 1, or yes and no) and is not one of ours: "
            f"{labels.suggest_label(strange[0])}Rename it to one of {', '.join(labels.LABELS)}, or remove it"
            + (f"; so do {', '.join(map(repr, strange[1:6]))}" if len(strange) > 1 else "")
        )
    if others:
        notes.append(f"{path.name}: columns that are not read: {', '.join(others)}")
    named = [label for label in labels.LABELS if label in entry.columns]
    if "labels" in entry.columns and named:
        raise InputError(
            f"{path} has a column `labels` and columns of single labels ({', '.join(named[:3])}): keep one of the two"
        )
    if "labels" in entry.columns:
        values = parse_label_texts(entry["labels"], path, errors)
    else:
        values = _read_label_columns(entry, named, path, notes, errors)
    blank = pd.Series("", entry.index)
    ages, on_ages = parse_ages(entry.get("age", blank))
    sexes, on_sexes = parse_sexes(entry.get("sex", blank))
    views, on_views = parse_views(entry.get("view", blank))
    notes += [*on_ages, *on_sexes, *on_views]
    table = pd.DataFrame(
        {
            "image_id": entry["image"].str.strip(),
            "patient_id": entry["patient"].str.strip(),
            "age": ages,
            "sex": sexes,
            "view": views,
        }
    )
    if "split" in entry.columns:
        table["split"] = entry["split"].str.strip()
    return check_ids(table.join(values, how="inner"), path, notes, errors), entry


def _normalise_values(column: pd.Series) -> pd.Series:
    return column.str.strip().str.casefold()


def _holds_labels(column: pd.Series) -> bool:
    """Whether all that is in a column are labels: 0, 1, -1, yes or no, true or false, or nothing."""
    values = set(_normalise_values(column)) - {""}
    return bool(values) and values <= {*_PRESENT, *_ABSENT, *_UNCERTAIN}


def _read_label_columns(
    entry: pd.DataFrame, named: list[str], path: Path, notes: list[str], errors: list[str]
) -> pd.DataFrame:
    if not named:
        raise InputError(f"{path} has no column `labels` and none named as a label: {', '.join(labels.LABELS)}")
    values = pd.DataFrame(0, entry.index, list(labels.LABELS), np.uint8)
    for label in named:
        column = _normalise_values(entry[label])
        wrong = ~column.isin([*_PRESENT, *_ABSENT])
        if wrong.any():
            raise InputError(
                f"{path}, {name_lines(wrong)}: a label column holds 0 or 1 (or no and yes, false and true), and "
                f"{label} holds {entry[label][wrong].iloc[0]!r}"
            )
        values[label] = column.isin(_PRESENT).astype(np.uint8)
    contradictory = (values[labels.NO_FINDING] == 1) & values[list(labels.FINDINGS)].any(axis=1)
    if contradictory.any():
        errors.append(f"{path}, {name_lines(contradictory)}: {labels.NO_FINDING} is 1 and so is a finding")
        values = values[~contradictory]
    if absent := [label for label in labels.FINDINGS if label not in named]:
        notes.append(
            f"{path.name} has no column for {', '.join(absent)}: taken as absent everywhere, their scores say nothing"
        )
    if labels.NO_FINDING not in named:
        notes.append(f"{path.name} has no column for {labels.NO_FINDING}: taken as true where no finding is")
        values[labels.NO_FINDING] = (values.sum(axis=1) == 0).astype(np.uint8)
    return values


def read_own(folder: Path, path: Path, namespace: str | None, split_rule: str, split_seed: int) -> Release:
    """Read a folder with one CSV; what would make a result wrong stands in the errors of what is returned."""
    notes, errors = [], []
    table, _ = read_own_labels(path, notes, errors)
    namespace = namespace or folder.resolve().name
    listed = count_listed(table)
    located = locate_images(table["image_id"], folder, list_folder(folder))
    errors += located.errors
    table["image_id"], table["path"] = located.ids, located.paths
    is_again = table["path"].duplicated() & table["path"].notna()
    if is_again.any():
        errors.append(f"{path}, {name_lines(is_again)}: an image that another line names already")
        table = table[~is_again]
    listed["missing"] = int(table["path"].isna().sum())
    has_split = "split" in table.columns
    if has_split:
        if wrong := sorted(set(table["split"]) - {TRAIN_VAL, TEST}):
            errors.append(
                f"{path}: the column split holds {TRAIN_VAL} or {TEST}; got {', '.join(map(repr, wrong[:5]))}"
            )
            table = table[~table["split"].isin(wrong)]
        check_patients_of_splits(table, path, errors)
    table = drop_missing(table, located, notes, folder)
    if has_split:
        lines = sorted(f"{image} {split}" for image, split in zip(table["image_id"], table["split"], strict=True))
        split_name = f"custom-{digest_lines(lines)[:8]}"
    else:
        table["split"], split_name = split_by_patient(table, namespace, split_rule, split_seed, notes)
    check_splits(table, path, errors)
    table["path"] = table["path"].map(os.path.normpath)
    return Release(
        folder=folder,
        table=table.reset_index(drop=True),
        boxes=pd.DataFrame(columns=BOX_COLUMNS),
        label_file=path.name,
        split_name=split_name,
        list_checksums={},
        is_synthetic=False,
        namespace=namespace,
        listed=listed,
        notes=notes,
        errors=errors,
    )
