"""Reads the Indiana chest X-rays of OpenI: labels from the MeSH terms of their reports, in XML."""

import tarfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.csv_table import read_csv_table
from cxrkeras.data.dataset import Dataset, Listing, build_dataset, check_ids
from cxrkeras.data.demographics import parse_demographics
from cxrkeras.data.image_files import list_folder
from cxrkeras.data.reader import Reader, Tables, find_tables
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import ABSENT, NOT_KNOWN, PRESENT, LabelSet, spelling_key
from cxrkeras.text import num_of

NORMAL = "normal"
NOT_INDEXED = "No Indexing"
ARCHIVE, XML_FOLDER = "NLMCXR_reports.tgz", "ecgen-radiology"
_DICOM_COLUMNS, _PROJECTION_COLUMNS = ("imageid", "View Position"), ("filename", "projection")
_MOST_BYTES = 2**20  # of one report


def find_openi(folder: Path, tables: Tables) -> list[Path]:
    reports = [path for path in (folder / ARCHIVE, folder / XML_FOLDER) if path.exists()]
    views = [*find_tables(tables, _DICOM_COLUMNS), *find_tables(tables, _PROJECTION_COLUMNS)]
    return [reports[0], *views[:1]] if reports else []


def read_openi(folder: Path, paths: list[Path], reading: Reading) -> Dataset:
    """Read the reports; the first term of each heading is a label, and a report's headings are complete."""
    notes, errors = [], []
    reports, *views = paths
    rows = [row for content, name in _read_reports(reports) for row in _parse_report(content, name)]
    if not rows:
        raise InputError(f"{reports} holds no report with an image")
    ids, patients, terms = (list(column) for column in zip(*rows, strict=True))
    label_set, values = _tabulate(terms, notes)
    table = pd.DataFrame({"image_id": ids, "patient_id": patients})
    people = parse_demographics(table.index, notes, view=_read_views(views, table["image_id"], notes))
    table = check_ids(table.join(people).join(values), reports, notes, errors)
    return build_dataset(
        folder,
        Listing(reports, table, label_set, notes, errors),
        reading,
        kind=KIND,
        namespace=KIND,
        files=list_folder(folder),
        by_stem=True,
    )


def _read_reports(path: Path) -> Iterator[tuple[bytes, str]]:
    """Yield content and name of each report in the archive or the folder."""
    if path.is_dir():
        for file in sorted(path.glob("**/*.xml")):
            yield file.read_bytes(), str(file)
        return
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if member.isfile() and member.name.endswith(".xml") and member.size <= _MOST_BYTES:
                    content = archive.extractfile(member)
                    assert content is not None
                    yield content.read(), f"{path}, {member.name}"
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"cannot read {path}: {str(error).splitlines()[0]}; fetch it again") from None


def _parse_report(content: bytes, name: str) -> list[tuple[str, str, frozenset[str]]]:
    """Parse image id, patient and first terms of the headings of each image of a report."""
    try:
        if b"<!ENTITY" in content:
            raise ValueError("it defines entities")
        root = ElementTree.fromstring(content)
        identity = root.find("uId")
        if identity is None:
            raise ValueError("it has no uId")
    except (ElementTree.ParseError, ValueError) as error:
        raise InputError(f"{name} is not a report of the collection: {error}") from None
    terms = frozenset(" ".join((node.text or "").split("/")[0].split()) for node in root.iterfind("MeSH/major"))
    return [(image.get("id", ""), identity.get("id", ""), terms - {""}) for image in root.iterfind("parentImage")]


def _tabulate(terms: list[frozenset[str]], notes: list[str]) -> tuple[LabelSet, pd.DataFrame]:
    """Tabulate terms: the labels are all that occur, in alphabetical order in any spelling, `normal` last."""
    names = sorted(
        {name for found in terms for name in found} - {NOT_INDEXED}, key=lambda name: (name.casefold(), name)
    )
    label_of: dict[str, str] = {}
    for name in names:
        label_of.setdefault(spelling_key(name), name)
    findings = [name for name in label_of.values() if name != NORMAL]
    has_normal = NORMAL in label_of.values()
    label_set = LabelSet((*findings, *([NORMAL] if has_normal else [])), NORMAL if has_normal else None)
    values = np.full((len(terms), len(label_set)), NOT_KNOWN, np.int8)
    for row, found in enumerate(terms):
        places = [label_set.index(label_of[spelling_key(name)]) for name in found if name != NOT_INDEXED]
        if places:
            values[row] = ABSENT
            values[row, places] = PRESENT
    if unknown := int((values == NOT_KNOWN).all(axis=1).sum()):
        notes.append(f"{num_of(unknown, 'image')} of reports without terms: their labels are not known")
    return label_set, pd.DataFrame(values, columns=list(label_set))


def _read_views(paths: list[Path], ids: pd.Series, notes: list[str]) -> pd.Series | None:
    if not paths:
        notes.append(
            "no table says which images are lateral: all are kept (nlmcxr_dicom_metadata.csv or "
            "indiana_projections.csv would)"
        )
        return None
    entry = read_csv_table(paths[0])
    if set(_DICOM_COLUMNS) <= set(entry.columns):
        by_id = pd.Series(entry["View Position"].str.strip().to_numpy(), entry["imageid"].str.strip())
        by_id = by_id.replace({"LARGE LATERAL": "lateral"})
    else:
        names = entry["filename"].str.strip().str.replace(r"\.dcm\.png$|\.png$", "", regex=True)
        by_id = pd.Series(entry["projection"].str.strip().to_numpy(), "CXR" + names)
    return ids.map(by_id[~by_id.index.duplicated()]).fillna("")


KIND = "openi"
READER = Reader(
    kind=KIND,
    title="Indiana University chest X-rays (OpenI)",
    size="7,470 images of 3,851 patients, 14 GB as PNG",
    labels="116 MeSH headings of the reports, and normal",
    licence="CC BY-NC-ND 4.0",
    access="https://openi.nlm.nih.gov/faq: NLMCXR_png.tgz and NLMCXR_reports.tgz",
    layout=f"{ARCHIVE} or its folder {XML_FOLDER}/, the unpacked images *.png or *.dcm, and for views "
    "nlmcxr_dicom_metadata.csv or indiana_projections.csv",
    source="Demner-Fushman et al., JAMIA 23, 2016",
    find=find_openi,
    read=read_openi,
)
