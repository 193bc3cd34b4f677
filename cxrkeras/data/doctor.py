"""Examines a data folder: what it contains, what is unusual, and what would invalidate results."""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.dataset import TEST, Dataset, count_values
from cxrkeras.data.images import decode_image, open_image, read_header
from cxrkeras.data.nih_tables import LABEL_COUNTS, LABEL_FILES, NIH_KIND, OFFICIAL_SPLIT
from cxrkeras.data.readers import READERS, choose_reader, survey_dataset
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet
from cxrkeras.progress import SILENT, Progress
from cxrkeras.text import num_of

RELEASE_IMAGES = 112_120
RELEASE_PIXELS = (1024, 1024)
NEARLY_BLANK = 3.0  # standard deviation (SD) of the grey levels
IMPLICATION = "The two label files differ on 181 images: compare only results based on the same file."


def examine_folders(
    folders: Sequence[Path],
    reading: Reading | None = None,
    *,
    is_opening: bool = False,
    progress: Progress = SILENT,
) -> list[dict]:
    """Examine data folders, each as by `examine_folder`, with the settings of `reading` that its data set takes."""
    if len(folders) == 1:
        return [examine_folder(folders[0], reading, is_opening=is_opening, progress=progress)]
    reading, found = reading or Reading(), []
    for folder in folders:
        kept = reading
        try:
            reader, _ = choose_reader(folder, reading.kind, is_shared=True)
            kept = replace(reading.keep(reader.takes), kind=reader.kind)
        except InputError:
            pass  # reported below
        found.append(examine_folder(folder, kept, is_opening=is_opening, progress=progress))
    return found


def examine_folder(
    folder: Path, reading: Reading | None = None, *, is_opening: bool = False, progress: Progress = SILENT
) -> dict:
    """Examine a data folder.

    With `is_opening` every image is decoded, to find unusual ones and duplicates. Returns plain JSON values:
    `errors`, sentences about what would invalidate results; `notes`, sentences about anything else worth knowing; and,
    unless the tables cannot be read at all, `label_file`, `labels`, `images`, `patients`, `ages`, `sexes`, `views`,
    `splits`, `lists`, `boxes` and `odd_images`.
    """
    try:
        dataset = survey_dataset(folder, reading)
    except InputError as error:
        return {"folder": str(folder), "errors": [str(error)], "notes": []}
    found = _describe_dataset(dataset)
    found["odd_images"] = _find_odd_images(dataset, progress) if is_opening else None
    _judge(found, dataset)
    return found


def _describe_dataset(dataset: Dataset) -> dict:
    table = dataset.table
    per_patient = table.groupby("patient_id").size()
    return {
        "folder": str(dataset.folder),
        "errors": list(dataset.errors),
        "notes": list(dataset.notes),
        "is_synthetic": dataset.is_synthetic,
        "label_file": {
            "name": dataset.label_file,
            "is_release": dataset.label_file in LABEL_FILES,
            "version": _label_version(dataset),
        },
        "images": {
            "listed": dataset.listed["rows"],
            "found": len(table),
            "missing": dataset.listed["missing"],
        },
        "patients": {
            "count": len(per_patient),
            "images_per_patient": {"median": float(per_patient.median()), "largest": int(per_patient.max())},
        },
        "ages": {
            "youngest": _number(table["age"].min()),
            "median": _number(table["age"].median()),
            "oldest": _number(table["age"].max()),
            "blank": int(table["age"].isna().sum()),
        },
        "sexes": _counts(table["sex"]),
        "views": _counts(table["view"]),
        "split_name": dataset.split_name,
        "lists": dataset.lists,
        "labels": list(dataset.labels),
        "no_finding": dataset.labels.no_finding,
        "splits": {name: _describe_split(rows, dataset.labels) for name, rows in table.groupby("split")},
        "boxes": _counts(dataset.boxes["label"]),
    }


def _judge(found: dict, dataset: Dataset) -> None:
    """Add errors and notes about the figures."""
    notes, errors = found["notes"], found["errors"]
    version = found["label_file"]["version"]
    if dataset.kind == NIH_KIND:
        notes.append(f"the label file is {version}. {IMPLICATION}")
    if dataset.split_name == OFFICIAL_SPLIT and dataset.listed["rows"] < RELEASE_IMAGES:
        errors.append(
            f"{dataset.label_file} is truncated: it has {num_of(dataset.listed['rows'], 'row')}, and the official "
            f"lists name {num_of(RELEASE_IMAGES, 'image')}"
        )
    if not dataset.errors:
        notes.append("no patient is in both splits")
    if dataset.lists and not dataset.lists["in_neither"]:
        notes.append("the split lists are complete: every row of the label file is in one of them")
    if found["odd_images"]:
        pairs = found["odd_images"]["shared_pictures"]
        if pairs:
            shown = "; ".join(f"{first} and {second}" for first, second in pairs[:3])
            errors.append(
                "identical images under two patients, one in the training and one in the test set: "
                f"{num_of(len(pairs), 'pair')} (first: {shown}); a network would be tested on images it was trained "
                "on. `cxrkeras records --duplicates drop` leaves them out"
            )
    if found["odd_images"] and found["odd_images"]["unreadable"]:
        notes.append(
            f"{num_of(len(found['odd_images']['unreadable']), 'image')} cannot be read: the records will skip them"
        )


def _label_version(dataset: Dataset) -> str:
    if dataset.is_synthetic:
        return "synthetic phantoms"
    if dataset.label_file not in LABEL_FILES:
        return next(reader.title for reader in READERS if reader.kind == dataset.kind)
    for version, counts in LABEL_COUNTS.items():
        if all(dataset.listed[label] == count for label, count in counts.items()):
            return version
    return "neither version of the whole release, by its counts"


def _describe_split(rows: pd.DataFrame, label_set: LabelSet) -> dict:
    counts = count_values(rows, label_set)
    known = counts["present"] + counts["absent"]
    shares = {label: present / total if total else None for label, present, total in
              zip(label_set, counts["present"].tolist(), known.tolist(), strict=True)}  # fmt: skip
    return {
        "images": len(rows),
        "patients": int(rows["patient_id"].nunique()),
        "prevalence": shares,  # among the images whose label is known
        "uncertain": {label: int(count) for label, count in counts["uncertain"].items() if count},
        "unknown": {label: int(count) for label, count in counts["unknown"].items() if count},
        "views": _counts(rows["view"]),
    }


def _counts(column: pd.Series) -> dict[str, int]:
    return {str(value) or "unknown": int(count) for value, count in column.value_counts().items()}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 2)


def _find_odd_images(dataset: Dataset, progress: Progress) -> dict:
    """Decode every image and list those unlike the release, as image ids by kind; other sizes by size.

    `duplicates` are groups of images with equal pixels; `shared_pictures` are pairs of them, constant images excepted,
    that belong to two patients on two sides of the split.
    """
    table = dataset.table
    expected_size = RELEASE_PIXELS if dataset.label_file in LABEL_FILES else None
    odd = {kind: [] for kind in ("colour", "four_channels", "more_than_8_bits", "nearly_blank")}
    other_sizes, unreadable, by_content, constant = {}, {}, {}, set()
    rows = table[["image_id", "patient_id", "split"]].itertuples()
    advance = progress.start("opening images", len(table))
    with ThreadPoolExecutor() as pool:
        for row, found in zip(rows, pool.map(_examine_image, table["path"], chunksize=1), strict=True):
            if isinstance(found, str):
                unreadable[row.image_id] = found
            else:
                for kind in found["kinds"]:
                    odd[kind].append(row.image_id)
                if found["size"] != expected_size:
                    other_sizes.setdefault("{} x {}".format(*found["size"]), []).append(row.image_id)
                by_content.setdefault(found["digest"], []).append(row)
                if found["is_constant"]:
                    constant.add(found["digest"])
            advance()
    groups = {digest: rows for digest, rows in by_content.items() if len(rows) > 1}
    shared = [
        (train.image_id, test.image_id)
        for digest, rows in groups.items()
        if digest not in constant
        for train in rows
        for test in rows
        if train.split != TEST and test.split == TEST and train.patient_id != test.patient_id
    ]
    return {
        **odd,
        "other_sizes": other_sizes,
        "duplicates": [[row.image_id for row in rows] for rows in groups.values()],
        "shared_pictures": shared,
        "unreadable": unreadable,
    }


def _examine_image(path: str) -> dict | str:
    try:
        with open_image(Path(path)) as content:
            header, grey = read_header(content), decode_image(content)
    except InputError as error:
        return str(error)
    except OSError as error:
        return f"cannot be opened: {error.strerror}"
    kinds = {
        "colour": header.mode in ("RGB", "P", "CMYK"),
        "four_channels": header.mode in ("RGBA", "CMYK"),
        "more_than_8_bits": header.bits > 8,
        "nearly_blank": float(grey.std()) < NEARLY_BLANK,
    }
    size = (header.width, header.height)
    digest = hashlib.sha256(repr(size).encode() + grey.tobytes()).hexdigest()
    return {
        "kinds": [kind for kind, applies in kinds.items() if applies],
        "size": size,
        "digest": digest,
        "is_constant": bool(grey.min() == grey.max()),
    }
