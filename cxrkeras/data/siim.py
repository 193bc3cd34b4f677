"""Reads the SIIM-ACR pneumothorax challenge: run-length masks, of which the bounding boxes are kept."""

from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.boxes import frame_boxes
from cxrkeras.data.csv_table import read_csv_table, require_ids
from cxrkeras.data.dataset import BOX_COLUMNS, Dataset, Listing, build_dataset, check_ids
from cxrkeras.data.demographics import parse_demographics
from cxrkeras.data.image_files import list_folder
from cxrkeras.data.reader import Reader, Tables, find_tables
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import ABSENT, PNEUMOTHORAX, PRESENT, LabelSet
from cxrkeras.text import num_of

LABELS = LabelSet((PNEUMOTHORAX,))
FRAME = 1024  # pixels of a mask's side
NO_MASK = "-1"
_COLUMNS = ("ImageId", "EncodedPixels")


def find_siim(folder: Path, tables: Tables) -> list[Path]:
    return find_tables(tables, _COLUMNS)


def read_siim(folder: Path, paths: list[Path], reading: Reading) -> Dataset:
    """Read the masks; an image has a row for each. The table has no patients: each image is its own."""
    path, *others = paths
    if others:
        raise InputError(f"{folder} has two tables of masks: {path.name} and {others[0].name}; keep one")
    notes, errors = [], []
    entry = read_csv_table(path, columns=_COLUMNS)
    ids, masks = require_ids(entry["ImageId"], path), entry["EncodedPixels"].str.strip()
    has_mask = masks != NO_MASK
    by_image = has_mask.groupby(ids, sort=False).agg(["max", "min", "size"])
    if (contradictory := by_image["max"] != by_image["min"]).any():
        errors.append(f"{path}: {by_image.index[contradictory][0]} has a mask and {NO_MASK}, which means none")
    if repeated := int((by_image["size"] > 1).sum()):
        notes.append(f"{num_of(repeated, 'image', 'has')} several rows, read as one image")
    table = pd.DataFrame({"image_id": by_image.index, "patient_id": by_image.index})
    table = table.join(parse_demographics(table.index, notes))
    table[PNEUMOTHORAX] = np.where(by_image["max"], PRESENT, ABSENT).astype(np.int8)
    notes.append(
        "the table names no patients: each image counts as a patient of its own; the images are of NIH, and these "
        "patients may be in NIH's data too"
    )
    corners = [_find_box(text, path, line) for line, text in masks[has_mask].items()]
    boxes = pd.DataFrame(corners, masks.index[has_mask], BOX_COLUMNS[2:]).assign(
        image_id=ids[has_mask], label=PNEUMOTHORAX
    )
    return build_dataset(
        folder,
        Listing(path, check_ids(table, path, notes, errors), LABELS, notes, errors),
        reading,
        kind=KIND,
        namespace=KIND,
        files=list_folder(folder),
        boxes=frame_boxes(boxes.drop_duplicates(), FRAME),
        by_stem=True,
    )


def _find_box(text: str, path: Path, line: int) -> tuple[int, int, int, int]:
    """Find the bounding box of a mask, x, y, width, height in pixels.

    The text has pairs of numbers: pixels skipped since the end of the last run, and the length of a run; pixels are
    counted down the columns, from the left.
    """
    try:
        numbers = np.array(text.split(), np.int64).reshape(-1, 2)
        ends = numbers.sum(axis=1).cumsum()
        starts = ends - numbers[:, 1]
        if not len(numbers) or (numbers < 0).any() or ends[-1] > FRAME**2 or not numbers[:, 1].any():
            raise ValueError
    except ValueError:
        raise InputError(
            f"{path}, line {line}: the mask {text[:40]!r} is not pairs of a distance and a length within "
            f"{FRAME} x {FRAME} pixels, nor {NO_MASK}"
        ) from None
    is_run = numbers[:, 1] > 0
    starts, lasts = starts[is_run], ends[is_run] - 1
    left, right = starts[0] // FRAME, lasts[-1] // FRAME
    is_whole = starts // FRAME != lasts // FRAME  # a run around the end of a column touches both borders
    top = 0 if is_whole.any() else (starts % FRAME).min()
    bottom = FRAME - 1 if is_whole.any() else (lasts % FRAME).max()
    return int(left), int(top), int(right - left + 1), int(bottom - top + 1)


KIND = "siim"
READER = Reader(
    kind=KIND,
    title="SIIM-ACR pneumothorax challenge 2019",
    size="12,047 images of NIH, 2 GB",
    labels="Pneumothorax, with masks by radiologists",
    licence="rules of the challenge: academic research and education",
    access="https://www.kaggle.com/c/siim-acr-pneumothorax-segmentation",
    layout="train-rle.csv (or stage_2_train.csv) and *.dcm in folders of any depth",
    source="Filice et al., Journal of Digital Imaging 33, 2020",
    find=find_siim,
    read=read_siim,
)
