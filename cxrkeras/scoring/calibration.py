"""Calibration of logits to probabilities, label by label, fitted on the validation set."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydantic
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from cxrkeras.errors import InputError
from cxrkeras.files import load_shaped, write_json
from cxrkeras.labels import LabelSet
from cxrkeras.scoring.predictions import LEAST_RANGE
from cxrkeras.scoring.run_files import CALIBRATION, Origin

PLATT, TEMPERATURE, ISOTONIC = METHODS = ("platt", "temperature", "isotonic")
MEMBERS = "members"  # ensembles over folds: the mean of probabilities calibrated by each member's own method
UNCALIBRATED = "uncalibrated"  # adopted networks: the sigmoid as it is
PROBABILITY_EPSILON = 1e-7  # probabilities are stored as logits, which must be finite
NOT_CALIBRATED = "not calibrated"
BINS = 10


@dataclass(frozen=True)
class Curve:
    """The calibration curve of a label: expit(slope * logit + intercept), or interpolation of `probs` at `logits`.

    The note says why the curve is not the one that its method would fit; it is empty otherwise.
    """

    slope: float = 1.0
    intercept: float = 0.0
    logits: tuple[float, ...] = ()
    probs: tuple[float, ...] = ()
    note: str = ""

    @property
    def is_valid(self) -> bool:
        """Whether the probabilities are between 0 and 1 and do not decrease with the logit."""
        steps = (
            np.asarray((self.logits, self.probs)) if len(self.logits) == len(self.probs) else np.full((2, 1), np.nan)
        )
        is_monotonic = np.isfinite(steps).all() and (np.diff(steps) >= 0).all()
        is_inside = ((steps[1] >= 0) & (steps[1] <= 1)).all()
        return bool(is_monotonic and is_inside and np.isfinite(self.intercept) and 0 <= self.slope < np.inf)

    def apply(self, logits: np.ndarray) -> np.ndarray:
        """Compute calibrated probabilities."""
        probs: np.ndarray = (
            np.interp(logits, self.logits, self.probs) if self.logits else expit(self.compute_log_odds(logits))
        )
        return probs

    def compute_log_odds(self, logits: np.ndarray) -> np.ndarray:
        """Compute the log odds of calibrated probabilities: finite, and for a logistic curve linear in the logits."""
        if self.logits:
            log_odds: np.ndarray = logit(np.clip(self.apply(logits), PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON))
            return log_odds
        return self.slope * logits + self.intercept


@dataclass(frozen=True)
class Calibration:
    """A curve for each label, and the data that they were fitted on."""

    method: str
    fitted_on: Origin
    curves: dict[str, Curve]

    def apply(self, logits: np.ndarray, names: Iterable[str]) -> np.ndarray:
        """Compute calibrated probabilities, float64 (N, L), of logits (N, L) of the labels `names`; NaN stays NaN."""
        columns = [self.curves[name].apply(logits[:, column].astype(np.float64)) for column, name in enumerate(names)]
        return np.stack(columns, axis=1)


def explain_numbers(method: str, part: str) -> str:
    """Say what the numbers between 0 and 1 that a calibration gives are, in a sentence."""
    if method == UNCALIBRATED:
        return "Numbers are the sigmoid of the network's outputs, not calibrated: do not read them as probabilities."
    return f"Numbers are probabilities, calibrated on {part}."


def fit_calibration(
    truth: np.ndarray,
    logits: np.ndarray,
    names: Sequence[str],
    *,
    fitted_on: Origin,
    method: str = PLATT,
) -> Calibration:
    """Fit each label separately. truth: 0, 1 or NaN where not known, (N, L); logits: (N, L).

    platt: expit(a z + b) with Platt's smoothed targets (Advances in Large Margin Classifiers, 1999), a at least 0;
    temperature: expit(z / T) with one temperature per label (Guo et al., ICML 2017); isotonic: the best non-decreasing
    step function. A label without positives or negatives, or with logits that are not finite, keeps expit(z) and gets a
    note. So does a label whose mean probability is far from its prevalence, which a temperature cannot correct.
    """
    if method not in METHODS:
        raise InputError(f"the calibration method must be one of {', '.join(METHODS)}; got {method!r}")
    curves = {}
    for name, known_or_not, all_logits in zip(names, truth.T, logits.T.astype(np.float64), strict=True):
        is_known = np.isfinite(known_or_not)
        y, z = known_or_not[is_known] > 0, all_logits[is_known]
        curve = _fit_curve(y, z, method)
        if method == TEMPERATURE and not curve.note.startswith(NOT_CALIBRATED):
            curve = replace(curve, note="; ".join(filter(None, (curve.note, _judge_mean(y, curve.apply(z))))))
        curves[name] = curve
    return Calibration(method, fitted_on, curves)


def _judge_mean(positive: np.ndarray, probs: np.ndarray) -> str:
    """Return a note if the mean probability differs from the prevalence by more than 20 % and two standard errors."""
    wanted, got = positive.mean(), probs.mean()
    if abs(got - wanted) <= max(wanted / 5, 2 * np.sqrt((probs * (1 - probs)).sum()) / len(probs)):
        return ""
    return (
        f"mean probability {got:.3f} at a prevalence of {wanted:.3f}, which a temperature cannot correct: use {PLATT}"
    )


def _fit_curve(positive: np.ndarray, logits: np.ndarray, method: str) -> Curve:
    num_positives, num_negatives = int(positive.sum()), int((~positive).sum())
    if not np.isfinite(logits).all():
        return Curve(note=f"{NOT_CALIBRATED}: logits are not finite")
    if not (num_positives and num_negatives):
        return Curve(note=f"{NOT_CALIBRATED}: no {'negatives' if num_positives else 'positives'} to fit on")
    if method == ISOTONIC:
        fitted = IsotonicRegression(out_of_bounds="clip").fit(logits, positive)
        steps = fitted.X_thresholds_.tolist(), fitted.y_thresholds_.tolist()
        return Curve(logits=tuple(steps[0]), probs=tuple(steps[1]))
    # Each image counts as a positive and a negative, weighted by its target.
    smooth = method == PLATT
    low, high = (1 / (num_negatives + 2), (num_positives + 1) / (num_positives + 2)) if smooth else (0.0, 1.0)
    target = np.where(positive, high, low)
    # The logits are centred and scaled, as Newton's method fails on 1e6 + 0.001 or 0.3 + 1e-17.
    centre = logits.mean() if smooth else 0.0
    spread = np.abs(logits - centre).max()
    if np.ptp(logits) >= LEAST_RANGE:
        inputs, targets = np.tile((logits - centre) / spread, 2)[:, None], np.repeat([1, 0], len(logits))
        model = LogisticRegression(C=np.inf, fit_intercept=smooth, solver="newton-cholesky", tol=1e-8)
        model.fit(inputs, targets, sample_weight=np.concatenate([target, 1 - target]))
        slope = float(model.coef_[0, 0]) / spread
        if slope > 0:
            return Curve(slope, float(model.intercept_[0]) - slope * centre if smooth else 0.0)
    return Curve(
        0.0,
        float(logit(target.mean())) if smooth else 0.0,
        note="a constant: the network ranks this label no better than chance on the set it is fitted on",
    )


class _File(pydantic.BaseModel):
    method: str
    fitted_on: Origin
    labels: dict[str, Curve]


def save_calibration(folder: Path, calibration: Calibration) -> None:
    """Write calibration.json of a fold."""
    curves = {}
    for name, curve in calibration.curves.items():
        curves[name] = (
            {"logits": curve.logits, "probs": curve.probs}
            if curve.logits
            else {"slope": curve.slope, "intercept": curve.intercept}
        ) | {"note": curve.note}
    content = {"method": calibration.method, "fitted_on": calibration.fitted_on.dump(), "labels": curves}
    write_json(folder / CALIBRATION, content)


def load_calibration(folder: Path, labels: LabelSet) -> Calibration:
    """Load calibration.json of a fold. Raises InputError if it is missing, damaged or lacks a label.

    Nothing is fitted.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        raise InputError(f"{folder} has no {CALIBRATION}: `cxrkeras calibrate --run {folder}` fits it")
    content = load_shaped(path, _File)
    curves = content.labels
    if wrong := [name for name, curve in curves.items() if not curve.is_valid]:
        raise InputError(f"{path} is damaged ({wrong[0]}): `cxrkeras calibrate --run {folder}` fits it again")
    if missing := [name for name in labels if name not in curves]:
        raise InputError(f"{path} lacks {', '.join(missing)}: `cxrkeras calibrate --run {folder}` fits it again")
    return Calibration(content.method, content.fitted_on, {name: curves[name] for name in labels})


def compute_bins(probs: np.ndarray, bins: int = BINS) -> list[np.ndarray]:
    """Divide images into bins of equal mass; return the indices of the images in each, the least probable first.

    probs: (N,). Equal probabilities share the bin of the middle one, so that the order of the images does not matter.
    Empty bins are left out.
    """
    _, group, counts = np.unique(probs, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    of_image = (middle * bins / max(len(probs), 1)).astype(int)[group]
    return [rows for number in range(bins) if len(rows := np.flatnonzero(of_image == number))]


def calibration_error(truth: np.ndarray, probs: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Compute the expected calibration error of each label, (L,): the mean of |observed - predicted| over bins.

    truth: 0, 1, or NaN where not known, (N, L); probs: (N, L). Naeini et al., AAAI 2015, with bins of equal mass.
    """
    errors = []
    for y, p in _iterate_known(truth, probs):
        gaps = [abs((y[rows] - p[rows]).sum()) for rows in compute_bins(p, bins)] if np.isfinite(p).all() else [np.nan]
        errors.append(sum(gaps) / len(y) if len(y) else np.nan)
    return np.array(errors)


def _iterate_known(truth: np.ndarray, probs: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield, for each label, truth and probabilities of the images in which it is known."""
    for y, p in zip(truth.T, probs.T, strict=True):
        is_known = np.isfinite(y)
        yield y[is_known], p[is_known]


def least_calibration_error(
    truth: np.ndarray, probs: np.ndarray, *, draws: int = 100, seed: int = 0, bins: int = BINS
) -> np.ndarray:
    """Estimate the mean calibration error, (L,), that probabilities (N, L) would have if they were exact.

    Of the truth (N, L), only whether it is known is used. With few images the observed share in a bin differs from even
    exact probabilities, so that smaller errors cannot be detected.
    """
    rng = np.random.default_rng(seed)
    errors = []
    for _, p in _iterate_known(truth, probs):
        if not (len(p) and np.isfinite(p).all()):
            errors.append(np.nan)
            continue
        total = 0.0
        for rows in compute_bins(p, bins):
            drawn = rng.random((draws, len(rows))) < p[rows]
            total += np.abs((drawn - p[rows]).sum(axis=1)).mean()
        errors.append(total / len(p))
    return np.array(errors)


def brier_score(truth: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Compute the mean squared error of the probabilities of each label, (L,), over images in which it is known."""
    squares = (probs - truth) ** 2
    known = np.isfinite(truth).sum(axis=0)
    return np.where(known, np.where(np.isfinite(truth), squares, 0).sum(axis=0) / np.maximum(known, 1), np.nan)
