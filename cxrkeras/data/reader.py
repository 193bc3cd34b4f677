"""What a reader of a public data set is: how the set is recognised and read, and what people must know to get it."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cxrkeras.data.csv_table import TABLE_ENDINGS, read_header
from cxrkeras.data.dataset import Dataset
from cxrkeras.data.reading import Reading

Tables = dict[Path, frozenset[str]]  # the column names of each CSV in a data folder

Find = Callable[[Path, Tables], list[Path]]
Read = Callable[[Path, list[Path], Reading], Dataset]


@dataclass(frozen=True)
class Reader:
    """A reader of one public data set.

    kind: its name in options and manifests; find: returns the label files of the set in a folder, none if the folder
    holds another set; read: reads them; takes: the settings of `Reading` that this set leaves open. The other fields
    are texts for people: size, labels, licence, how one gets the set, its files, and the publication.
    """

    kind: str
    title: str
    size: str
    labels: str
    licence: str
    access: str
    layout: str
    source: str
    find: Find
    read: Read
    takes: tuple[str, ...] = ()


def list_tables(folder: Path) -> Tables:
    """Read the headers of the CSV files in a folder and in the folders directly in it."""
    places = [Path(entry) for entry in _scan(folder) if entry.is_dir() and not entry.name.startswith(".")]
    found = [Path(entry) for place in [folder, *places] for entry in _scan(place) if _is_table(entry)]
    return {path: frozenset(read_header(path)) for path in sorted(found)}


def _scan(folder: Path) -> list[os.DirEntry]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []  # a folder that may not be read


def _is_table(entry: os.DirEntry) -> bool:
    return entry.name.lower().endswith(TABLE_ENDINGS) and entry.is_file()


def find_tables(tables: Tables, columns: Iterable[str]) -> list[Path]:
    """Find the tables that have all of the columns."""
    wanted = frozenset(columns)
    return [path for path, header in tables.items() if wanted <= header]
