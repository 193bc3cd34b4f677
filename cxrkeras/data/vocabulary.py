"""Reads a data set in terms of another label set: what each of its labels is called there."""

import tomllib
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxrkeras.data.dataset import Dataset
from cxrkeras.data.nih_tables import NIH_KIND, PHANTOMS
from cxrkeras.data.own_tables import OWN_KIND
from cxrkeras.errors import InputError
from cxrkeras.labels import ABSENT, NIH, NO_FINDING, NOT_KNOWN, PRESENT, UNCERTAIN, LabelSet, find_no_finding
from cxrkeras.text import num_of

COMMON = "common"
TRACKED = (NIH_TERMS := "nih", COMMON)
COMPLETE = ("padchest", "openi")  # kinds whose labels are those that occur, and whose lists name all that is there
_RESERVED = ("labels", "no_finding")


@dataclass(frozen=True)
class Terms:
    """A label set to read data sets in, and for each kind of set its names, each with the labels that it means.

    sources: where a name's meaning is stated, by kind and name; blank in a user's own file.
    """

    name: str
    labels: LabelSet
    names: dict[str, dict[str, tuple[str, ...]]]
    sources: dict[str, dict[str, str]]


@cache
def _load_tracked() -> dict[str, Any]:
    return tomllib.loads(resources.files("cxrkeras.data").joinpath("vocabulary.toml").read_text("utf-8"))


def load_terms(terms: str) -> Terms:
    """Load `nih`, `common`, or a TOML file of one's own.

    A file has `labels`, the names in order, optionally `no_finding`, and a table for each kind of data set with lines
    `"name in the set" = "label"`, or a list of labels. Raises InputError for any other.
    """
    if terms not in TRACKED:
        return _load_own(Path(terms))
    tracked = _load_tracked()
    label_set = NIH if terms == NIH_TERMS else LabelSet(tuple(tracked[COMMON]["labels"]))
    names: dict[str, dict[str, tuple[str, ...]]] = {}
    sources: dict[str, dict[str, str]] = {}
    for kind, lines in tracked.items():
        if kind not in (COMMON, "same"):
            meant = {name: (line[0],) if isinstance(line[0], str) else tuple(line[0]) for name, line in lines.items()}
            names[kind] = {name: found for name, of_name in meant.items()
                           if (found := tuple(label for label in of_name if label in label_set))}  # fmt: skip
            sources[kind] = {name: line[1] for name, line in lines.items()}
    for kind, other in tracked["same"].items():
        names[kind] = names[other]
        sources[kind] = {name: f"as in {other}, {source}" for name, source in sources[other].items()}
    if terms == NIH_TERMS:  # its own images keep the label that means no finding
        nothing = {NO_FINDING: (NO_FINDING,)}
        names |= {kind: names[kind] | nothing for kind in (NIH_KIND, PHANTOMS)}
    return Terms(terms, label_set, names, sources)


def _load_own(path: Path) -> Terms:
    if not path.is_file():
        what = "there is no such file" if path.suffix else "there is no file of that name either"
        raise InputError(
            f"terms must be {', '.join(TRACKED)} or a TOML file; got {str(path)!r}, and {what}", option="terms"
        )
    try:
        content = tomllib.loads(path.read_text("utf-8"))
        labels = content["labels"]
        tables = {kind: lines for kind, lines in content.items() if kind not in _RESERVED}
        if not isinstance(labels, list) or not all(isinstance(table, dict) for table in tables.values()):
            raise ValueError("labels is not a list, or a key is neither labels, no_finding nor a table")
        label_set = LabelSet(tuple(map(str, labels)), content.get("no_finding", find_no_finding(map(str, labels))))
        kinds = [
            kind for kind in (*_load_tracked(), *_load_tracked()["same"], OWN_KIND) if kind not in (COMMON, "same")
        ]
        if unknown := [kind for kind in tables if kind not in kinds]:
            raise InputError(f"{unknown[0]} is not a kind of data set: the kinds are {', '.join(kinds)}")
        names = {}
        for kind, lines in tables.items():
            of_kind = {name: (meant,) if isinstance(meant, str) else tuple(meant) for name, meant in lines.items()}
            if silent := [name for name, meant in of_kind.items() if not meant]:
                raise InputError(f"{silent[0]} means no label: leave it out, or say which")
            names[kind] = {name: tuple(map(label_set.require, meant)) for name, meant in of_kind.items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, UnicodeDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f'{path} is not a file of terms ({error}); expected labels = ["Fluid", ...] and for each kind of data set '
            'a table, as [chexpert] with lines "name in the set" = "Fluid"'
        ) from None
    return Terms(str(path), label_set, names, {})


def find_names(terms: Terms, kind: str, label_set: LabelSet) -> dict[str, tuple[str, ...]]:
    """Find the labels that each name of a set means; those without a meaning are left out.

    A table of one's own without lines in the file is matched by spelling.
    """
    given = terms.names.get(kind)
    if given is None:
        return {name: (label,) for name in label_set if (label := terms.labels.find(name))}
    by_name = {}
    for name, meant in given.items():
        if found := label_set.find(name):
            by_name[found] = meant
    return by_name


def translate(dataset: Dataset, terms: Terms) -> Dataset:
    """Read a data set in terms of another label set.

    A label is present if one of the names that mean it is, else uncertain if one is, else absent if all are, else not
    known; so is a label that no name means, unless the set would name it if it were there. Notes name what was mapped
    and what was not. Raises InputError if no label of the set has a meaning.
    """
    names = find_names(terms, dataset.kind, dataset.labels)
    if not names:
        raise InputError(
            f"{dataset.folder}: none of its labels ({dataset.labels.describe(8)}) is known in terms of {terms.name}, "
            f"which has {terms.labels.describe(8)}; write a file of terms with a table [{dataset.kind}]",
            option="terms",
        )
    values, lacking = {}, []
    named = {label for meant in terms.names.get(dataset.kind, {}).values() for label in meant}
    is_labelled = (dataset.table[list(dataset.labels)].to_numpy(np.int8) != NOT_KNOWN).any(axis=1)
    for label in terms.labels:
        columns = [name for name, meant in names.items() if label in meant]
        values[label] = _combine(dataset.table[columns].to_numpy(np.int8))
        if not columns and dataset.kind in COMPLETE and label in named:
            values[label] = np.where(is_labelled, ABSENT, NOT_KNOWN).astype(np.int8)  # it occurs in no row of the table
        elif not columns:
            lacking.append(label)
    unused = [name for name in dataset.labels if name not in names]
    notes = [f"{num_of(len(names), 'label')} of {len(dataset.labels)} read in terms of {terms.name}"]
    missing = [name for name in terms.names.get(dataset.kind, ()) if not dataset.labels.find(name)]
    if missing and not terms.sources:  # of a file of one's own, it may be a misspelling
        notes.append(f"names of {terms.name} that this set does not have: {', '.join(missing)}")
    if unused:
        notes.append(f"labels not read, without an equal in {terms.name}: {LabelSet(tuple(unused)).describe()}")
    if lacking:
        notes.append(f"not known in this set: {', '.join(lacking)}")
    others = dataset.table.drop(columns=list(dataset.labels))
    boxes = dataset.boxes.assign(label=dataset.boxes["label"].map(names)).explode("label").dropna(subset="label")
    listed = {key: count for key, count in dataset.listed.items() if key in ("rows", "missing")}
    table = pd.concat([others, pd.DataFrame(values, others.index)], axis=1)
    listed |= {label: int((table[label] == PRESENT).sum()) for label in terms.labels}
    return replace(
        dataset,
        table=table,
        boxes=boxes.reset_index(drop=True),
        labels=terms.labels,
        listed=listed,
        notes=[*dataset.notes, *notes],
    )


def _combine(values: np.ndarray) -> np.ndarray:
    """Combine the values (N, K) of the names of a label, int8 (N,)."""
    if not values.shape[1]:
        return np.full(len(values), NOT_KNOWN, np.int8)
    found = [(values == PRESENT).any(axis=1), (values == UNCERTAIN).any(axis=1), (values == ABSENT).all(axis=1)]
    return np.select(found, [PRESENT, UNCERTAIN, ABSENT], NOT_KNOWN).astype(np.int8)
