"""Reads a folder of one's own images with one CSV and any labels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.csv_table import name_lines, read_csv_table, read_text
from cxrkeras.data.dataset import TEST, TRAIN_VAL, Dataset, Listing, build_dataset, check_ids, parse_label_texts
from cxrkeras.data.demographics import parse_demographics
from cxrkeras.data.image_files import list_folder
from cxrkeras.data.reading import Reading
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

OWN_KIND = "table"
REQUIRED = ("image", "patient")
LABEL_LIST = "labels.txt"  # the labels in the desired order, one per line
_COLUMNS = (*REQUIRED, "labels", "split", "age", "sex", "view")
_PRESENT, _ABSENT = ("1", "1.0", "yes", "y", "true"), ("0", "0.0", "no", "n", "false")
_UNCERTAIN = ("-1", "-1.0", "uncertain")
_LIKE_LABELS = ("label", "finding", "findings", "findinglabels", "diagnosis", "class")
_UNKNOWN = ("", "nan", "na", "n/a", "unknown", "todo", "?")


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
    table = pd.DataFrame({"image_id": entry["image"].str.strip(), "patient_id": entry["patient"].str.strip()})
    people = parse_demographics(entry.index, notes, age=entry.get("age"), sex=entry.get("sex"), view=entry.get("view"))
    table = table.join(people)
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


def read_own(folder: Path, path: Path, reading: Reading) -> Dataset:
    """Read a folder with one CSV; what would invalidate results is in the `errors` of the data set."""
    notes, errors = [], []
    own = read_own_labels(path, reading, notes, errors)
    table = own.table
    if "split" in table.columns and (wrong := sorted(set(table["split"]) - {TRAIN_VAL, TEST})):
        errors.append(
            f"{path}: the column split must hold {TRAIN_VAL} or {TEST}; got {', '.join(map(repr, wrong[:5]))}"
        )
        table = table[~table["split"].isin(wrong)]
    return build_dataset(
        folder,
        Listing(path, table, own.labels, notes, errors),
        reading,
        kind=OWN_KIND,
        namespace=reading.namespace or folder.resolve().name,
        files=list_folder(folder),
    )
