"""Reads a folder of one's own images with one CSV and any labels."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.csv_table import name_lines, read_csv_table, read_text
from cxrkeras.data.dataset import (
    BOX_COLUMNS,
    TEST,
    TRAIN_VAL,
    Dataset,
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
from cxrkeras.labels import (
    ABSENT,
    NO_FINDING_NAMES,
    NOT_KNOWN,
    PRESENT,
    UNCERTAIN,
    LabelSet,
    find_no_finding,
    spelling_key,
)
from cxrkeras.text import num_of

REQUIRED = ("image", "patient")
LABEL_LIST = "labels.txt"  # the labels in the desired order, one per line
_COLUMNS = (*REQUIRED, "labels", "split", "age", "sex", "view")
_PRESENT, _ABSENT = ("1", "1.0", "yes", "y", "true"), ("0", "0.0", "no", "n", "false")
_UNCERTAIN = ("-1", "-1.0", "uncertain")
_LIKE_LABELS = ("label", "finding", "findings", "findinglabels", "diagnosis", "class")
_UNKNOWN = ("", "nan", "na", "n/a", "unknown", "todo", "?")


@dataclass(frozen=True)
class Reading:
    """How to read a CSV: names of columns to ignore, and of the no-finding label."""

    ignore: tuple[str, ...] = ()
    normal: str | None = None

    def describe(self) -> dict:
        """Return the settings that are not the default, as plain values."""
        return ({"ignore": sorted(self.ignore)} if self.ignore else {}) | (
            {"normal": self.normal} if self.normal else {}
        )


@dataclass(frozen=True)
class OwnTable:
    """`table` has the usable rows, `given` all rows as in the file, with standard column names."""

    table: pd.DataFrame
    given: pd.DataFrame
    labels: LabelSet


def name_columns(header: list[str]) -> list[str]:
    """Return standard column names, matched in any case, and the others as they are."""
    return [name.casefold() if name.casefold() in _COLUMNS else name for name in header]


def read_own_labels(path: Path, reading: Reading, notes: list[str], errors: list[str]) -> OwnTable:
    """Read the rows of a CSV, whether or not their images are on disk.

    Raises InputError for a column that is not a standard one, holds no labels and is not ignored, and for label columns
    alongside a column `labels`.
    """
    entry = _read_columns(path, reading, notes)
    others = [name for name in entry.columns if name not in _COLUMNS]
    unrecognised = [name for name in others if not _holds_labels(entry[name])]
    if "labels" in entry.columns:
        if label_columns := [name for name in others if name not in unrecognised]:
            raise InputError(
                f"{path} has a column `labels`, and {label_columns[0]!r} holds labels too (0 and 1, or yes and no): "
                f"keep one of the two, or ignore columns with {_suggest_ignoring(others)}",
                option="ignore",
            )
        _refuse_unrecognised(unrecognised, entry, path)
        label_set, values = _read_label_texts(entry["labels"], reading, path, notes, errors)
    else:
        label_set, values = _read_label_columns(entry, others, unrecognised, reading, path, notes, errors)
    blank = pd.Series("", entry.index)
    ages, age_notes = parse_ages(entry.get("age", blank))
    sexes, sex_notes = parse_sexes(entry.get("sex", blank))
    views, view_notes = parse_views(entry.get("view", blank))
    notes += [*age_notes, *sex_notes, *view_notes]
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
    table = check_ids(table.join(values, how="inner"), path, notes, errors)
    return OwnTable(table, entry, label_set)


def _read_columns(path: Path, reading: Reading, notes: list[str]) -> pd.DataFrame:
    """Read the columns that are not ignored, with standard names."""
    entry = read_csv_table(path)
    given = dict(zip(entry.columns, name_columns(list(entry.columns)), strict=True))
    for name in dict.fromkeys(given.values()):
        if len(same := [column for column in given if spelling_key(given[column]) == spelling_key(name)]) > 1:
            raise InputError(f"{path} has two columns for {name}: {' and '.join(map(repr, same))}; keep one")
    entry = entry.rename(columns=given)
    unwanted = {spelling_key(name): name for name in reading.ignore}
    found = {key: name for name in entry.columns if (key := spelling_key(name)) in unwanted}
    if missing := [name for key, name in unwanted.items() if key not in found]:
        raise InputError(f"{path} has no column {missing[0]!r} to ignore; it has {', '.join(entry.columns)}")
    if needed := [name for name in found.values() if name in REQUIRED]:
        raise InputError(f"{path}: the column {needed[0]} is needed and cannot be ignored")
    if found:
        notes.append(f"{path.name}: ignored columns: {', '.join(found.values())}")
    return entry.drop(columns=list(found.values()))


def _refuse_unrecognised(unrecognised: list[str], entry: pd.DataFrame, path: Path) -> None:
    """Raise InputError if there is a column that is neither a standard one nor a label."""
    if not unrecognised:
        return
    first = unrecognised[0]
    if "labels" not in entry.columns and spelling_key(first) in _LIKE_LABELS:
        raise InputError(
            f"{path}: the column {first!r} seems to hold label names: call it `labels`, and join several with '|'"
        )
    value = next(iter(entry[first][entry[first].str.strip() != ""]), "")
    raise InputError(
        f"{path}: the column {first!r} is neither a standard one ({', '.join(_COLUMNS)}) nor a label (1, 0, -1 for "
        f"uncertain, blank for not known): it {f'holds {value[:40]!r}' if value else 'is blank'}; to ignore such "
        f"columns, give {_suggest_ignoring(unrecognised)}",
        option="ignore",
    )


def _suggest_ignoring(names: list[str]) -> str:
    return 'ignore="' + " ".join("_".join(name.split()) for name in names) + '"'


def _normalise_values(column: pd.Series) -> pd.Series:
    return column.str.strip().str.casefold()


def _holds_labels(column: pd.Series) -> bool:
    """Whether a column holds only labels: 0, 1, -1, yes or no, true or false, or blank."""
    values = set(_normalise_values(column)) - set(_UNKNOWN)
    return bool(values) and values <= {*_PRESENT, *_ABSENT, *_UNCERTAIN}


def _read_label_list(path: Path, found: list[str], what: str) -> list[str]:
    """Read the order of the labels from the list next to the table, if there is one; else keep it."""
    listed = path.with_name(LABEL_LIST)
    if not listed.is_file():
        return found
    names = [line.strip() for line in read_text(listed).splitlines() if line.strip()]
    keys = {spelling_key(name) for name in names}
    if missing := [name for name in found if spelling_key(name) not in keys]:
        raise InputError(f"{path} {what} {missing[0]!r}, but {LABEL_LIST} next to it does not list it: add it there")
    return names


def _build_label_set(names: list[str], reading: Reading, path: Path) -> LabelSet:
    try:
        if reading.normal is None:
            return LabelSet(tuple(names), find_no_finding(names))
        return LabelSet(tuple(names), LabelSet(tuple(names)).require(reading.normal))
    except InputError as error:
        raise InputError(f"{path}: {error}", option=error.option) from None


def _read_label_texts(
    texts: pd.Series, reading: Reading, path: Path, notes: list[str], errors: list[str]
) -> tuple[LabelSet, pd.DataFrame]:
    """Read label names joined by `|`; the label set is those that occur, in order of first occurrence."""
    is_unknown = _normalise_values(texts).isin(_UNKNOWN)
    spellings: dict[str, list[str]] = {}
    for text in texts[~is_unknown].unique():
        for name in map(str.strip, text.split("|")):
            if not name:
                raise InputError(f"{path}, {name_lines(texts == text)}: an empty label name in {text!r}")
            given = spellings.setdefault(spelling_key(name), [])
            if name not in given:
                given.append(name)
    if not spellings:
        raise InputError(f"{path}: the column labels is blank")
    if set(spellings) <= {*_PRESENT, *_ABSENT, *_UNCERTAIN}:
        raise InputError(
            f"{path}: the column labels holds {', '.join(given[0] for given in spellings.values())} and no names: call "
            "a column of 1 and 0 what it says, as Tuberculosis"
        )
    if several := [given for given in spellings.values() if len(given) > 1]:
        notes.append(
            f"{num_of(len(several), 'label', 'is')} written in more than one way and treated as one (first: "
            f"{' and '.join(map(repr, several[0][:3]))})"
        )
    names = _read_label_list(path, [given[0] for given in spellings.values()], "has the label")
    label_set = _build_label_set(names, reading, path)
    values = parse_label_texts(texts[~is_unknown], label_set, path, errors)
    if is_unknown.any():
        words = ", ".join(map(repr, sorted(set(texts[is_unknown].str.strip())))) or "''"
        hint = "" if label_set.no_finding else f"; for images without findings, write {NO_FINDING_NAMES[0]}"
        notes.append(f"{num_of(int(is_unknown.sum()), 'image', 'has')} no known label ({words}){hint}")
        rest = pd.DataFrame(np.int8(NOT_KNOWN), texts.index[is_unknown], list(label_set))
        values = pd.concat([values, rest]).sort_index()
    return label_set, values


def _read_label_columns(
    entry: pd.DataFrame,
    others: list[str],
    unrecognised: list[str],
    reading: Reading,
    path: Path,
    notes: list[str],
    errors: list[str],
) -> tuple[LabelSet, pd.DataFrame]:
    """Read one column per label, of 1, 0, -1 for uncertain and blank for not known."""
    for name in unrecognised:
        column = _normalise_values(entry[name])
        wrong = ~column.isin([*_PRESENT, *_ABSENT, *_UNCERTAIN, *_UNKNOWN])
        if 0 < wrong.mean() < 0.5:  # a label column with some mistakes
            raise InputError(
                f"{path}, {name_lines(wrong)}: a label column holds 1, 0, -1 for uncertain or blank for not known "
                f"(or yes and no, true and false), but {name} holds {entry[name][wrong].iloc[0]!r}"
            )
    _refuse_unrecognised(unrecognised, entry, path)
    if not others:
        raise InputError(
            f"{path} has no column `labels` (names joined by '|') and no label column of 0 and 1; it has "
            f"{', '.join(entry.columns)}"
        )
    names = _read_label_list(path, others, "has the label column")
    by_key = {spelling_key(name): name for name in others}
    if absent := [name for name in names if spelling_key(name) not in by_key]:
        raise InputError(f"{path} has no column {absent[0]!r}, which {LABEL_LIST} next to it lists")
    label_set = _build_label_set(names, reading, path)
    values = {}
    for label in label_set:
        column = _normalise_values(entry[by_key[spelling_key(label)]])
        values[label] = np.select(
            [column.isin(_PRESENT), column.isin(_ABSENT), column.isin(_UNCERTAIN)],
            [PRESENT, ABSENT, UNCERTAIN],
            NOT_KNOWN,
        ).astype(np.int8)
    values = pd.DataFrame(values, entry.index)
    if label_set.no_finding:
        is_found = (values[list(label_set.findings)] == PRESENT).any(axis=1)
        contradictory = (values[label_set.no_finding] == PRESENT) & is_found
        if contradictory.any():
            errors.append(f"{path}, {name_lines(contradictory)}: {label_set.no_finding} is 1, and so is a finding")
            values = values[~contradictory]
    notes.append(f"{path.name}: {num_of(len(label_set), 'label column')}: {label_set.describe()}")
    return label_set, values


def read_own(
    folder: Path, path: Path, reading: Reading, namespace: str | None, split_rule: str, split_seed: int
) -> Dataset:
    """Read a folder with one CSV; what would invalidate results is in the `errors` of the data set."""
    notes, errors = [], []
    read = read_own_labels(path, reading, notes, errors)
    table = read.table
    namespace = namespace or folder.resolve().name
    listed = count_listed(table, read.labels)
    located = locate_images(table["image_id"], folder, list_folder(folder))
    errors += located.errors
    table["image_id"], table["path"] = located.ids, located.paths
    is_duplicate = table["path"].duplicated() & table["path"].notna()
    if is_duplicate.any():
        errors.append(f"{path}, {name_lines(is_duplicate)}: an image that another line already names")
        table = table[~is_duplicate]
    listed["missing"] = int(table["path"].isna().sum())
    has_split = "split" in table.columns
    if has_split:
        if wrong := sorted(set(table["split"]) - {TRAIN_VAL, TEST}):
            errors.append(
                f"{path}: the column split must hold {TRAIN_VAL} or {TEST}; got {', '.join(map(repr, wrong[:5]))}"
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
    return Dataset(
        folder=folder,
        table=table.reset_index(drop=True),
        boxes=pd.DataFrame(columns=BOX_COLUMNS),
        labels=read.labels,
        kind="table",
        label_file=path.name,
        split_name=split_name,
        list_checksums={},
        is_synthetic=False,
        namespace=namespace,
        listed=listed,
        settings=reading.describe(),
        notes=notes,
        errors=errors,
    )
