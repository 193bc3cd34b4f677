"""From logits to probabilities that mean what they say, label by label, fitted on validation."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydantic
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from cxrkeras import labels
from cxrkeras.errors import InputError
from cxrkeras.files import load_shaped, write_json
from cxrkeras.scoring.find_runs import CALIBRATION, Origin
from cxrkeras.scoring.predictions import LEAST_RANGE

PLATT, TEMPERATURE, ISOTONIC = METHODS = ("platt", "temperature", "isotonic")
MEMBERS = "members"  # of an ensemble over folds: each member's own method, then the mean of the probabilities
PROBABILITY_EPSILON = 1e-7  # probabilities are kept as logits, which must be finite
NOT_CALIBRATED = "not calibrated"
BINS = 10


@dataclass(frozen=True)
class Curve:
    """Probabilities of one label: expit(slope * logit + intercept), or a step curve through `logits` and `probs`.

    The note says why a curve is not what its method would give; it is empty otherwise.
    """

    slope: float = 1.0
    intercept: float = 0.0
    logits: tuple[float, ...] = ()
    probs: tuple[float, ...] = ()
    note: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether its probabilities never fall with the logit, and stay within 0 and 1."""
        steps = (
            np.asarray((self.logits, self.probs)) if len(self.logits) == len(self.probs) else np.full((2, 1), np.nan)
        )
        rises = np.isfinite(steps).all() and (np.diff(steps) >= 0).all()
        inside = ((steps[1] >= 0) & (steps[1] <= 1)).all()
        return bool(rises and inside and np.isfinite(self.intercept) and 0 <= self.slope < np.inf)

    def apply(self, logits: np.ndarray) -> np.ndarray:
        if self.logits:
            return np.interp(logits, self.logits, self.probs)
        return expit(self.compute_log_odds(logits))

    def compute_log_odds(self, logits: np.ndarray) -> np.ndarray:
        """Those of the probabilities: finite, and of a logistic curve as far apart as its logits are."""
        if self.logits:
            return logit(np.clip(self.apply(logits), PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON))
        return self.slope * logits + self.intercept


@dataclass(frozen=True)
class Calibration:
    """A curve for each label, and where it comes from: part, split name, fold, images, patients."""

    method: str
    fitted_on: dict
    curves: dict[str, Curve]

    def apply(self, logits: np.ndarray, names: tuple[str, ...] = labels.LABELS) -> np.ndarray:
        """Calibrated probabilities, float64 (N, L), of logits (N, L) of the labels `names`; NaN stays NaN."""
        columns = [self.curves[name].apply(logits[:, column].astype(np.float64)) for column, name in enumerate(names)]
        return np.stack(columns, axis=1)


def fit_calibration(
    truth: np.ndarray,
    logits: np.ndarray,
    *,
    fitted_on: dict,
    method: str = PLATT,
    names: tuple[str, ...] = labels.LABELS,
) -> Calibration:
    """Fit each label by itself on truth 0 or 1 and logits, (N, L).

    platt: expit(a z + b) with Platt's smoothed targets (Advances in Large Margin Classifiers, 1999), a at least 0;
    temperature: expit(z / T) (Guo et al., ICML 2017), a temperature for each label; isotonic: the best rising step
    curve. A label without positives or negatives, or with logits that are not finite, keeps expit(z) and a note; one
    whose mean probability is far from its prevalence with a temperature, which cannot move it, has a note too.
    """
    if method not in METHODS:
        raise InputError(f"calibration is one of {', '.join(METHODS)}; got {method!r}")
    curves = {}
    for name, y, z in zip(names, truth.T > 0, logits.T.astype(np.float64), strict=True):
        curve = _fit_curve(y, z, method)
        if method == TEMPERATURE and not curve.note.startswith(NOT_CALIBRATED):
            curve = replace(curve, note="; ".join(filter(None, (curve.note, _judge_mean(y, curve.apply(z))))))
        curves[name] = curve
    return Calibration(method, fitted_on, curves)


def _judge_mean(positive: np.ndarray, probs: np.ndarray) -> str:
    """A note where the mean probability misses the prevalence by more than a fifth of it and two standard errors."""
    wanted, got = positive.mean(), probs.mean()
    if abs(got - wanted) <= max(wanted / 5, 2 * np.sqrt((probs * (1 - probs)).sum()) / len(probs)):
        return ""
    return f"mean probability {got:.3f} at a prevalence of {wanted:.3f}, which a temperature cannot move: take {PLATT}"


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
    # Each image as a positive and a negative, weighted by its target.
    smooth = method == PLATT
    low, high = (1 / (num_negatives + 2), (num_positives + 1) / (num_positives + 2)) if smooth else (0.0, 1.0)
    target = np.where(positive, high, low)
    # In units of their own spread, around their own middle: Newton's method fails on 1e6 + 0.001 or 0.3 + 1e-17.
    middle = logits.mean() if smooth else 0.0
    spread = np.abs(logits - middle).max()
    if np.ptp(logits) >= LEAST_RANGE:
        twice, sides = np.tile((logits - middle) / spread, 2)[:, None], np.repeat([1, 0], len(logits))
        model = LogisticRegression(C=np.inf, fit_intercept=smooth, solver="newton-cholesky", tol=1e-8)
        model.fit(twice, sides, sample_weight=np.concatenate([target, 1 - target]))
        slope = float(model.coef_[0, 0]) / spread
        if slope > 0:
            return Curve(slope, float(model.intercept_[0]) - slope * middle if smooth else 0.0)
    return Curve(
        0.0,
        float(logit(target.mean())) if smooth else 0.0,
        note="a constant: the network ranks this label no better than chance on the part it is fitted on",
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
    content = {"method": calibration.method, "fitted_on": calibration.fitted_on, "labels": curves}
    write_json(folder / CALIBRATION, content)


def load_calibration(folder: Path) -> Calibration:
    """Read calibration.json of a fold; InputError if it is missing or damaged. Nothing is fitted."""
    path = folder / CALIBRATION
    if not path.is_file():
        raise InputError(f"{folder} has no {CALIBRATION}: `make calibrate RUN={folder}` fits it")
    content = load_shaped(path, _File)
    curves = _File.model_validate(content).labels
    if wrong := [name for name, curve in curves.items() if not curve.is_sound]:
        raise InputError(f"{path} is damaged ({wrong[0]}): `make calibrate RUN={folder}` fits it anew")
    if missing := [name for name in labels.LABELS if name not in curves]:
        raise InputError(f"{path} lacks {', '.join(missing)}: `make calibrate RUN={folder}` fits it anew")
    return Calibration(content["method"], content["fitted_on"], curves)


def find_bins(probs: np.ndarray, bins: int = BINS) -> list[np.ndarray]:
    """Numbers of the images (N,) in bins of equal mass, the least probable first; empty ones are left out.

    Equal probabilities stay together, in the bin of the middle one, so that the order of images does not matter.
    """
    _, group, counts = np.unique(probs, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    of_image = (middle * bins / max(len(probs), 1)).astype(int)[group]
    return [part for number in range(bins) if len(part := np.flatnonzero(of_image == number))]


def calibration_error(truth: np.ndarray, probs: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Expected calibration error of each label, (L,), over bins of equal mass: the mean of |observed - predicted|.

    truth: 0 or 1, (N, L); probs (N, L). Naeini et al., AAAI 2015, with equal-mass bins.
    """
    errors = []
    for y, p in zip(truth.T, probs.T, strict=True):
        gaps = [abs((y[part] - p[part]).sum()) for part in find_bins(p, bins)] if np.isfinite(p).all() else [np.nan]
        errors.append(sum(gaps) / max(len(y), 1))
    return np.array(errors)


def least_calibration_error(probs: np.ndarray, *, draws: int = 100, seed: int = 0, bins: int = BINS) -> np.ndarray:
    """The error, (L,), that probabilities (N, L) would show on average if they were exactly right.

    With few images even those miss the observed share in each bin, so that no error can be told from this one.
    """
    rng = np.random.default_rng(seed)
    errors = []
    for p in probs.T:
        if not np.isfinite(p).all():
            errors.append(np.nan)
            continue
        total = 0.0
        for part in find_bins(p, bins):
            drawn = rng.random((draws, len(part))) < p[part]
            total += np.abs((drawn - p[part]).sum(axis=1)).mean()
        errors.append(total / len(p))
    return np.array(errors)


def brier_score(truth: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Mean squared error of the probabilities of each label, (L,)."""
    return np.mean((probs - truth) ** 2, axis=0)
