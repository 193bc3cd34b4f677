"""The 15 labels of NIH ChestX-ray14 in the one order that every array, table and network uses."""

import difflib
import re
import unicodedata
from collections.abc import Iterable

import numpy as np

from cxrkeras.errors import InputError

ATELECTASIS = "Atelectasis"
CARDIOMEGALY = "Cardiomegaly"
CONSOLIDATION = "Consolidation"
EDEMA = "Edema"
EFFUSION = "Effusion"
EMPHYSEMA = "Emphysema"
FIBROSIS = "Fibrosis"
HERNIA = "Hernia"
INFILTRATION = "Infiltration"
MASS = "Mass"
NODULE = "Nodule"
PLEURAL_THICKENING = "Pleural_Thickening"
PNEUMONIA = "Pneumonia"
PNEUMOTHORAX = "Pneumothorax"
NO_FINDING = "No Finding"

FINDINGS = (
    ATELECTASIS,
    CARDIOMEGALY,
    CONSOLIDATION,
    EDEMA,
    EFFUSION,
    EMPHYSEMA,
    FIBROSIS,
    HERNIA,
    INFILTRATION,
    MASS,
    NODULE,
    PLEURAL_THICKENING,
    PNEUMONIA,
    PNEUMOTHORAX,
)
LABELS = (*FINDINGS, NO_FINDING)

_POSITION = {label: position for position, label in enumerate(LABELS)}
_JOINTS = re.compile(r"[\s_\-\u2010-\u2015\u2212]+")  # between the words of a name, dashes of all kinds among them


def _spelling_key(name: str) -> str:
    return _JOINTS.sub("", unicodedata.normalize("NFKC", name)).casefold()


_BY_KEY = {_spelling_key(label): label for label in LABELS}


def find_label(name: str) -> str | None:
    """The label that a name means, whatever its case, blanks, underscores and hyphens; None if it is not a label."""
    return _BY_KEY.get(_spelling_key(name))


def suggest_label(name: str) -> str:
    """The nearest label as a hint for a message, `did you mean Effusion? `; empty if none is near."""
    key = _spelling_key(name)
    near = difflib.get_close_matches(key, _BY_KEY, 1) or [other for other in _BY_KEY if other in key]
    return f"did you mean {_BY_KEY[near[0]]}? " if near else ""


def parse_labels(text: str) -> np.ndarray:
    """Turn `Effusion|Mass` into a vector of 0 and 1, uint8 (15,); spellings as in `find_label`.

    Raises InputError for a name that is not one of the 15, for an empty text, and for No Finding together with a
    finding.
    """
    values = np.zeros(len(LABELS), np.uint8)
    for name in text.split("|"):
        label = find_label(name)
        if label is None:
            raise InputError(
                f"unknown label {name!r} in {text!r}; {suggest_label(name)}the labels are {', '.join(LABELS)}, "
                "joined by '|'"
            )
        values[_POSITION[label]] = 1
    if values[_POSITION[NO_FINDING]] and values.sum() > 1:
        raise InputError(f"{text!r} says {NO_FINDING} and names a finding")
    return values


def encode_labels(values: Iterable[int]) -> str:
    """Turn 15 values of 0 and 1 into the text that `parse_labels` reads back."""
    return "|".join(label for label, positive in zip(LABELS, values, strict=True) if positive)
