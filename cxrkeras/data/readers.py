"""Reads a data set on disk, a public one or one's own, into one table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cxrkeras.data import chexpert, mimic, nih_readers, openi, padchest, rsna, siim, vindr
from cxrkeras.data.csv_table import read_header
from cxrkeras.data.dataset import Dataset
from cxrkeras.data.folds import HASHED, parse_split_name
from cxrkeras.data.joining import join_datasets
from cxrkeras.data.nih_readers import read_reader_labels
from cxrkeras.data.nih_tables import BOX_LIST, LABEL_FILES, NIH_KIND, PHANTOMS, read_nih, read_nih_labels
from cxrkeras.data.own_tables import OWN_KIND, REQUIRED, name_columns, read_own, read_own_labels
from cxrkeras.data.reader import Reader, Tables, list_tables
from cxrkeras.data.reading import Reading
from cxrkeras.data.vocabulary import load_terms, translate
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH, LabelSet
from cxrkeras.text import num_of


def _find_nih(folder: Path, tables: Tables) -> list[Path]:
    return [path for name in LABEL_FILES if (path := folder / name).is_file()][:1]


def _find_own(folder: Path, tables: Tables) -> list[Path]:
    return [path for path, header in tables.items() if set(REQUIRED) <= set(name_columns(list(header)))]


NIH_READER = Reader(
    kind=NIH_KIND,
    title="NIH ChestX-ray14",
    size="112,120 images of 30,805 patients, 42 GB",
    labels="15, extracted from reports",
    licence="free for any use, with acknowledgement of NIH and citation",
    access="`cxrkeras data`, or https://nihcc.app.box.com/v/ChestXray-NIHCC",
    layout="Data_Entry_2017_v2020.csv (or the older Data_Entry_2017.csv), images/*.png or images_*/images/*.png; if "
    "present train_val_list.txt, test_list.txt, BBox_List_2017.csv",
    source="Wang et al., CVPR 2017",
    takes=("namespace",),
    find=_find_nih,
    read=lambda folder, paths, reading: read_nih(folder, paths[0], reading),
)
OWN_READER = Reader(
    kind=OWN_KIND,
    title="a folder with a CSV of your own",
    size="any",
    labels="any: a column of names joined by |, or one column per label of 1, 0, -1 and blank",
    licence="yours",
    access="",
    layout="one CSV with the columns image, patient and labels (optional: split, age, sex, view), and the images",
    source="",
    takes=("ignore", "normal", "namespace"),
    find=_find_own,
    read=lambda folder, paths, reading: read_own(folder, paths[0], reading),
)
PUBLIC_READERS = (
    NIH_READER,
    *nih_readers.READERS,
    chexpert.READER,
    *mimic.READERS,
    padchest.READER,
    vindr.READER,
    rsna.READER,
    siim.READER,
    openi.READER,
)
READERS = (*PUBLIC_READERS, OWN_READER)
_KNOWN_EXTRAS = (*LABEL_FILES, BOX_LIST)  # of the NIH release


def read_datasets(folders: Sequence[Path], reading: Reading | None = None, overlap: str | None = None) -> Dataset:
    """Read one data set, or several that are joined, as by `read_dataset` and `join_datasets`.

    Each set is read with those settings of `reading` that it leaves open. Raises InputError as these, and for a setting
    that no set takes.
    """
    reading = reading or Reading()
    if len(folders) == 1:
        if overlap:
            raise InputError("overlap is about several data sets; got one", option="overlap")
        return read_dataset(folders[0], reading)
    found = [choose_reader(folder, reading.kind, is_shared=True) for folder in folders]
    taken = {name for reader, _ in found for name in reader.takes}
    reading.check_taken("every one of these data sets", tuple(taken))
    if reading.kind and reading.kind not in [reader.kind for reader, _ in found]:
        raise InputError(f"none of the data sets is of the kind {reading.kind}", option="kind")
    datasets = [
        _read(folder, reader, paths, reading.keep(reader.takes))
        for folder, (reader, paths) in zip(folders, found, strict=True)
    ]
    dataset = join_datasets(datasets, overlap)
    if dataset.errors:
        raise InputError("; ".join(dataset.errors))
    return dataset


def read_again(folders: Sequence[Path], sources: Sequence[Mapping[str, Any]], overlap: str | None) -> Dataset:
    """Read data sets as they were read for records; sources: kind, settings, split_name and namespace of each.

    Raises InputError as `read_datasets`, and for another number of folders.
    """
    if len(folders) != len(sources):
        names = " and ".join(source["name"] for source in sources)
        raise InputError(
            f"the records were made of {num_of(len(sources), 'data set')}, {names} in this order; got {len(folders)}"
        )
    datasets = []
    for folder, source in zip(folders, sources, strict=True):
        rule, seed = parse_split_name(source["split_name"]) or (HASHED, 0)
        kind = NIH_KIND if source["kind"] == PHANTOMS else source["kind"]
        namespace = source["namespace"] if kind == OWN_KIND else None
        reading = Reading(kind=kind, split_rule=rule, split_seed=seed, namespace=namespace, **source["settings"])
        datasets.append(survey_dataset(folder, reading))
    dataset = datasets[0] if len(datasets) == 1 else join_datasets(datasets, overlap)
    if dataset.errors:
        raise InputError("; ".join(dataset.errors))
    return dataset


def read_dataset(folder: Path, reading: Reading | None = None) -> Dataset:
    """Read a public data set, whole or in part, or a folder with a CSV of one's own.

    Public sets are recognised by their label files; `READERS` describes them. One's own CSV has the columns `image` (a
    path or a file name), `patient`, and either a column `labels` (any names, `Effusion|Mass`) or one column per label,
    of 1, 0, -1 for uncertain and blank for not known; `split` (train_val or test), `age`, `sex` and `view` are
    optional. Other columns are errors unless `reading` ignores them.

    Raises InputError if there is no such data, or it is inconsistent.
    """
    dataset = survey_dataset(folder, reading)
    if dataset.errors:
        raise InputError("; ".join(dataset.errors))
    return dataset


def survey_dataset(folder: Path, reading: Reading | None = None) -> Dataset:
    """Read like `read_dataset`, but collect what would invalidate results in `errors`.

    Rows with such errors are left out. Raises InputError only if there is nothing to read.
    """
    reading = reading or Reading()
    reader, paths = choose_reader(folder, reading.kind)
    reading.check_taken(f"{reader.title}, in {folder},", reader.takes)
    return _read(folder, reader, paths, reading)


def _read(folder: Path, reader: Reader, paths: list[Path], reading: Reading) -> Dataset:
    if reader is OWN_READER and len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        raise InputError(
            f"{folder} must hold one CSV with the columns image, patient and labels: found {len(paths)} of them: "
            f"{names}"
        )
    terms = load_terms(reading.terms) if reading.terms else None
    dataset = reader.read(folder, paths, reading)
    if unused := [path for path in list_tables(folder) if path not in paths and path.name not in _KNOWN_EXTRAS]:
        names = ", ".join(path.name for path in unused[:5]) + (", ..." if len(unused) > 5 else "")
        dataset.notes.append(f"{num_of(len(unused), 'CSV file')} of {folder} not used: {names}")
    return translate(dataset, terms) if terms else dataset


def choose_reader(folder: Path, kind: str | None, *, is_shared: bool = False) -> tuple[Reader, list[Path]]:
    """Choose the reader whose label files are in the folder, and list these; the kind decides between several.

    is_shared: whether the kind may be that of another folder. Raises InputError for a folder without label files, or
    with those of several sets.
    """
    if not folder.is_dir():
        raise InputError(
            f"no data folder {folder}; give that of a public data set, or draw one with `cxrkeras phantom`"
        )
    by_kind = {reader.kind: reader for reader in READERS}
    if kind is not None and kind not in by_kind:
        raise InputError(f"kind must be one of {', '.join(by_kind)}; got {kind!r}", option="kind")
    tables = list_tables(folder)
    found = {reader.kind: paths for reader in READERS if (paths := reader.find(folder, tables))}
    if kind is not None and not (is_shared and kind not in found):
        if kind not in found:
            raise InputError(
                f"{folder} does not hold the label files of {by_kind[kind].title}: expected {by_kind[kind].layout}"
            )
        return by_kind[kind], found[kind]
    public = [name for name in found if name != OWN_KIND]
    if len(public) > 1:
        raise InputError(
            f"{folder} holds the label files of {' and of '.join(by_kind[name].title for name in public)}: say which "
            f"with kind, {' or '.join(public)}",
            option="kind",
        )
    if not found:
        headers = [f"{path.name} with {', '.join(read_header(path)[:12]) or 'nothing'}" for path in tables]
        raise InputError(
            f"{folder} holds neither the NIH label file ({' or '.join(LABEL_FILES)}), nor those of another public data "
            f"set (`cxrkeras datasets` lists them), nor one CSV with the columns image, patient and labels: found "
            f"{'; '.join(headers[:3]) or 'no CSV file'}"
        )
    chosen = public[0] if public else OWN_KIND
    return by_kind[chosen], found[chosen]


@dataclass(frozen=True)
class LabelFile:
    """A label file without its images: its rows as in `Dataset.table`, without split and path; the ids of images whose
    rows are unusable; and notes that explain why."""

    table: pd.DataFrame
    labels: LabelSet
    unusable: set[str]
    notes: list[str]


def read_labels(path: Path, *, ignore: Sequence[str] = (), normal: str | None = None) -> LabelFile:
    """Read the NIH release's label file, one of radiologists' labels, or a CSV with image, patient and labels.

    ignore, normal: as for `Reading`. Raises InputError for another file.
    """
    notes, errors = [], []
    if not path.is_file():
        raise InputError(
            f"no label file {path}: give the release's {LABEL_FILES[0]} or a CSV with image, patient and labels"
        )
    header = read_header(path)
    if set(REQUIRED) <= set(name_columns(header)):
        own = read_own_labels(path, Reading(ignore=tuple(ignore), normal=normal), notes, errors)
        table, label_set, ids = own.table, own.labels, own.given["image"]
    elif any(reader.find(path.parent, {path: frozenset(header)}) for reader in nih_readers.READERS):
        table, label_set = read_reader_labels(path, notes, errors)
        ids = table["image_id"]
    elif "Image Index" in header:
        table, given = read_nih_labels(path, notes, errors)
        label_set, ids = NIH, given["Image Index"]
    else:
        raise InputError(
            f"{path} is neither the release's label file (with Image Index and Finding Labels) nor a CSV with image, "
            f"patient and labels; it has {', '.join(header[:8]) or 'nothing'}"
        )
    unusable = set(ids.str.strip()) - set(table["image_id"])
    return LabelFile(table, label_set, unusable, [*notes, *errors])
