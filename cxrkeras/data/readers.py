"""Reads a data set on disk, the NIH release or one's own, into one table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cxrkeras.data.csv_table import read_header
from cxrkeras.data.dataset import Dataset
from cxrkeras.data.folds import HASHED, check_split_rule
from cxrkeras.data.identity import NIH_PATIENTS
from cxrkeras.data.nih_tables import LABEL_FILES, read_nih, read_nih_labels
from cxrkeras.data.own_tables import REQUIRED, Reading, name_columns, read_own, read_own_labels
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH, LabelSet


def read_dataset(
    folder: Path,
    *,
    split_rule: str = HASHED,
    split_seed: int = 0,
    namespace: str | None = None,
    ignore: Sequence[str] = (),
    normal: str | None = None,
) -> Dataset:
    """Read the NIH release, whole or in part, or a folder with a CSV of one's own.

    The release is recognised by its label file. One's own CSV has the columns `image` (a path or a file name),
    `patient`, and either a column `labels` (any names, `Effusion|Mass`) or one column per label, of 1, 0, -1 for
    uncertain and blank for not known; `split` (train_val or test), `age`, `sex` and `view` are optional. Other columns
    are errors unless they are named in `ignore`. `normal` names the no-finding label, by default one of
    NO_FINDING_NAMES. Without a split, a fifth of the patients form the test set, chosen with `split_seed` by one of
    SPLIT_RULES. `namespace` identifies the patients of one's own CSV, `nih` if they are NIH's; by default the name of
    the folder.

    Raises InputError if there is no such data, or it is inconsistent.
    """
    dataset = survey_dataset(
        folder, split_rule=split_rule, split_seed=split_seed, namespace=namespace, ignore=ignore, normal=normal
    )
    if dataset.errors:
        raise InputError("; ".join(dataset.errors))
    return dataset


def survey_dataset(
    folder: Path,
    *,
    split_rule: str = HASHED,
    split_seed: int = 0,
    namespace: str | None = None,
    ignore: Sequence[str] = (),
    normal: str | None = None,
) -> Dataset:
    """Read like `read_dataset`, but collect what would invalidate results in `errors`.

    Rows with such errors are left out. Raises InputError only if there is nothing to read.
    """
    check_split_rule(split_rule)
    if namespace is not None and not namespace.strip():
        raise InputError("namespace must not be blank")
    if not folder.is_dir():
        raise InputError(f"no data folder {folder}; give that of the NIH release, or draw one with `cxrkeras phantom`")
    for name in LABEL_FILES:
        if (folder / name).is_file():
            if namespace not in (None, NIH_PATIENTS):
                raise InputError(
                    f"{folder} holds the NIH release, whose namespace is {NIH_PATIENTS!r}; got {namespace!r}"
                )
            if ignore or normal:
                raise InputError(
                    f"{folder} holds the NIH release, whose columns and labels are fixed: leave out ignore and normal"
                )
            return read_nih(folder, name, split_rule, split_seed)
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv" and path.is_file())
    own = [path for path in tables if set(REQUIRED) <= set(name_columns(read_header(path)))]
    if len(own) == 1:
        return read_own(folder, own[0], Reading(tuple(ignore), normal), namespace, split_rule, split_seed)
    if own:
        found = f"found {len(own)} of them: {', '.join(path.name for path in own)}"
    else:
        headers = [f"{path.name} with {', '.join(read_header(path)[:12]) or 'nothing'}" for path in tables]
        found = f"found {'; '.join(headers[:3]) or 'no CSV file'}"
    raise InputError(
        f"{folder} holds neither the NIH label file ({' or '.join(LABEL_FILES)}) nor one CSV with the columns "
        f"image, patient and labels: {found}"
    )


@dataclass(frozen=True)
class LabelFile:
    """A label file without its images: its rows as in `Dataset.table`, without split and path; the ids of images whose
    rows are unusable; and notes that explain why."""

    table: pd.DataFrame
    labels: LabelSet
    unusable: set[str]
    notes: list[str]


def read_labels(path: Path, *, ignore: Sequence[str] = (), normal: str | None = None) -> LabelFile:
    """Read the NIH release's label file, or a CSV with the columns image, patient and labels.

    ignore, normal: as for `read_dataset`. Raises InputError for a file that is neither.
    """
    notes, errors = [], []
    if not path.is_file():
        raise InputError(
            f"no label file {path}: give the release's {LABEL_FILES[0]} or a CSV with image, patient and labels"
        )
    header = read_header(path)
    if set(REQUIRED) <= set(name_columns(header)):
        own = read_own_labels(path, Reading(tuple(ignore), normal), notes, errors)
        table, label_set, ids = own.table, own.labels, own.given["image"]
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
