"""Reads a data set on disk, the NIH release or a user's own, into one table."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras import labels
from cxrkeras.data.folds import TEST_SHARE, cut_test_part
from cxrkeras.errors import InputError
from cxrkeras.runs import PHANTOM_FILE

LABEL_FILES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
TRAIN_VAL_LIST, TEST_LIST, BOX_LIST = "train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"
BOX_FRAME = 1024  # boxes of the release are in pixels of its 1024 x 1024 images, whatever size is on disk
BOX_SPELLING = {"Infiltrate": labels.INFILTRATION}
OFFICIAL_SPLIT = "nih-official"
OFFICIAL_LISTS = {
    TRAIN_VAL_LIST: "61fbe896321c1c1c",
    TEST_LIST: "38ca5ef7f7560929",
}
OLDEST = 120  # years; the release has ages of up to 414
_DAYS_A_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}
_IMAGE_ENDINGS = (".png", ".jpg", ".jpeg")
DETAILS = ["image_id", "patient_id", "split", "age", "sex", "view"]


@dataclass(frozen=True)
class Release:
    """A data set on disk.

    `table` has a row for each image that is on disk: image_id, patient_id (text), split (train_val or test), age
    (years or NaN), sex (F, M or ""), view (PA, AP or ""), path, and a uint8 column for each of the 15 labels.
    `boxes` has image_id, label, x, y, width, height as fractions of the image. `listed` counts the rows of the label
    file and the positives of each label in it, whether or not the images are on disk, and as `missing` those that are
    not. `lists` counts the images of each split list, and of the label file those in neither (empty without lists).
    `notes` are sentences about what was left out or assumed, `errors` about what would make a result wrong.
    """

    folder: Path
    table: pd.DataFrame
    boxes: pd.DataFrame
    label_file: str
    split_name: str
    list_checksums: dict[str, str]
    is_synthetic: bool
    listed: dict[str, int]
    lists: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def fingerprint(self) -> str:
        """SHA-256 over ids, patients, splits, labels and file sizes, 16 hex digits; independent of times and paths."""
        digest = hashlib.sha256()
        table = self.table.sort_values("image_id")
        hot = table[list(labels.LABELS)].to_numpy(np.uint8)
        for row, positive in zip(table.itertuples(), hot, strict=True):
            digest.update(f"{row.image_id}\t{row.patient_id}\t{row.split}\t{_size(row.path)}\t".encode())
            digest.update(positive.tobytes())
        return digest.hexdigest()[:16]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1  # a dead link: it will be among the skipped


def read_release(folder: Path, *, split_seed: int = 0) -> Release:
    """Read the NIH release, whole or in part, or a folder with a CSV of one's own.

    The release is recognised by its label file. One's own CSV has the columns `image` (a path or a file name),
    `patient`, and either a column `labels` (`Effusion|Mass`) or one column of 0 and 1 a label; optional are
    `split` (train_val or test), `age`, `sex` and `view`. Without split lists, a fifth of the patients, drawn by
    `split_seed`, is the test part.

    Raises InputError if there is no such data, or it contradicts itself.
    """
    release = survey_release(folder, split_seed=split_seed)
    if release.errors:
        raise InputError("; ".join(release.errors))
    return release


def survey_release(folder: Path, *, split_seed: int = 0) -> Release:
    """Read like `read_release`, and go on where something would make a result wrong: it stands in `errors`.

    Rows with such a mistake are left out. Raises InputError only if there is nothing to be read.
    """
    if not folder.is_dir():
        raise InputError(f"no data folder {folder}; `make phantom` draws one, or give DATA=<folder of the NIH release>")
    for name in LABEL_FILES:
        if (folder / name).is_file():
            return _read_nih(folder, name, split_seed)
    own = [path for path in sorted(folder.glob("*.csv")) if {"image", "patient"} <= set(_header(path))]
    if len(own) == 1:
        return _read_own(folder, own[0], split_seed)
    if own:
        found = f"found {len(own)} of them: {', '.join(path.name for path in own)}"
    else:
        headers = [f"{path.name} with {', '.join(_header(path)) or 'nothing'}" for path in sorted(folder.glob("*.csv"))]
        found = f"found {'; '.join(headers[:3]) or 'no CSV file'}"
    raise InputError(
        f"{folder} holds neither the NIH label file ({' or '.join(LABEL_FILES)}) nor one CSV with the columns "
        f"image, patient and labels: {found}"
    )


def _header(path: Path) -> list[str]:
    try:
        return list(pd.read_csv(path, nrows=0).columns)
    except (ValueError, OSError):
        return []


def _read_csv(path: Path, **options) -> pd.DataFrame:
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, **options)
    except (ValueError, OSError) as error:
        raise InputError(f"cannot read {path} as a table with commas between its columns: {error}") from error
    if not isinstance(table.index, pd.RangeIndex):
        raise InputError(f"{path} has rows with more fields than its header: quote what has a comma in it")
    return table


def read_labels(path: Path) -> tuple[pd.DataFrame, set[str], list[str]]:
    """The rows of a label file alone, whether or not their images are on disk.

    The NIH release's, or a CSV with the columns image, patient and labels. Columns as in `Release.table`, without split
    and path; then the ids of images whose rows cannot be used, and notes that say why. Raises InputError for a file
    that is neither.
    """
    header, notes, errors = _header(path), [], []
    if not path.is_file():
        raise InputError(
            f"no label file {path}: give the release's {LABEL_FILES[0]} or a CSV of image, patient and labels"
        )
    if {"image", "patient"} <= set(header):
        table, given = _read_own_labels(path, notes, errors)
        ids = given["image"]
    elif "Image Index" in header:
        table, given = _read_nih_labels(path, errors)
        ids = given["Image Index"]
    else:
        raise InputError(
            f"{path} is neither the release's label file (with Image Index and Finding Labels) nor a CSV with image, "
            f"patient and labels; it has {', '.join(header[:8]) or 'nothing'}"
        )
    return table, set(ids.str.strip()) - set(table["image_id"]), [*notes, *errors]


def _read_nih_labels(path: Path, errors: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that can be used, and all as they stand in the file."""
    # Two of the header's names contain a comma and the older file ends its lines with one, so that only the first
    # seven columns are where the header says.
    entry = _read_csv(path, index_col=False, usecols=range(7))
    entry.columns = ["Patient Sex" if name == "Patient Gender" else name for name in entry.columns]
    wanted = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Sex", "View Position"]
    if missing := [name for name in wanted if name not in entry.columns]:
        raise InputError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(entry.columns)}")
    table = pd.DataFrame(
        {
            "image_id": entry["Image Index"].str.strip(),
            "patient_id": entry["Patient ID"].str.strip(),
            "age": parse_ages(entry["Patient Age"]),
            "sex": entry["Patient Sex"].where(entry["Patient Sex"].isin(["F", "M"]), ""),
            "view": entry["View Position"].where(entry["View Position"].isin(["PA", "AP"]), ""),
        }
    )
    table = table.join(_hot_table(entry["Finding Labels"], path, errors), how="inner")
    table = _check_ids(table, path, errors)
    return table, entry


def _read_nih(folder: Path, label_file: str, split_seed: int) -> Release:
    notes, errors = [], []
    table, given = _read_nih_labels(folder / label_file, errors)
    listed = _count_listed(table)
    roots = [folder / "images", *sorted(folder.glob("images_*/images")), *sorted(folder.glob("images_*"))]
    paths = _list_images(roots)
    table["path"] = table["image_id"].map(paths)
    listed["missing"] = int(table["path"].isna().sum())
    if unknown := len(set(paths) - set(table["image_id"])):
        notes.append(f"{unknown:,} images have no row in {label_file} and are left out")

    for name in (TRAIN_VAL_LIST, TEST_LIST, BOX_LIST):
        if (folder / name).exists() and not (folder / name).is_file():
            errors.append(f"{folder / name} is no file")
    has_lists = (folder / TRAIN_VAL_LIST).is_file()
    if has_lists != (folder / TEST_LIST).is_file():
        there, gone = (TRAIN_VAL_LIST, TEST_LIST) if has_lists else (TEST_LIST, TRAIN_VAL_LIST)
        errors.append(f"{folder} has {there} and no {gone}: bring both, or neither for a cut of our own")
        has_lists = False
    is_synthetic = (folder / PHANTOM_FILE).is_file()
    checksums, lists = {}, {}
    if has_lists:
        ids = {name: _read_list(folder / name) for name in (TRAIN_VAL_LIST, TEST_LIST)}
        checksums = {name: digest_lines(names) for name, names in ids.items()}
        train_val, test = (set(names) for names in ids.values())
        if both := train_val & test:
            errors.append(f"{len(both)} images are in both {TRAIN_VAL_LIST} and {TEST_LIST} (first: {min(both)})")
        if without_row := len((train_val | test) - set(given["Image Index"])):
            notes.append(f"{without_row:,} images of the split lists have no row in {label_file}")
        table["split"] = np.select(
            [table["image_id"].isin(train_val), table["image_id"].isin(test)], ["train_val", "test"], ""
        )
        in_neither = table["split"] == ""
        lists = {TRAIN_VAL_LIST: len(train_val), TEST_LIST: len(test), "in_neither": int(in_neither.sum())}
        if lists["in_neither"]:
            notes.append(f"{lists['in_neither']:,} images are in neither split list and are left out")
        _check_patients(table[~in_neither], folder, errors)  # of all rows, whether or not their images are on disk
        table = _drop_missing(table[~in_neither], notes, f"{folder}/images or {folder}/images_*/images")
        is_official = checksums == OFFICIAL_LISTS
        split_name = OFFICIAL_SPLIT if is_official else f"custom-{digest_lines(sorted(checksums.values()))[:8]}"
    else:
        table = _drop_missing(table, notes, f"{folder}/images or {folder}/images_*/images")
        table["split"], split_name = _cut(table, split_seed, notes)
    _check_parts(table, folder, errors)
    return Release(
        folder=folder,
        table=table.reset_index(drop=True),
        boxes=_read_boxes(folder / BOX_LIST, set(table["image_id"]), notes, errors),
        label_file=label_file,
        split_name=split_name,
        list_checksums=checksums,
        is_synthetic=is_synthetic,
        listed=listed,
        lists=lists,
        notes=notes,
        errors=errors,
    )


def _read_own_labels(path: Path, notes: list[str], errors: list[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows that can be used, and all as they stand in the file."""
    entry = _read_csv(path)
    if "labels" in entry.columns:
        hot = _hot_table(entry["labels"], path, errors)
    else:
        given = [label for label in labels.LABELS if label in entry.columns]
        if not given:
            raise InputError(f"{path} has no column `labels` and none named as a label: {', '.join(labels.LABELS)}")
        wrong = [label for label in given if not entry[label].isin(["0", "1", "0.0", "1.0"]).all()]
        if wrong:
            raise InputError(f"{path}: the label columns hold 0 or 1; other values are in {', '.join(wrong)}")
        hot = pd.DataFrame(0, entry.index, list(labels.LABELS), np.uint8)
        for label in given:
            hot[label] = entry[label].astype(float).astype(np.uint8)
        contradictory = (hot[labels.NO_FINDING] == 1) & hot[list(labels.FINDINGS)].any(axis=1)
        if contradictory.any():
            errors.append(f"{path}, {_lines(contradictory)}: {labels.NO_FINDING} is 1 and so is a finding")
            hot = hot[~contradictory]
        if absent := [label for label in labels.FINDINGS if label not in given]:
            notes.append(
                f"{path.name} has no column for {', '.join(absent)}: "
                "taken as absent everywhere, their scores say nothing"
            )
        if labels.NO_FINDING not in given:
            notes.append(f"{path.name} has no column for {labels.NO_FINDING}: taken as true where no finding is")
            hot[labels.NO_FINDING] = (hot.sum(axis=1) == 0).astype(np.uint8)
    blank = pd.Series("", entry.index)
    table = pd.DataFrame(
        {
            "image_id": entry["image"].str.strip(),
            "patient_id": entry["patient"].str.strip(),
            "age": parse_ages(entry.get("age", blank)),
            "sex": entry.get("sex", blank),
            "view": entry.get("view", blank),
        }
    )
    if "split" in entry.columns:
        table["split"] = entry["split"]
    table = _check_ids(table.join(hot, how="inner"), path, errors)
    return table, entry


def _read_own(folder: Path, path: Path, split_seed: int) -> Release:
    notes, errors = [], []
    table, entry = _read_own_labels(path, notes, errors)
    listed = _count_listed(table)
    by_name = _list_images([folder, *sorted(child for child in folder.rglob("*") if child.is_dir())])
    table["path"] = [
        os.path.normpath(folder / image) if os.path.isfile(folder / image) else by_name.get(image)
        for image in table["image_id"]
    ]
    is_again = table["path"].duplicated() & table["path"].notna()
    if is_again.any():
        errors.append(f"{path}, {_lines(is_again)}: an image that another line names already")
        table = table[~is_again]
    listed["missing"] = int(table["path"].isna().sum())
    if "split" in entry.columns:
        if wrong := sorted(set(table["split"]) - {"train_val", "test"}):
            errors.append(f"{path}: the column split holds train_val or test; got {', '.join(map(repr, wrong[:5]))}")
            table = table[~table["split"].isin(wrong)]
        _check_patients(table, path, errors)
    table = _drop_missing(table, notes, folder)
    if "split" in entry.columns:
        cut = sorted(f"{image} {split}" for image, split in zip(table["image_id"], table["split"], strict=True))
        split_name = f"custom-{digest_lines(cut)[:8]}"
    else:
        table["split"], split_name = _cut(table, split_seed, notes)
    _check_parts(table, path, errors)
    return Release(
        folder=folder,
        table=table.reset_index(drop=True),
        boxes=pd.DataFrame(columns=["image_id", "label", "x", "y", "width", "height"]),
        label_file=path.name,
        split_name=split_name,
        list_checksums={},
        is_synthetic=False,
        listed=listed,
        notes=notes,
        errors=errors,
    )


def parse_ages(texts: pd.Series) -> pd.Series:
    """Ages in years from `58`, `058Y`, `011M`, `006W` or `001D`; NaN for anything else and over 120."""
    parts = texts.str.strip().str.extract(r"^(\d+(?:\.\d+)?)([YMWD]?)$")
    years = parts[0].astype(float) / parts[1].map(_DAYS_A_YEAR).fillna(1.0)
    return years.where(years <= OLDEST)


def _read_list(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text("utf-8-sig").splitlines() if line.strip()]
    except (ValueError, OSError) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _hot_table(texts: pd.Series, path: Path, errors: list[str]) -> pd.DataFrame:
    """The 15 label columns of the rows whose text can be read."""
    distinct = {}
    for text in texts.unique():
        try:
            distinct[text] = labels.parse_labels(text)
        except InputError as error:
            errors.append(f"{path}, {_lines(texts == text)}: {error}")
    texts = texts[texts.isin(list(distinct))]
    hot = np.array([distinct[text] for text in texts], np.uint8).reshape(-1, len(labels.LABELS))
    return pd.DataFrame(hot, texts.index, list(labels.LABELS))


def _lines(is_wrong: pd.Series) -> str:
    """Lines of a CSV file, for a message; the index of a table read from it counts from its second line."""
    numbers = is_wrong.index[is_wrong] + 2
    return f"line {numbers[0]}" + (f" and {len(numbers) - 1:,} more" if len(numbers) > 1 else "")


def _count_listed(table: pd.DataFrame) -> dict[str, int]:
    return {"rows": len(table), **{label: int(table[label].sum()) for label in labels.LABELS}}


def _check_ids(table: pd.DataFrame, path: Path, errors: list[str]) -> pd.DataFrame:
    """The rows with an image and a patient, each image once."""
    for column in ("image_id", "patient_id"):
        blank = table[column].str.strip() == ""
        if blank.any():
            errors.append(f"{path}, {_lines(blank)}: no {column.replace('_id', '')}")
            table = table[~blank]
    is_again = table["image_id"].duplicated()
    if is_again.any():
        first = table["image_id"][is_again].iloc[0]
        errors.append(f"{path} lists {int(is_again.sum())} images more than once (first: {first})")
        table = table[~is_again]
    if not len(table):
        raise InputError("; ".join(errors) or f"{path} has a header and no rows")
    return table


def _check_patients(table: pd.DataFrame, source: Path, errors: list[str]) -> None:
    shared = table.groupby("patient_id")["split"].nunique()
    if (shared > 1).any():
        errors.append(
            f"{source}: {int((shared > 1).sum())} patients are in both the training and the test part "
            f"(first: {shared.index[shared > 1][0]}); all images of a patient belong in one of them"
        )


def _check_parts(table: pd.DataFrame, source: Path, errors: list[str]) -> None:
    for split in ("train_val", "test"):
        if not (table["split"] == split).any():
            errors.append(f"{source}: no image on disk belongs to the {split} part")


def _list_images(folders: Iterable[Path]) -> dict[str, str]:
    found = {}
    for folder in folders:
        if folder.is_dir():
            for entry in os.scandir(folder):
                if entry.name.lower().endswith(_IMAGE_ENDINGS):
                    found.setdefault(entry.name, entry.path)
    return found


def _drop_missing(table: pd.DataFrame, notes: list[str], place: Path | str) -> pd.DataFrame:
    missing = table["path"].isna()
    if missing.all():
        raise InputError(f"none of the {len(table):,} listed images is on disk; looked in {place}")
    if missing.any():
        first = ", ".join(table["image_id"][missing].head(3))
        notes.append(f"{int(missing.sum()):,} of {len(table):,} listed images are not on disk (first: {first})")
    return table[~missing].copy()


def _cut(table: pd.DataFrame, seed: int, notes: list[str]) -> tuple[np.ndarray, str]:
    share = round(100 * TEST_SHARE)
    notes.append(f"no split lists: {share} % of the patients, drawn with seed {seed}, are the test part")
    is_test = cut_test_part(table["patient_id"].to_numpy(), seed)
    return np.where(is_test, "test", "train_val"), f"grouped-{share}-{seed}"


def digest_lines(lines: Iterable[str]) -> str:
    """SHA-256 of the sorted lines, 16 hex digits: the same for any order and line ending."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()[:16]


def _read_boxes(path: Path, image_ids: set[str], notes: list[str], errors: list[str]) -> pd.DataFrame:
    columns = ["image_id", "label", "x", "y", "width", "height"]
    if not path.is_file():
        return pd.DataFrame(columns=columns)
    # The header has three nameless columns and a comma inside a name: only the position counts.
    boxes = _read_csv(path, header=None, skiprows=1, usecols=range(6), names=columns, index_col=False)
    boxes["label"] = boxes["label"].replace(BOX_SPELLING)
    if unknown := sorted(set(boxes["label"]) - set(labels.FINDINGS)):
        errors.append(f"{path}: unknown finding {unknown[0]!r}")
        boxes = boxes[~boxes["label"].isin(unknown)]
    sides = boxes[columns[2:]].apply(pd.to_numeric, errors="coerce").astype(float) / BOX_FRAME
    wrong = ~np.isfinite(sides).all(axis=1) | (sides[["width", "height"]] <= 0).any(axis=1)
    if wrong.any():
        notes.append(f"{int(wrong.sum())} boxes of {path.name} have no area and are left out")
    boxes[columns[2:]] = sides
    return boxes[~wrong & boxes["image_id"].isin(image_ids)].reset_index(drop=True)
