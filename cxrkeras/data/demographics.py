"""Parses age, sex and view as data sets spell them."""

import re
from collections.abc import Callable

import pandas as pd

from cxrkeras.text import num_of

OLDEST = 120  # years; the NIH release has ages of up to 414
_UNKNOWN = {"", "nan", "na", "n/a", "none", "null", "unknown", "unk", "u", "-", "?", "not known", "not given"}
_SEX_WORDS = {
    "F": ("f", "female", "woman", "girl"),
    "M": ("m", "male", "man", "boy"),
    "other": ("o", "other", "x", "diverse", "intersex", "nonbinary", "non-binary"),
}
_VIEW_WORDS = {
    "PA": ("pa", "posteroanterior", "posterioranterior"),
    "AP": ("ap", "anteroposterior", "anteriorposterior"),
    "lateral": (
        "l", "lat", "lateral", "ll", "rl", "leftlateral", "rightlateral", "lateralleft", "lateralright",
        "xtablelateral",
    ),
    "other": (
        "other", "oblique", "leftoblique", "rightoblique", "lao", "rao", "lpo", "rpo", "lordotic", "decubitus", "axial",
        "apaxial", "swimmers", "lld", "rld", "aplld", "aprld", "palld", "parld",
    ),
}  # fmt: skip
# Words about how an image was acquired, not about its view.
_NOT_VIEW_WORDS = {
    "view", "projection", "position", "image", "film", "chest", "cxr", "xray", "x", "ray", "frontal", "erect",
    "upright", "standing", "sitting", "semi", "semierect", "supine", "horizontal", "portable", "mobile", "bedside",
}  # fmt: skip
_UNITS_PER_YEAR = {"y": 1.0, "m": 12.0, "w": 52.18, "d": 365.25}
_AGE = re.compile(
    r"(\d+(?:[.,]\d+)?)\s*(?:(y)(?:rs?|ears?|o|\.o\.?|/o)?|(m)(?:o|os|ths?|onths?)?|(w)(?:ks?|eeks?)?|(d)(?:ays?)?)?"
    r"(?:\s*old)?\.?"
)


def parse_demographics(
    index: pd.Index,
    notes: list[str],
    *,
    age: pd.Series | None = None,
    sex: pd.Series | None = None,
    view: pd.Series | None = None,
) -> pd.DataFrame:
    """Parse the columns age, sex and view of a table with the given index; a missing column is blank."""
    columns = {}
    for name, texts, parse in (("age", age, parse_ages), ("sex", sex, parse_sexes), ("view", view, parse_views)):
        columns[name], of_column = parse(pd.Series("", index, dtype=str) if texts is None else texts)
        notes += of_column
    return pd.DataFrame(columns, index)


def parse_sexes(texts: pd.Series) -> tuple[pd.Series, list[str]]:
    """Parse each text to `F`, `M`, `other` or blank; and notes that list and count unrecognised values."""
    return _parse_each(texts, "sex", _parse_sex, "")


def parse_views(texts: pd.Series) -> tuple[pd.Series, list[str]]:
    """Parse each text to `PA`, `AP`, `frontal` (without PA or AP), `lateral`, `other` or blank, and notes."""
    return _parse_each(texts, "view", _parse_view, "")


def parse_ages(texts: pd.Series) -> tuple[pd.Series, list[str]]:
    """Parse `58`, `058Y`, `45 years`, `011M` or `3 weeks` to years, and notes; NaN for other texts and above 120."""
    ages, notes = _parse_each(texts, "age", _parse_age, float("nan"))
    ages = ages.astype(float)
    if too_old := int((ages > OLDEST).sum()):
        notes.append(f"age: {num_of(too_old, 'value')} above {OLDEST} years left blank (largest: {ages.max():g})")
    return ages.where(ages <= OLDEST), notes


def _parse_each(
    texts: pd.Series, name: str, parse: Callable[[str], str | float | None], unknown: str | float
) -> tuple[pd.Series, list[str]]:
    """Parse each distinct text; where `parse` returns None, the value is `unknown` and the text is listed."""
    texts = texts.str.strip()
    parsed = {text: unknown if text.casefold() in _UNKNOWN else parse(text.casefold()) for text in texts.unique()}
    unrecognised = texts[texts.map(lambda text: parsed[text] is None).astype(bool)].value_counts()
    notes = []
    if len(unrecognised):
        shown = ", ".join(f"{text!r} ({count:,})" for text, count in unrecognised.head(5).items())
        more = f" and {len(unrecognised) - 5:,} others" if len(unrecognised) > 5 else ""
        count = num_of(int(unrecognised.sum()), "value", "is")
        notes.append(f"{name}: {count} not recognised and left blank: {shown}{more}")
    return texts.map({text: unknown if value is None else value for text, value in parsed.items()}), notes


def _parse_sex(text: str) -> str | None:
    return next((sex for sex, words in _SEX_WORDS.items() if text.rstrip(".") in words), None)


def _parse_view(text: str) -> str | None:
    words = re.findall(r"[^\W\d_]+", text)
    joined = "".join(word for word in words if word not in _NOT_VIEW_WORDS)
    if not joined and "frontal" in words:
        return "frontal"
    return next((view for view, names in _VIEW_WORDS.items() if joined in names), None)


def _parse_age(text: str) -> float | None:
    match = _AGE.fullmatch(text)
    if not match:
        return None
    unit = next(filter(None, match.groups()[1:]), "y")
    return float(match[1].replace(",", ".")) / _UNITS_PER_YEAR[unit]
