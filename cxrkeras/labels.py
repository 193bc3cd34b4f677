"""The 15 labels of NIH ChestX-ray14 in the one order that every array, table and network uses."""

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


def parse_labels(text: str) -> np.ndarray:
    """Turn `Effusion|Mass` into a multi-hot vector, uint8 (15,).

    Raises InputError for a name that is not one of the 15, for an empty text, and for No Finding beside
    a finding.
    """
    hot = np.zeros(len(LABELS), np.uint8)
    for name in text.split("|"):
        if name not in _POSITION:
            raise InputError(f"unknown label {name!r} in {text!r}; the labels are {', '.join(LABELS)}, joined by '|'")
        hot[_POSITION[name]] = 1
    if hot[_POSITION[NO_FINDING]] and hot.sum() > 1:
        raise InputError(f"{text!r} says {NO_FINDING} and names a finding")
    return hot


def encode_labels(hot: Iterable[int]) -> str:
    """Turn a multi-hot vector of 15 into the text that `parse_labels` reads back."""
    return "|".join(label for label, positive in zip(LABELS, hot, strict=True) if positive)
