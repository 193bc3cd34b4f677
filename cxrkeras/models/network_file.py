"""Metadata of a `.keras` file: additional members of the zip archive, which Keras ignores."""

import json
import zipfile
from pathlib import Path
from typing import Any

import h5py

from cxrkeras.config import CONFIG
from cxrkeras.errors import InputError
from cxrkeras.files import load_json
from cxrkeras.labels import LabelSet

LABELS_MEMBER = "cxrkeras_labels.json"
LARGEST_MEMBER = 100_000_000  # uncompressed bytes


def add_member(path: Path, name: str, content: dict[str, Any]) -> None:
    """Add a JSON member to a `.keras` file that has none of that name yet."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, json.dumps(content))


def read_member(path: Path, name: str) -> Any:
    """Read the JSON value of a member, None if the file has none. Raises ValueError if it is not JSON or too large."""
    try:
        with zipfile.ZipFile(path) as archive:
            if name not in archive.namelist():
                return None
            if archive.getinfo(name).file_size > LARGEST_MEMBER:
                raise ValueError("it is too large")
            return json.loads(archive.read(name))
    except (zipfile.BadZipFile, OSError):
        return None  # not a `.keras` file; whether it is readable at all is checked elsewhere


def check_links(group: h5py.Group) -> None:
    """Raise InputError for links and data outside of an HDF5 file, by which weights could be read from anywhere."""
    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise InputError("its weights are refused: they link to other files")
        entry = group[name]
        if isinstance(entry, h5py.Group):
            check_links(entry)
        elif entry.external or entry.is_virtual:
            raise InputError("its weights are refused: they are kept in other files")


def write_labels(path: Path, labels: LabelSet) -> None:
    """Add the labels of a network's outputs to its `.keras` file."""
    add_member(path, LABELS_MEMBER, {"labels": labels.names, "no_finding": labels.no_finding})


def check_labels(path: Path, labels: LabelSet) -> None:
    """Raise InputError for a network whose file has other labels; a file without labels passes."""
    content = read_member(path, LABELS_MEMBER)
    if content is not None and content.get("labels") != list(labels.names):
        raise InputError(
            f"{path} is a network for the labels {', '.join(map(str, content.get('labels', ())))}, and its fold has "
            f"{labels.describe()}: restore the file, or retrain the fold"
        )


def read_label_names(path: Path) -> tuple[str, ...] | None:
    """Read the names of a network's outputs from its file, else from its run folder; None if neither has them."""
    try:
        content = read_member(path, LABELS_MEMBER)
        if content is None and path.with_name(CONFIG).is_file():
            content = load_json(path.with_name(CONFIG), ("labels",))
        return None if content is None else tuple(map(str, content["labels"]))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: its list of labels is damaged ({error})") from None
