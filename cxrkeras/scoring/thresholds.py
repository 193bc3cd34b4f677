"""Decision thresholds per label, and the resulting metrics."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import pydantic
from sklearn.metrics import roc_curve

from cxrkeras.errors import InputError
from cxrkeras.files import load_shaped, write_json
from cxrkeras.labels import LabelSet
from cxrkeras.scoring.run_files import THRESHOLDS, Origin
from cxrkeras.scoring.scores import hamming_loss

YOUDEN = "youden"
MIXED_RULES = "the members' own rules"


@dataclass(frozen=True)
class Thresholds:
    """The calibrated probability at which each label counts as found; None where no threshold could be fitted.

    rule: `youden` or, for example, `sensitivity>=0.9`.
    """

    rule: str
    fitted_on: Origin
    values: dict[str, float | None]
    notes: dict[str, str]

    def array(self, names: Iterable[str]) -> np.ndarray:
        """Return the thresholds of the labels `names`, float64 (L,); NaN where there is none."""
        return np.array([np.nan if self.values.get(name) is None else self.values[name] for name in names])


def fit_thresholds(
    truth: np.ndarray,
    probs: np.ndarray,
    names: Sequence[str],
    *,
    fitted_on: Origin,
    sensitivity: float | None = None,
    unseen: Collection[str] = (),
) -> Thresholds:
    """Fit a threshold for each label. truth: 0, 1 or NaN where not known, (N, L); probs: calibrated, (N, L).

    By default the threshold maximises Youden's J = sensitivity + specificity - 1 (Cancer 3, 1950); of equal ones the
    lowest is chosen, as a false positive is preferred to a false negative. With `sensitivity`, it is the highest
    threshold that reaches this sensitivity. Thresholds lie midway between two observed probabilities, so that rounding
    cannot flip a decision. Labels that are `unseen`, without positives in training, get none.
    """
    if sensitivity is not None and not 0 < sensitivity <= 1:
        raise InputError(f"the sensitivity must be over 0 and up to 1; got {sensitivity}")
    values: dict[str, float | None] = {}
    notes: dict[str, str] = {}
    for name, known_or_not, all_probs in zip(names, truth.T, probs.T, strict=True):
        values[name], notes[name] = None, ""
        is_known = np.isfinite(known_or_not)
        y, p = known_or_not[is_known] > 0, all_probs[is_known]
        if name in unseen:
            notes[name] = "no threshold: no positives in training"
        elif not np.isfinite(p).all():
            notes[name] = "no threshold: probabilities are not finite"
        elif y.all() or not y.any():
            notes[name] = f"no threshold: no {'negatives' if y.any() else 'positives'} to fit on"
        else:
            values[name] = _find_threshold(y, p, sensitivity)
            if values[name] is None:
                notes[name] = "no threshold: Youden's J is never above zero, the network ranks no better than chance"
    rule = YOUDEN if sensitivity is None else f"sensitivity>={sensitivity:g}"
    return Thresholds(rule, fitted_on, values, notes)


def _find_threshold(positive: np.ndarray, probs: np.ndarray, sensitivity: float | None) -> float | None:
    # Candidates are in descending order; the first is infinite, so that nothing is found.
    false_positives, found, candidates = roc_curve(positive, probs, drop_intermediate=False)
    if sensitivity is None:
        youden = found - false_positives
        if youden.max() <= 0:
            return None
        chosen = np.flatnonzero(youden >= youden.max() - 1e-12)[-1]
    else:
        chosen = np.flatnonzero(found >= sensitivity - 1e-12)[0]
    below = candidates[chosen + 1] if chosen + 1 < len(candidates) else 0.0
    return float((candidates[chosen] + below) / 2)


def count_outcomes(truth: np.ndarray, probs: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Count true positives, false positives, false negatives and true negatives of each label, int (L, 4).

    truth: 0, 1, or NaN where not known, (N, L); probs: (N, L); thresholds: (L,), at which a label counts as found.
    """
    positive, negative, found = truth == 1, truth == 0, probs >= thresholds
    return np.stack(
        [
            (positive & found).sum(axis=0),
            (negative & found).sum(axis=0),
            (positive & ~found).sum(axis=0),
            (negative & ~found).sum(axis=0),
        ],
        axis=1,
    )


def score_decisions(truth: np.ndarray, probs: np.ndarray, thresholds: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Score decisions, one row per label: threshold, tp, fp, fn, tn, sensitivity, specificity, ppv, npv, f1, youden.

    Rates with a denominator of zero are NaN, and so are all values of a label without a threshold.
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
    """Compute the Hamming loss and the exact match, the share of images with every known label right.

    Both are over the labels with a threshold, and the images in which one of these is known.
    """
    usable = np.isfinite(thresholds) & np.isfinite(probs).all(axis=0)
    if not (usable.any() and len(truth)):
        return {"hamming_loss": np.nan, "exact_match": np.nan, "labels": 0}
    truth, probs, thresholds = truth[:, usable], probs[:, usable], thresholds[usable]
    is_known = np.isfinite(truth)
    is_right = ((probs >= thresholds) == (truth > 0)) | ~is_known
    counted = is_known.any(axis=1)
    return {
        "hamming_loss": hamming_loss(truth, probs, thresholds),
        "exact_match": float(is_right[counted].all(axis=1).mean()) if counted.any() else np.nan,
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
    content = {"rule": thresholds.rule, "of": "calibrated probabilities", "fitted_on": thresholds.fitted_on.dump()}
    write_json(folder / THRESHOLDS, content | {"labels": rows})


def load_thresholds(folder: Path, labels: LabelSet) -> Thresholds:
    """Load thresholds.json of a fold. Raises InputError if it is missing, damaged or lacks a label."""
    path = folder / THRESHOLDS
    if not path.is_file():
        raise InputError(f"{folder} has no {THRESHOLDS}: `cxrkeras calibrate --run {folder}` fits it")
    content = load_shaped(path, _File)
    if missing := [name for name in labels if name not in content.labels]:
        raise InputError(f"{path} lacks {', '.join(missing)}: `cxrkeras calibrate --run {folder}` fits it again")
    values = {name: content.labels[name].threshold for name in labels}
    notes = {name: content.labels[name].note for name in labels}
    return Thresholds(content.rule, content.fitted_on, values, notes)
