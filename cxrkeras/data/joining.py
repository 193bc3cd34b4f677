"""Joins data sets: patients identified by namespace, each image once, no patient on two sides of the split."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from cxrkeras.data.dataset import TEST, TRAIN_VAL, Dataset, check_splits, digest_lines
from cxrkeras.data.folds import parse_split_name
from cxrkeras.data.identity import JOINED, NIH_PATIENTS, name_patient
from cxrkeras.errors import InputError
from cxrkeras.labels import PRESENT, LabelSet
from cxrkeras.text import num_of

DROP, TO_TEST = OVERLAPS = ("drop", "test")
OF_NIH = ("rsna", "siim")  # kinds of images that NIH has too, with patients that may be unknown


def join_datasets(datasets: Sequence[Dataset], overlap: str | None = None) -> Dataset:
    """Join data sets of one label set.

    Patients of one namespace with equal ids are the same patient. An image that two sets have is kept once, from the
    set named first. Where a set has no split of its own, its patients follow the sets that have one. A patient whom
    split lists put on two sides is an error, unless `overlap` says that her training images are left out (`drop`) or
    that all her images are tested (`test`).

    Image ids become `<source>/<id>`, patients `<namespace>:<id>`. Raises InputError for different label sets.
    """
    if overlap is not None and overlap not in OVERLAPS:
        raise InputError(f"overlap must be {' or '.join(OVERLAPS)}; got {overlap!r}", option="overlap")
    first, *others = datasets
    if different := next((other for other in others if other.labels != first.labels), None):
        raise InputError(
            f"{first.folder} has the labels {first.labels.describe(8)}, {different.folder} "
            f"{different.labels.describe(8)}: read both in terms of one label set, as terms=common",
            option="terms",
        )
    names = _name_sources(datasets)
    notes = [f"{name}: {note}" for name, dataset in zip(names, datasets, strict=True) for note in dataset.notes]
    errors = [f"{name}: {error}" for name, dataset in zip(names, datasets, strict=True) for error in dataset.errors]
    table = pd.concat([_name_rows(dataset, name) for name, dataset in zip(names, datasets, strict=True)],
                      ignore_index=True)  # fmt: skip
    notes += _describe_shared(table, datasets)
    table = _drop_known_images(table, first.labels, notes)
    table = _agree_on_split(table, overlap, notes)
    check_splits(table, first.folder, notes, errors)
    boxes = pd.concat([dataset.boxes.assign(image_id=f"{name}/" + dataset.boxes["image_id"])
                       for name, dataset in zip(names, datasets, strict=True)], ignore_index=True)  # fmt: skip
    splits = [f"{dataset.namespace} {dataset.kind} {dataset.split_name}" for dataset in datasets]
    missing = sum(dataset.listed["missing"] for dataset in datasets)
    counted = {label: int((table[label] == PRESENT).sum()) for label in first.labels}
    return Dataset(
        folder=first.folder,
        table=table.drop(columns=["picture", "has_lists"]),
        boxes=boxes[boxes["image_id"].isin(table["image_id"])].reset_index(drop=True),
        labels=first.labels,
        kind=JOINED,
        label_file=", ".join(dict.fromkeys(dataset.label_file for dataset in datasets)),
        split_name=f"joined-{digest_lines(splits)[:8]}{f'-{overlap}' if overlap else ''}",
        list_checksums={
            f"{name}/{key}": value
            for name, dataset in zip(names, datasets, strict=True)
            for key, value in dataset.list_checksums.items()
        },
        is_synthetic=any(dataset.is_synthetic for dataset in datasets),
        namespace=JOINED,
        listed={"rows": len(table) + missing, "missing": missing} | counted,
        settings={"overlap": overlap} if overlap else {},
        notes=notes,
        errors=errors,
        members=dict(zip(names, datasets, strict=True)),
    )


def _name_sources(datasets: Sequence[Dataset]) -> list[str]:
    """Name each set by its folder; equal names get the folder above in front."""
    paths = [dataset.folder.resolve() for dataset in datasets]
    if repeated := next((path for path in paths if paths.count(path) > 1), None):
        raise InputError(f"{repeated} is given twice")
    names = [path.name for path in paths]
    return [f"{path.parent.name}-{path.name}" if names.count(path.name) > 1 else path.name for path in paths]


def _name_rows(dataset: Dataset, name: str) -> pd.DataFrame:
    """Return the rows of a set with ids of the joined set.

    `picture` identifies the image within its namespace; `has_lists` is whether the set came with its split.
    """
    table = dataset.table
    given = table["origin"] if "origin" in table.columns else table["image_id"]
    picture = given.str.rpartition("/")[2].str.rpartition(".")
    stem = picture[0].where(picture[0] != "", picture[2])
    return table.drop(columns="origin", errors="ignore").assign(
        image_id=f"{name}/" + table["image_id"],
        patient_id=[name_patient(dataset.namespace, patient) for patient in table["patient_id"]],
        source=name,
        picture=f"{dataset.namespace}:" + stem,
        has_lists=parse_split_name(dataset.split_name) is None,
    )


def _describe_shared(table: pd.DataFrame, datasets: Sequence[Dataset]) -> list[str]:
    """Describe which sets share patients, and where this cannot be known."""
    notes = []
    patients = {source: set(rows["patient_id"]) for source, rows in table.groupby("source", sort=False)}
    for (first, of_first), (second, of_second) in combinations(patients.items(), 2):
        if shared := len(of_first & of_second):
            notes.append(f"{num_of(shared, 'patient', 'is')} in both {first} and {second}")
    namespaces = [dataset.namespace for dataset in datasets]
    unknown = [dataset.kind for dataset in datasets if dataset.kind in OF_NIH and dataset.namespace != NIH_PATIENTS]
    if unknown and (NIH_PATIENTS in namespaces or len(unknown) > 1):
        notes.append(
            f"warning: the images of {' and '.join(unknown)} are of NIH, and whose they are is not known here: the "
            "same patient, and the same image, may be on both sides of the split"
        )
    return notes


def _drop_known_images(table: pd.DataFrame, labels: LabelSet, notes: list[str]) -> pd.DataFrame:
    """Keep each image of a namespace from the first set only; the notes say where the labels of the others differ."""
    by_picture = table.groupby("picture")
    kept_from = by_picture["source"].transform("first")
    is_again = table["source"] != kept_from
    values = table[list(labels)]
    differs = (values != by_picture[list(labels)].transform("first")).any(axis=1)
    for (source, kept), rows in table[is_again].groupby(["source", kept_from[is_again]], sort=False):
        note = f"{num_of(len(rows), 'image')} of {source} left out, as {kept} has the same"
        if count := int(differs[rows.index].sum()):
            note += f": the labels of {kept} are kept, and those of {source} differ in {count:,} of them"
        notes.append(note)
    return table[~is_again].reset_index(drop=True)


def _agree_on_split(table: pd.DataFrame, overlap: str | None, notes: list[str]) -> pd.DataFrame:
    """Give every patient one side of the split: lists first, then where she was assigned by chance."""
    listed = table[table["has_lists"]]
    sides = listed.groupby("patient_id")["split"].nunique()
    torn = sides.index[sides > 1]
    if len(torn) and overlap is None:
        sources = listed[listed["patient_id"] == torn[0]].groupby("split")["source"].first()
        raise InputError(
            f"the split lists put {num_of(len(torn), 'patient')} on two sides (first: {torn[0]}, in the training set "
            f"of {sources[TRAIN_VAL]} and the test set of {sources[TEST]}): leave out their training images with "
            "overlap=drop, or test on all their images with overlap=test",
            option="overlap",
        )
    is_torn = table["patient_id"].isin(torn)
    if overlap == DROP and len(torn):
        dropped = is_torn & table["has_lists"] & (table["split"] == TRAIN_VAL)
        notes.append(
            f"{num_of(int(dropped.sum()), 'training image')} of {num_of(len(torn), 'patient')} left out, as other "
            "lists test on them"
        )
        table, listed = table[~dropped], listed[~dropped[listed.index]]
    elif len(torn):
        moved = is_torn & (table["split"] != TEST)
        notes.append(
            f"{num_of(int(moved.sum()), 'training image')} of {num_of(len(torn), 'patient')} moved to the test set"
        )
        table = table.assign(split=table["split"].mask(is_torn, TEST))
        listed = table[table["has_lists"]]
    side = listed.groupby("patient_id")["split"].first()
    by_lists = table["patient_id"].map(side)
    moved = by_lists.notna() & (by_lists != table["split"])
    if moved.any():
        notes.append(f"{num_of(int(moved.sum()), 'image')} of sets without lists follow the lists of the others")
    table = table.assign(split=table["split"].where(by_lists.isna(), by_lists))
    is_tested = table["split"].eq(TEST).groupby(table["patient_id"]).transform("any")  # by chance on two sides
    return table.assign(split=np.where(is_tested, TEST, TRAIN_VAL)).reset_index(drop=True)
