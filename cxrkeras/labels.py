"""Label sets: the findings that a data set names, in one fixed order for all its arrays, tables and networks.

A label of an image is 1 (present), 0 (absent), -1 (uncertain: the report hedges) or blank (not known). Tables and
records keep all four values; arrays are int8 with NOT_KNOWN for blank. Scores are computed on `known_truth`.
"""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cxrkeras.errors import InputError

PRESENT, ABSENT, UNCERTAIN, NOT_KNOWN = 1, 0, -1, -2
_TEXTS = {PRESENT: "1", ABSENT: "0", UNCERTAIN: "-1", NOT_KNOWN: ""}  # in a table

ALL = "all"  # a value of options that take a label
MOST_LABELS = 500
LONGEST_LABEL = 100  # characters
# Column names, and words that options and tables use for several labels.
RESERVED = (
    "image_id", "patient_id", "source", "split", "fold", "age", "sex", "view", "path", "shard", "digest", ALL, "mean",
    "mean of findings",
)  # fmt: skip
NO_FINDING_NAMES = ("No Finding", "No Findings", "normal", "healthy", "none", "no abnormality")

_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015\u2212]+")  # between the words of a name, including all kinds of dashes


def spelling_key(name: str) -> str:
    """Return the key that all spellings of a name share, whatever their case, spaces, underscores and hyphens."""
    return _SEPARATORS.sub("", unicodedata.normalize("NFKC", name)).casefold()


def display_name(label: str) -> str:
    """Return a label as it is displayed, with spaces for underscores."""
    return label.replace("_", " ")


def file_name(label: str) -> str:
    """Return a label as it is used in file names and TensorBoard tags, as `Pneumonia_Viral_COVID-19`."""
    return re.sub(r"[^\w.-]+", "_", label)


@dataclass(frozen=True)
class LabelSet:
    """An ordered set of labels, and the one among them that means no finding, if any.

    Raises InputError for names that tables, files or options could not hold or distinguish.
    """

    names: tuple[str, ...]
    no_finding: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= MOST_LABELS:
            raise InputError(f"a label set has 1 to {MOST_LABELS} labels; got {len(self.names)}")
        for name in self.names:
            _check_name(name)
        for key, what in ((spelling_key, "name"), (lambda name: file_name(name).casefold(), "file name")):
            first = {}
            for name in self.names:
                if (of_name := key(name)) in first:
                    raise InputError(
                        f"the labels {first[of_name]!r} and {name!r} have the same {what}: rename one of them"
                    )
                first[of_name] = name
        if self.no_finding is not None and self.no_finding not in self.names:
            raise InputError(f"the label for no finding, {self.no_finding!r}, is not one of the labels")
        if not self.findings:
            raise InputError(f"the only label, {self.no_finding!r}, means no finding: no label is a finding")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._places

    @cached_property
    def findings(self) -> tuple[str, ...]:
        """The labels without the one that means no finding."""
        return tuple(name for name in self.names if name != self.no_finding)

    @cached_property
    def finding_columns(self) -> np.ndarray:
        """The column indices of the findings, int64."""
        return np.array([k for k, name in enumerate(self.names) if name != self.no_finding])

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: k for k, name in enumerate(self.names)}

    @cached_property
    def _by_key(self) -> dict[str, str]:
        return {spelling_key(name): name for name in self.names}

    def index(self, name: str) -> int:
        """Return the column index of a label."""
        return self._places[name]

    def find(self, name: str) -> str | None:
        """Return the label that a name refers to, in any spelling; None if it is not a label."""
        return self._by_key.get(spelling_key(name))

    def suggest(self, name: str) -> str:
        """Return a hint with the nearest label, `did you mean Effusion? `; empty if none is near."""
        key = spelling_key(name)
        near = difflib.get_close_matches(key, self._by_key, 1) or [other for other in self._by_key if other in key]
        return f"did you mean {self._by_key[near[0]]}? " if near else ""

    def require(self, name: str) -> str:
        """Return the label that a name refers to. Raises InputError with the nearest label if there is none."""
        if (label := self.find(name)) is None:
            raise InputError(f"unknown label {name!r}; {self.suggest(name)}the labels are {self.describe()}")
        return label

    def describe(self, most: int = 40) -> str:
        """List the names for a message, at most `most` of them."""
        more = f" and {len(self) - most:,} more" if len(self) > most else ""
        return ", ".join(self.names[:most]) + more

    def choose(self, names: Sequence[str]) -> "LabelSet":
        """Return the subset with the given labels, in the given order."""
        chosen = tuple(self.require(name) for name in names)
        return LabelSet(chosen, self.no_finding if self.no_finding in chosen else None)

    def parse(self, text: str) -> np.ndarray:
        """Parse `Effusion|Mass` to 1 and 0 for each label, int8 (L,).

        Raises InputError for a name that is not a label, for an empty text, and if the label that means no finding
        occurs together with a finding.
        """
        values = np.zeros(len(self), np.int8)
        for name in text.split("|"):
            label = self.find(name)
            if label is None:
                raise InputError(
                    f"unknown label {name!r} in {text!r}; {self.suggest(name)}the labels are {self.describe()}, joined "
                    "by '|'"
                )
            values[self.index(label)] = PRESENT
        if self.no_finding and values[self.index(self.no_finding)] and values.sum() > 1:
            raise InputError(f"{text!r} combines {self.no_finding} with a finding")
        return values

    def encode(self, values: Iterable[int]) -> str:
        """Encode values of 0 and 1 as the text that `parse` reads."""
        return "|".join(label for label, value in zip(self.names, values, strict=True) if value)


def _check_name(name: str) -> None:
    if name != name.strip() or not spelling_key(name):
        raise InputError(f"the name of a label must not be blank or surrounded by spaces; got {name!r}")
    if len(name) > LONGEST_LABEL:
        raise InputError(f"a label has at most {LONGEST_LABEL} characters; got {len(name)}: {name[:40]!r}...")
    if "|" in name or not name.isprintable():
        raise InputError(f"the name of a label must not contain '|' or control characters; got {name!r}")
    if name.casefold() in RESERVED or name.casefold().startswith("logit_"):
        raise InputError(
            f"a label may not be called {name!r}: reserved names are {', '.join(RESERVED)} and logit_<label>"
        )


def find_no_finding(names: Iterable[str]) -> str | None:
    """Find the name that conventionally means no finding. Raises InputError if there are several."""
    keys = {spelling_key(name) for name in NO_FINDING_NAMES}
    found = [name for name in names if spelling_key(name) in keys]
    if len(found) > 1:
        raise InputError(
            f"{' and '.join(map(repr, found))} both mean no finding: say which one with normal", option="normal"
        )
    return found[0] if found else None


def known_truth(values: np.ndarray) -> np.ndarray:
    """Return 1 and 0 for known labels, NaN for uncertain and unknown ones; float64 in the shape of `values`."""
    values = np.asarray(values, np.float64)
    return np.where(values == PRESENT, 1.0, np.where(values == ABSENT, 0.0, np.nan))


def encode_values(values: np.ndarray) -> np.ndarray:
    """Encode values as in tables, `1`, `0`, `-1` or an empty text; object array in the shape of `values`."""
    texts = np.array([_TEXTS[value] for value in sorted(_TEXTS)], object)
    return texts[np.asarray(values, np.int64) - min(_TEXTS)]


def parse_values(texts: Iterable[str]) -> np.ndarray:
    """Parse the texts of `encode_values`, int8 (N,). Raises ValueError for any other text."""
    by_text = {text: value for value, text in _TEXTS.items()}
    try:
        return np.array([by_text[text] for text in texts], np.int8)
    except KeyError as error:
        raise ValueError(f"a label must be 1, 0, -1 or blank; got {error.args[0]!r}") from None


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

NIH = LabelSet(
    (
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
        NO_FINDING,
    ),
    NO_FINDING,
)  # of NIH ChestX-ray14
