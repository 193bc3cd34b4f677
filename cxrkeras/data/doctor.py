"""Examines a data folder: what it is, what is odd about it, and what would make a result wrong."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras import labels
from cxrkeras.data.dataset import TEST, Release
from cxrkeras.data.images import decode_image, open_image, read_header
from cxrkeras.data.nih_tables import LABEL_FILES, OFFICIAL_SPLIT
from cxrkeras.data.release import survey_release
from cxrkeras.errors import InputError
from cxrkeras.text import num_of

RELEASE_IMAGES = 112_120
RELEASE_PIXELS = (1024, 1024)
OWN_TABLE = "a table of your own"
NEARLY_BLANK = 3.0  # standard deviation of the grey levels
# Labels whose counts tell the two label files of the whole release apart.
LABEL_COUNTS = {
    "2017 (the older one)": {labels.EFFUSION: 13307, labels.PNEUMONIA: 1353, labels.NO_FINDING: 60412},
    "v2020 (the corrected one)": {labels.EFFUSION: 13317, labels.PNEUMONIA: 1431, labels.NO_FINDING: 60361},
}
IMPLICATION = "The two label files differ on 181 images: compare only results that were made with the same one."


def examine_folder(
    folder: Path, *, is_opening: bool = False, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict:
    """Examine a data folder.

    With `is_opening` every image is decoded, to find odd ones and duplicates; `progress` is called with the
    images opened and all. Returns plain JSON values: `errors`, sentences about what would make a result wrong;
    `notes`, sentences about what is merely so; and, unless the tables cannot be read at all, `label_file`, `images`,
    `patients`, `ages`, `sexes`, `views`, `splits`, `lists`, `boxes` and `odd_images`.
    """
    try:
        release = survey_release(folder)
    except InputError as error:
        return {"folder": str(folder), "errors": [str(error)], "notes": []}
    table = release.table
    per_patient = table.groupby("patient_id").size()
    found = {
        "folder": str(folder),
        "errors": list(release.errors),
        "notes": list(release.notes),
        "is_synthetic": release.is_synthetic,
        "label_file": {
            "name": release.label_file,
            "is_release": release.label_file in LABEL_FILES,
            "version": _label_version(release),
        },
        "images": {
            "listed": release.listed["rows"],
            "found": len(table),
            "missing": release.listed["missing"],
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
        "split_name": release.split_name,
        "lists": release.lists,
        "splits": {name: _describe_split(part) for name, part in table.groupby("split")},
        "boxes": _counts(release.boxes["label"]),
        "odd_images": _odd_images(release, progress) if is_opening else None,
    }
    _judge(found, release)
    return found


def _judge(found: dict, release: Release) -> None:
    """Turn figures into sentences."""
    notes, errors = found["notes"], found["errors"]
    version = found["label_file"]["version"]
    if version != OWN_TABLE and not release.is_synthetic:
        notes.append(f"the label file is {version}. {IMPLICATION}")
    if release.split_name == OFFICIAL_SPLIT and release.listed["rows"] < RELEASE_IMAGES:
        errors.append(
            f"{release.label_file} was cut short: it has {num_of(release.listed['rows'], 'row')}, and the "
            "official lists name "
            f"{num_of(RELEASE_IMAGES, 'image')}"
        )
    if not release.errors:
        notes.append("no patient is in both splits")
    if release.lists and not release.lists["in_neither"]:
        notes.append("the split lists are complete: each row of the label file is in one of them")
    if found["odd_images"]:
        pairs = found["odd_images"]["shared_pictures"]
        if pairs:
            shown = "; ".join(f"{first} and {second}" for first, second in pairs[:3])
            errors.append(
                f"{num_of(len(pairs), 'picture', 'is')} there under two patients, one in the training and one in "
                "the test set "
                f"(first: {shown}): a network would be tested on what it learned; `records` leaves them out with "
                "DUPLICATES=drop"
            )
    if found["odd_images"] and found["odd_images"]["unreadable"]:
        notes.append(
            f"{num_of(len(found['odd_images']['unreadable']), 'image')} cannot be read: the records will skip them"
        )


def _label_version(release: Release) -> str:
    if release.is_synthetic:
        return "synthetic phantoms"
    if release.label_file not in LABEL_FILES:
        return OWN_TABLE
    for version, counts in LABEL_COUNTS.items():
        if all(release.listed[label] == count for label, count in counts.items()):
            return version
    return "neither of the whole release, by its counts"


def _describe_split(part: pd.DataFrame) -> dict:
    return {
        "images": len(part),
        "patients": int(part["patient_id"].nunique()),
        "prevalence": {label: float(part[label].mean()) for label in labels.LABELS},
        "views": _counts(part["view"]),
    }


def _counts(column: pd.Series) -> dict[str, int]:
    return {str(value) or "unknown": int(count) for value, count in column.value_counts().items()}


def _number(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 2)


def _odd_images(release: Release, progress: Callable[[int, int], None]) -> dict:
    """Decode every image and sort out what is not as the release has it; lists of image ids, other sizes by size.

    `duplicates` are the images of equal pixels, `shared_pictures` the pairs of them, without constant images, that
    belong to two patients on two sides of the split.
    """
    table = release.table
    usual = RELEASE_PIXELS if release.label_file in LABEL_FILES else None
    odd = {kind: [] for kind in ("colour", "four_channels", "more_than_8_bits", "nearly_blank")}
    other_sizes, unreadable, by_content, constant = {}, {}, {}, set()
    with ThreadPoolExecutor() as pool:
        for done, (row, seen) in enumerate(
            zip(table.itertuples(), pool.map(_look_at, table["path"], chunksize=1), strict=True), 1
        ):
            if isinstance(seen, str):
                unreadable[row.image_id] = seen
            else:
                for kind in seen["kinds"]:
                    odd[kind].append(row.image_id)
                if seen["size"] != usual:
                    other_sizes.setdefault("{} x {}".format(*seen["size"]), []).append(row.image_id)
                by_content.setdefault(seen["digest"], []).append(row)
                if seen["is_constant"]:
                    constant.add(seen["digest"])
            progress(done, len(table))
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


def _look_at(path: str) -> dict | str:
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
        "kinds": [kind for kind, is_so in kinds.items() if is_so],
        "size": size,
        "digest": digest,
        "is_constant": bool(grey.min() == grey.max()),
    }
