"""Reads a data set on disk, the NIH release or a user's own, into one table."""

from pathlib import Path

import pandas as pd

from cxrkeras.data.csv_table import read_header
from cxrkeras.data.dataset import Release
from cxrkeras.data.folds import HASHED, check_split_rule
from cxrkeras.data.identity import NIH
from cxrkeras.data.nih_tables import LABEL_FILES, read_nih, read_nih_labels
from cxrkeras.data.own_tables import WANTED, name_columns, read_own, read_own_labels
from cxrkeras.errors import InputError


def read_release(
    folder: Path, *, split_rule: str = HASHED, split_seed: int = 0, namespace: str | None = None
) -> Release:
    """Read the NIH release, whole or in part, or a folder with a CSV of one's own.

    The release is recognised by its label file. One's own CSV has the columns `image` (a path or a file name),
    `patient`, and either a column `labels` (`Effusion|Mass`) or one column of 0 and 1 per label; optional are
    `split` (train_val or test), `age`, `sex` and `view`. Without a split, a fifth of the patients is the test set,
    chosen with `split_seed` by one of SPLIT_RULES. `namespace` says whose patients those of one's own CSV are, `nih` if
    they are NIH's; by default they are those of the folder's name.

    Raises InputError if there is no such data, or it contradicts itself.
    """
    release = survey_release(folder, split_rule=split_rule, split_seed=split_seed, namespace=namespace)
    if release.errors:
        raise InputError("; ".join(release.errors))
    return release


def survey_release(
    folder: Path, *, split_rule: str = HASHED, split_seed: int = 0, namespace: str | None = None
) -> Release:
    """Read like `read_release`, and go on where something would make a result wrong: it stands in `errors`.

    Rows with such a mistake are left out. Raises InputError only if there is nothing to be read.
    """
    check_split_rule(split_rule)
    if namespace is not None and not namespace.strip():
        raise InputError("the name of whose patients these are is blank")
    if not folder.is_dir():
        raise InputError(f"no data folder {folder}; `make phantom` draws one, or give DATA=<folder of the NIH release>")
    for name in LABEL_FILES:
        if (folder / name).is_file():
            if namespace not in (None, NIH):
                raise InputError(f"{folder} holds the NIH release, whose patients are {NIH!r}; got {namespace!r}")
            return read_nih(folder, name, split_rule, split_seed)
    tables = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".csv" and path.is_file())
    own = [path for path in tables if set(WANTED) <= set(name_columns(read_header(path)))]
    if len(own) == 1:
        return read_own(folder, own[0], namespace, split_rule, split_seed)
    if own:
        found = f"found {len(own)} of them: {', '.join(path.name for path in own)}"
    else:
        headers = [f"{path.name} with {', '.join(read_header(path)[:12]) or 'nothing'}" for path in tables]
        found = f"found {'; '.join(headers[:3]) or 'no CSV file'}"
    raise InputError(
        f"{folder} holds neither the NIH label file ({' or '.join(LABEL_FILES)}) nor one CSV with the columns "
        f"image, patient and labels: {found}"
    )


def read_labels(path: Path) -> tuple[pd.DataFrame, set[str], list[str]]:
    """The rows of a label file alone, whether or not their images are on disk.

    The NIH release's, or a CSV with the columns image, patient and labels. Columns as in `Release.table`, without split
    and path; then the ids of images whose rows cannot be used, and notes that say why. Raises InputError for a file
    that is neither.
    """
    notes, errors = [], []
    if not path.is_file():
        raise InputError(
            f"no label file {path}: give the release's {LABEL_FILES[0]} or a CSV of image, patient and labels"
        )
    header = read_header(path)
    if set(WANTED) <= set(name_columns(header)):
        table, given = read_own_labels(path, notes, errors)
        ids = given["image"]
    elif "Image Index" in header:
        table, given = read_nih_labels(path, notes, errors)
        ids = given["Image Index"]
    else:
        raise InputError(
            f"{path} is neither the release's label file (with Image Index and Finding Labels) nor a CSV with image, "
            f"patient and labels; it has {', '.join(header[:8]) or 'nothing'}"
        )
    return table, set(ids.str.strip()) - set(table["image_id"]), [*notes, *errors]
