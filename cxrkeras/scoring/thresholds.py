"""Operating points: from which probability on a label counts as found, and what that brings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import pydantic
from sklearn.metrics import roc_curve

from cxrkeras import labels
from cxrkeras.errors import InputError
from cxrkeras.files import load_shaped, write_json
from cxrkeras.scoring.find_runs import THRESHOLDS, Origin
from cxrkeras.scoring.scores import hamming_loss

YOUDEN = "youden"
MIXED_RULES = "the members' own rules"


@dataclass(frozen=True)
class Thresholds:
    """A calibrated probability for each label, from which on it counts as found; None where none could be fitted.

    rule: `youden`, or `sensitivity>=0.9`; fitted_on: part, split name, fold, images, patients.
    """

    rule: str
    fitted_on: dict
    values: dict[str, float | None]
    notes: dict[str, str]

    def array(self, names: tuple[str, ...] = labels.LABELS) -> np.ndarray:
        """The thresholds of the labels `names`, float64 (L,); NaN where there is none."""
        return np.array([np.nan if self.values.get(name) is None else self.values[name] for name in names])


def fit_thresholds(
    truth: np.ndarray,
    probs: np.ndarray,
    *,
    fitted_on: dict,
    sensitivity: float | None = None,
    names: tuple[str, ...] = labels.LABELS,
) -> Thresholds:
    """Fit each label's threshold on truth 0 or 1 and calibrated probabilities, (N, L).

    Without a wanted `sensitivity` the one with the largest Youden's J = sensitivity + specificity - 1 (Cancer 3, 1950;
    of equals the lowest, as a false positive is preferred to a false negative); with it the highest that keeps
    it. A threshold lies half way between two probabilities that occur, so that rounding moves no image across.
    """
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise InputError(f"the wanted sensitivity is a share over 0 and up to 1; got {sensitivity}")
    values, notes = {}, {}
    for name, y, p in zip(names, truth.T > 0, probs.T, strict=True):
        values[name], notes[name] = None, ""
        if not np.isfinite(p).all():
            notes[name] = "no threshold: probabilities are not finite"
        elif y.all() or not y.any():
            notes[name] = f"no threshold: no {'negatives' if y.any() else 'positives'} to fit on"
        else:
            values[name] = _find_threshold(y, p, sensitivity)
            if values[name] is None:
                notes[name] = "no threshold: Youden's J is nowhere above zero, the network ranks no better than chance"
    rule = YOUDEN if sensitivity is None else f"sensitivity>={sensitivity:g}"
    return Thresholds(rule, fitted_on, values, notes)


def _find_threshold(positive: np.ndarray, probs: np.ndarray, sensitivity: float | None) -> float | None:
    # Cuts fall; the first is infinite and finds nothing.
    false_positives, found, cuts = roc_curve(positive, probs, drop_intermediate=False)
    if sensitivity is None:
        youden = found - false_positives
        if youden.max() <= 0:
            return None
        chosen = np.flatnonzero(youden >= youden.max() - 1e-12)[-1]
    else:
        chosen = np.flatnonzero(found >= sensitivity - 1e-12)[0]
    below = cuts[chosen + 1] if chosen + 1 < len(cuts) else 0.0
    return float((cuts[chosen] + below) / 2)


def count_outcomes(truth: np.ndarray, probs: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """True positives, false positives, false negatives and true negatives of all labels at once, int (L, 4).

    truth: 0 or 1, (N, L); probs (N, L); thresholds (L,), from which on a label counts as found.
    """
    positive, found = truth > 0, probs >= thresholds
    return np.stack(
        [
            (positive & found).sum(axis=0),
            (~positive & found).sum(axis=0),
            (positive & ~found).sum(axis=0),
            (~positive & ~found).sum(axis=0),
        ],
        axis=1,
    )


def score_decisions(
    truth: np.ndarray, probs: np.ndarray, thresholds: np.ndarray, names: tuple[str, ...] = labels.LABELS
) -> pd.DataFrame:
    """A row a label: threshold, tp, fp, fn, tn, sensitivity, specificity, ppv, npv, f1, youden.

    A rate whose denominator is zero is NaN; so is all of a label without a threshold.
    """
    counts = count_outcomes(truth, probs, thresholds).astype(float)
    counts[~np.isfinite(thresholds) | ~np.isfinite(probs).all(axis=0)] = np.nan
    tp, fp, fn, tn = counts.T
    with np.errstate(invalid="ignore", divide="ignore"):
        table = pd.DataFrame(
            {
                "threshold": thresholds,
                **dict(zip(("tp", "fp", "fn", "tn"), counts.T, strict=True)),
                "sensitivity": tp / (tp + fn),
                "specificity": tn / (tn + fp),
                "ppv": tp / (tp + fp),
                "npv": tn / (tn + fn),
                "f1": 2 * tp / (2 * tp + fp + fn),
            },
            index=pd.Index(names, name="label"),
        )
    table["youden"] = table["sensitivity"] + table["specificity"] - 1
    return table


def score_images(truth: np.ndarray, probs: np.ndarray, thresholds: np.ndarray) -> dict[str, float]:
    """Hamming loss, and exact match: the share of images with every label right. Of the labels with a threshold."""
    usable = np.isfinite(thresholds) & np.isfinite(probs).all(axis=0)
    if not (usable.any() and len(truth)):
        return {"hamming_loss": np.nan, "exact_match": np.nan, "labels": 0}
    truth, probs, thresholds = truth[:, usable], probs[:, usable], thresholds[usable]
    return {
        "hamming_loss": hamming_loss(truth, probs, thresholds),
        "exact_match": float(((probs >= thresholds) == (truth > 0)).all(axis=1).mean()),
        "labels": int(usable.sum()),
    }


class _Row(pydantic.BaseModel):
    threshold: Annotated[float, pydantic.Field(ge=0, le=1)] | None
    note: str


class _File(pydantic.BaseModel):
    rule: str
    fitted_on: Origin
    labels: dict[str, _Row]


def save_thresholds(folder: Path, thresholds: Thresholds) -> None:
    """Write thresholds.json of a fold."""
    rows = {name: {"threshold": value, "note": thresholds.notes[name]} for name, value in thresholds.values.items()}
    content = {"rule": thresholds.rule, "of": "calibrated probabilities", "fitted_on": thresholds.fitted_on}
    write_json(folder / THRESHOLDS, content | {"labels": rows})


def load_thresholds(folder: Path) -> Thresholds:
    """Read thresholds.json of a fold; InputError if it is missing or damaged."""
    path = folder / THRESHOLDS
    if not path.is_file():
        raise InputError(f"{folder} has no {THRESHOLDS}: `make calibrate RUN={folder}` fits it")
    content = load_shaped(path, _File)
    if missing := [name for name in labels.LABELS if name not in content["labels"]]:
        raise InputError(f"{path} lacks {', '.join(missing)}: `make calibrate RUN={folder}` fits it anew")
    values = {name: row["threshold"] for name, row in content["labels"].items()}
    notes = {name: row["note"] for name, row in content["labels"].items()}
    return Thresholds(content["rule"], content["fitted_on"], values, notes)
