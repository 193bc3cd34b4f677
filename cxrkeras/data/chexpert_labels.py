"""The fourteen labels that the CheXpert labeller extracts from reports: 1, 0, -1 for uncertain, blank for unmentioned.

Irvin et al., CheXpert, AAAI 2019, section 2; MIMIC-CXR-JPG has the same columns.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.data.csv_table import name_lines
from cxrkeras.data.reading import AS_ABSENT, AS_UNKNOWN, Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import (
    ABSENT,
    ATELECTASIS,
    CARDIOMEGALY,
    CONSOLIDATION,
    EDEMA,
    NO_FINDING,
    NOT_KNOWN,
    PNEUMONIA,
    PNEUMOTHORAX,
    PRESENT,
    UNCERTAIN,
    LabelSet,
)

LUNG_OPACITY = "Lung Opacity"
CHEXPERT = LabelSet(
    (
        NO_FINDING,
        "Enlarged Cardiomediastinum",
        CARDIOMEGALY,
        LUNG_OPACITY,
        "Lung Lesion",
        EDEMA,
        CONSOLIDATION,
        PNEUMONIA,
        ATELECTASIS,
        PNEUMOTHORAX,
        "Pleural Effusion",
        "Pleural Other",
        "Fracture",
        "Support Devices",
    ),
    NO_FINDING,
)
_VALUES = {
    **dict.fromkeys(("1.0", "1"), PRESENT),
    **dict.fromkeys(("0.0", "0"), ABSENT),
    **dict.fromkeys(("-1.0", "-1"), UNCERTAIN),
    "": NOT_KNOWN,
}
_NO_COLUMN = -3  # of a label that a table has no column for


def parse_chexpert_labels(entry: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Parse the columns of CHEXPERT to int8 values, for `read_blanks`. Raises InputError for any other text."""
    values = {}
    for label in CHEXPERT:
        if label not in entry.columns:
            values[label] = np.full(len(entry), _NO_COLUMN, np.int8)
            continue
        codes, texts = pd.factorize(entry[label])
        if unknown := [text for text in texts if text.strip() not in _VALUES]:
            raise InputError(
                f"{path}, {name_lines(entry[label] == unknown[0])}: {label} is {unknown[0]!r}; expected 1.0, 0.0, -1.0 "
                "or blank"
            )
        values[label] = np.array([_VALUES[text.strip()] for text in texts], np.int8)[codes]
    return pd.DataFrame(values, entry.index)


def read_blanks(values: pd.DataFrame, reading: Reading, notes: list[str]) -> tuple[pd.DataFrame, dict[str, object]]:
    """Read the labels that no report mentions, as absent by default; the values, and the setting to keep.

    Labels without a column are not known, whatever the setting.
    """
    blank = reading.blank or AS_ABSENT
    is_blank = values == NOT_KNOWN
    values = values.where(values != _NO_COLUMN, NOT_KNOWN).astype(np.int8)
    count, total = int(is_blank.to_numpy().sum()), is_blank.size
    what = f"{count:,} of {total:,} labels of the label files are blank, as reports do not mention them"
    if blank == AS_ABSENT:
        notes.append(f"{what}: they count as absent; blank=unknown reads them as not known")
        return values.mask(is_blank, ABSENT).astype(np.int8), {"blank": AS_ABSENT}
    notes.append(f"{what}: they count as not known")
    if not (values[NO_FINDING] == ABSENT).any():
        notes.append(f"{NO_FINDING} is never absent but blank: it cannot be trained or scored with blank=unknown")
    return values, {"blank": AS_UNKNOWN}
