"""Reads CheXpert, small or full: train.csv, valid.csv and the labels of the test set."""

import re
from pathlib import Path

import pandas as pd

from cxrkeras.data.chexpert_labels import CHEXPERT, parse_chexpert_labels, read_blanks
from cxrkeras.data.csv_table import TABLE_ENDINGS, name_lines, read_csv_table, read_header
from cxrkeras.data.dataset import TEST, TRAIN_VAL, Dataset, Listing, build_dataset, check_ids
from cxrkeras.data.demographics import parse_demographics
from cxrkeras.data.image_files import ImageFiles, list_folder, locate_images
from cxrkeras.data.reader import Reader, Tables, find_tables
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.text import num_of

_TRAIN, _VALID, _TEST = ("train", "chexpert_train"), ("valid", "val_labels"), ("test", "test_labels")
_PLACE = re.compile(r"(?P<image>(?P<patient>patient\d+)/study\d+/view\d+_(?P<side>[a-z]*)[^/]*)$")


def find_chexpert(folder: Path, tables: Tables) -> list[Path]:
    found = find_tables(tables, ("Path", *CHEXPERT.names))
    return [path for path in found if _stem(path) in (*_TRAIN, *_VALID, *_TEST)]


def _is_named_as_one(path: Path) -> bool:
    return path.name.lower().endswith(TABLE_ENDINGS) and _stem(path) in (*_TRAIN, *_VALID, *_TEST)


def _stem(path: Path) -> str:
    return path.name.partition(".")[0].lower()


def read_chexpert(folder: Path, paths: list[Path], reading: Reading) -> Dataset:
    """Read the tables; the test set is that of the release, else its validation set, else chosen by patient."""
    notes, errors = [], []
    files = list_folder(folder)
    for path in dict.fromkeys(path.parent for path in paths):
        for other in sorted(path.iterdir()):
            if _is_named_as_one(other) and other not in paths:
                columns = ", ".join(read_header(other)[:6]) or "none"
                raise InputError(
                    f"{other} is not a table of CheXpert, although it is named as one: expected the columns Path and "
                    f"{CHEXPERT.describe(3)}; its columns are {columns}"
                )
    by_set = {name: [path for path in paths if _stem(path) in stems] for name, stems in
              {"train": _TRAIN, "valid": _VALID, "test": _TEST}.items()}  # fmt: skip
    for name, of_set in by_set.items():
        if len(of_set) > 1:
            raise InputError(f"{folder} has two label files of the {name} set: {' and '.join(map(str, of_set))}")
    held_out = next((name for name in ("test", "valid") if by_set[name]), None)
    parts = []
    for name, of_set in by_set.items():
        for path in of_set:
            table = _read_table(path, files, notes, errors)
            if held_out and (held_out != "train") and by_set["train"]:
                table["split"] = TEST if name == held_out else TRAIN_VAL
            parts.append(table)
            notes.append(f"{path.name}: {num_of(len(table), 'row')}")
    table = pd.concat(parts, ignore_index=True)
    values, settings = read_blanks(table[list(CHEXPERT)], reading, notes)
    table[list(CHEXPERT)] = values
    path = (by_set["train"] + paths)[0]
    return build_dataset(
        folder,
        Listing(path, check_ids(table, path, notes, errors), CHEXPERT, notes, errors),
        reading,
        kind=KIND,
        namespace=KIND,
        files=files,
        split_name=f"chexpert-{held_out}" if "split" in table.columns else "",
        settings=settings,
    )


def _read_table(path: Path, files: ImageFiles, notes: list[str], errors: list[str]) -> pd.DataFrame:
    entry = read_csv_table(path)
    if missing := [name for name in ("Path", *CHEXPERT) if name not in entry.columns]:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}")
    given = entry["Path"].str.strip().str.replace("\\", "/", regex=False)
    # The ids do not depend on the folder that the table names, which differs between the small and the full release.
    ids = given.str.extract(_PLACE)
    if (unnamed := ids["image"].isna()).any():
        errors.append(
            f"{path}, {name_lines(unnamed)}: the path {given[unnamed].iloc[0]!r} does not end in "
            "patient<number>/study<number>/view<number>_<view>.<ending>"
        )
        entry, given, ids = entry[~unnamed], given[~unnamed], ids[~unnamed]
    people = parse_demographics(
        entry.index, notes, age=entry.get("Age"), sex=entry.get("Sex"), view=_read_views(entry, ids, path, notes)
    )
    table = pd.DataFrame({"image_id": ids["image"], "patient_id": ids["patient"]})
    table["path"] = locate_images(given, files).paths
    return table.join(people).join(parse_chexpert_labels(entry, path))


def _read_views(entry: pd.DataFrame, ids: pd.DataFrame, path: Path, notes: list[str]) -> pd.Series:
    """Read the view of each image; the table of the test set has no columns for it, and the file names say it."""
    side = entry["Frontal/Lateral"] if "Frontal/Lateral" in entry.columns else ids["side"]
    direction = entry["AP/PA"] if "AP/PA" in entry.columns else pd.Series("", entry.index)
    is_lateral = side.isin(("Lateral", "lateral"))
    if (odd := ~is_lateral & direction.isin(("LL", "RL"))).any():
        notes.append(f"{num_of(int(odd.sum()), 'frontal image')} of {path.name} with AP/PA = LL or RL read as lateral")
    return direction.where((direction != "") & ~is_lateral, side)


KIND = "chexpert"
READER = Reader(
    kind=KIND,
    title="CheXpert",
    size="224,316 images of 65,240 patients; small 11 GB, full 471 GB",
    labels="14, extracted from reports: 1, 0, -1 for uncertain, blank for unmentioned",
    licence="Stanford University Dataset Research Use Agreement",
    access="sign the agreement at https://stanfordaimi.azurewebsites.net (search for CheXpert)",
    layout="train.csv, valid.csv and, if present, test_labels.csv, next to the folders of images that they name",
    source="Irvin et al., AAAI 2019",
    takes=("blank",),
    find=find_chexpert,
    read=read_chexpert,
)
