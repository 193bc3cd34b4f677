"""Reads VinDr-CXR: boxes and labels by several readers of each image, as on PhysioNet or in the Kaggle challenge."""

from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.boxes import CORNERS, merge_boxes, scale_to_files
from cxrkeras.data.csv_table import name_lines, parse_numbers, read_csv_table, require_ids
from cxrkeras.data.dataset import TEST, TRAIN_VAL, Dataset, Listing, build_dataset, check_ids
from cxrkeras.data.image_files import list_folder, locate_by_stem
from cxrkeras.data.reader import Reader, Tables, find_tables
from cxrkeras.data.reading import MAJORITY, Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import ABSENT, PRESENT, LabelSet

NO_FINDING = "No finding"
_BOXES = ("image_id", "class_name", "x_min", "y_min", "x_max", "y_max")
_GLOBAL = ("image_id", NO_FINDING, "Pneumonia", "Tuberculosis")
_NUM_READERS = " readers"  # no label begins with a space
_SPELLING = {"Other disease": "Other diseases"}  # the two tables of the release differ


def find_vindr(folder: Path, tables: Tables) -> list[Path]:
    return [*find_tables(tables, _GLOBAL), *find_tables(tables, _BOXES)]


def read_vindr(folder: Path, paths: list[Path], reading: Reading) -> Dataset:
    """Read the tables of labels by reader, if present, and of boxes. The set has no patients: each image is its own."""
    notes, errors = [], []
    rule = reading.readers or MAJORITY
    paths = sorted(paths, key=lambda path: "test" in path.name)
    label_paths = [path for path in paths if path.name.startswith("image_labels")]
    box_paths = [path for path in paths if path not in label_paths]
    entries = {path: _read_boxes(path) for path in box_paths}
    used = label_paths or box_paths
    votes = [_read_votes(path) if label_paths else _count_votes(entries[path]) for path in used]
    label_set = _list_labels(votes)
    tables = [_decide(of_table, label_set, rule, TEST if "test" in path.name else TRAIN_VAL)
              for of_table, path in zip(votes, used, strict=True)]  # fmt: skip
    table = pd.concat(tables, ignore_index=True).assign(age=np.nan, sex="", view="PA")
    has_split = table["split"].nunique() == 2
    table = check_ids(table if has_split else table.drop(columns="split"), used[0], notes, errors)
    notes.append("VinDr-CXR names no patients: each image counts as a patient of its own")
    notes.append("all images are PA, as the publication says; age and sex are not given")
    notes.append(f"a label is present if {'most' if rule == MAJORITY else 'any'} of the readers of an image say so")
    files = list_folder(folder)
    located = locate_by_stem(table["image_id"], files)
    boxes = pd.concat([_merge(entry, rule) for entry in entries.values()]) if entries else None
    if boxes is not None:
        boxes = scale_to_files(boxes, dict(zip(located.ids, located.paths, strict=True)), notes)
    errors += located.errors
    return build_dataset(
        folder,
        Listing(used[0], table.assign(path=located.paths), label_set, notes, errors),
        reading,
        kind=KIND,
        namespace=KIND,
        files=files,
        boxes=boxes,
        split_name="vindr-official" if has_split else "",
        settings={"readers": rule},
    )


def _list_labels(votes: list[pd.DataFrame]) -> LabelSet:
    names = dict.fromkeys(name for table in votes for name in table.columns if name not in (_NUM_READERS, NO_FINDING))
    return LabelSet((*names, NO_FINDING), NO_FINDING)


def _read_votes(path: Path) -> pd.DataFrame:
    """Read the number of readers of each image, and how many of them give it each label, by image id."""
    entry = read_csv_table(path).rename(columns=_SPELLING)
    ids, readers = require_ids(entry["image_id"], path), entry.get("rad_id", pd.Series("", entry.index)).str.strip()
    if (again := pd.DataFrame({"image": ids, "reader": readers}).duplicated()).any():
        raise InputError(f"{path}, {name_lines(again)}: the same reader labels {ids[again].iloc[0]} twice")
    labels = [name for name in entry.columns if name not in ("image_id", "rad_id")]
    values = entry[labels].apply(pd.to_numeric, errors="coerce")
    wrong = ~values.isin((0, 1)).all(axis=1)
    if wrong.any():
        raise InputError(f"{path}, {name_lines(wrong)}: a label must be 0 or 1")
    by_image = values.groupby(ids, sort=False)
    return by_image.sum().assign(**{_NUM_READERS: by_image.size()})


def _read_boxes(path: Path) -> pd.DataFrame:
    """Read the boxes: image_id, label, reader, and x_min, y_min, x_max, y_max in pixels, NaN for labels without one."""
    entry = read_csv_table(path)
    table = pd.DataFrame(
        {
            "image_id": require_ids(entry["image_id"], path),
            "label": entry["class_name"].str.strip().replace(_SPELLING),
            "reader": entry["rad_id"].str.strip() if "rad_id" in entry.columns else "",
        }
    )
    return table.join(parse_numbers(entry, CORNERS, path, is_blank_allowed=True))


def _count_votes(boxes: pd.DataFrame) -> pd.DataFrame:
    """Count, as `_read_votes`, who gives an image a label; every reader of an image has at least one row."""
    given = boxes[["image_id", "label", "reader"]].drop_duplicates()
    votes = pd.crosstab(given["image_id"], given["label"])
    votes = votes[[name for name in boxes["label"].unique() if name in votes.columns]]
    return votes.assign(**{_NUM_READERS: boxes.groupby("image_id")["reader"].nunique()})


def _decide(votes: pd.DataFrame, label_set: LabelSet, rule: str, split: str) -> pd.DataFrame:
    """Decide the labels of each image, by most of its readers or any; nothing is found if any, or all, say so."""
    num_readers = votes[_NUM_READERS].to_numpy()[:, None]
    counts = votes.reindex(columns=list(label_set), fill_value=0).to_numpy()
    is_present = 2 * counts > num_readers if rule == MAJORITY else counts > 0
    if rule != MAJORITY:
        is_present[:, label_set.index(NO_FINDING)] = (counts == num_readers)[:, label_set.index(NO_FINDING)]
    values = pd.DataFrame(np.where(is_present, PRESENT, ABSENT).astype(np.int8), columns=list(label_set))
    values.insert(0, "image_id", votes.index)
    values.insert(1, "patient_id", votes.index)
    return values.assign(split=split)


def _merge(entry: pd.DataFrame, rule: str) -> pd.DataFrame:
    """Merge the boxes that readers of an image draw around the same thing; with majority those of most readers."""
    num_readers = entry.groupby("image_id")["reader"].nunique()
    merged = merge_boxes(entry[entry["x_min"].notna()])
    needed = num_readers[merged["image_id"]].to_numpy() / 2 if rule == MAJORITY else 0
    return merged[merged["num_readers"] > needed]


KIND = "vindr"
READER = Reader(
    kind=KIND,
    title="VinDr-CXR",
    size="18,000 images (15,000 train, 3,000 test), 200 GB",
    labels="28 (22 local with boxes, 6 global; 14 and boxes in the Kaggle challenge), by three readers of an image; "
    "those of the test set by consensus",
    licence="PhysioNet Credentialed Health Data License 1.5.0; Kaggle: rules of the challenge",
    access="a course and an agreement, then https://physionet.org/content/vindr-cxr, or the VinBigData challenge on "
    "Kaggle",
    layout="annotations/image_labels_train.csv, image_labels_test.csv, annotations_train.csv, annotations_test.csv, "
    "train/*.dicom, test/*.dicom; of the challenge train.csv, train/*.dicom",
    source="Nguyen et al., Scientific Data 9, 2022",
    takes=("readers",),
    find=find_vindr,
    read=read_vindr,
)
