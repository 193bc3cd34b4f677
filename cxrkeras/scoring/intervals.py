"""Bootstrap intervals over patients: as the images of a patient are correlated, patients are resampled, not images."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from cxrkeras.progress import Advance

REPLICATES = 1000
LEVEL = 0.95
_BLOCK = 100  # replicates at a time, to bound the memory


@dataclass(frozen=True)
class Interval:
    """A percentile interval; `replicates` counts those in which the score is defined."""

    low: float
    high: float
    replicates: int


@dataclass(frozen=True)
class Replicates:
    """AUC and average precision of each bootstrap replicate and label, float64 (R, L); NaN where undefined."""

    auc: np.ndarray
    average_precision: np.ndarray


def sample_weights(patient_ids: np.ndarray, replicates: int = REPLICATES, seed: int = 0) -> Iterator[np.ndarray]:
    """Sample how often each image counts in each replicate by drawing patients with replacement.

    Yields blocks of replicates, float32 (N, B).
    """
    patients, of_image = np.unique(patient_ids, return_inverse=True)
    rng = np.random.default_rng(seed)
    for start in range(0, replicates, _BLOCK):
        drawn = rng.integers(0, len(patients), (min(_BLOCK, replicates - start), len(patients)))
        counts = np.stack([np.bincount(row, minlength=len(patients)) for row in drawn], axis=1)
        yield counts[of_image].astype(np.float32)


class Ranking:
    """The ranking of images by the score of one label, which gives AUC and average precision for any image weights."""

    def __init__(self, truth: np.ndarray, scores: np.ndarray):
        """truth: 0, 1, or NaN where not known, (N,); scores: (N,), finite where known; only their order matters."""
        self._is_known = np.isfinite(truth)
        truth, scores = truth[self._is_known], scores[self._is_known]
        positive = truth > 0
        _, group = np.unique(-scores, return_inverse=True)  # ties form a group; that of the highest score is number 0
        with_positives = np.unique(group[positive])
        # Images between two groups with positives only add to the negatives above the second group, so that three sums
        # per such group suffice: negatives above it, negatives in it, positives in it.
        place = np.searchsorted(with_positives, group)
        count = len(with_positives)
        counted = np.flatnonzero(place < count)
        place, group, positive = place[counted], group[counted], positive[counted]
        is_tied = with_positives[place] == group
        row = place + count * np.where(positive, 2, is_tied)
        ones = np.ones(len(counted), np.float32)
        self._sums = csr_array((ones, (row, counted)), shape=(3 * count, len(truth)))
        self._count = count

    def score(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compute AUC (ties count half) and average precision, float64 (B,), for weights, float32 (N, B)."""
        if not self._is_known.all():
            weights = weights[self._is_known]
        # Sums of counts are exact in float32 up to 2^24.
        above, tied, positives = np.split((self._sums @ weights).astype(np.float64), (self._count, 2 * self._count))
        num_positives = positives.sum(axis=0)
        num_negatives = weights.sum(axis=0, dtype=np.float64) - num_positives
        # Negatives above a group: those between it and the previous groups, and those in the previous groups.
        reached = np.cumsum(above + tied, axis=0)
        recalled = np.cumsum(positives, axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            auc = 1 - (positives * (reached - tied / 2)).sum(axis=0) / (num_positives * num_negatives)
            precision = np.nan_to_num(recalled / (recalled + reached))
            average_precision = (positives * precision).sum(axis=0) / num_positives
        average_precision[num_negatives == 0] = np.nan
        return auc, average_precision


def bootstrap_scores(
    truth: np.ndarray,
    scores: np.ndarray,
    patient_ids: np.ndarray,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    advance: Advance = lambda count=1: None,
) -> Replicates:
    """Compute AUC and average precision in bootstrap replicates over patients.

    truth: 0, 1, or NaN where not known, (N, L); scores: (N, L), logits or probabilities; patient_ids: (N,). A label
    with scores that are not finite where it is known is NaN throughout. The same seed and patients give the same draws,
    so that replicates of two networks on the same images are paired. `advance` is called with the replicates done.
    """
    is_usable = (np.isfinite(scores) | np.isnan(truth)).all(axis=0) & (truth > 0).any(axis=0)
    rankings = {int(k): Ranking(truth[:, k], scores[:, k]) for k in np.flatnonzero(is_usable)}
    result = Replicates(*(np.full((replicates, truth.shape[1]), np.nan) for _ in range(2)))
    done = 0
    with ThreadPoolExecutor() as pool:
        for weights in sample_weights(patient_ids, replicates, seed):
            rows = slice(done, done + weights.shape[1])

            def work(column: int, weights: np.ndarray = weights, rows: slice = rows) -> None:
                result.auc[rows, column], result.average_precision[rows, column] = rankings[column].score(weights)

            list(pool.map(work, rankings))
            done += weights.shape[1]
            advance(weights.shape[1])
    return result


def compute_interval(values: np.ndarray, level: float = LEVEL) -> Interval:
    """Compute the percentile interval of the defined replicates among (R,); NaN if there are none."""
    values = values[np.isfinite(values)]
    if not len(values):
        return Interval(np.nan, np.nan, 0)
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), len(values))


def average_scores(values: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Average replicates as `average_replicates` does, of scores from 0 to 1, which their mean cannot leave."""
    mean: np.ndarray = np.clip(average_replicates(values, point), 0, 1)
    return mean


def average_replicates(values: np.ndarray, point: np.ndarray) -> np.ndarray:
    """Average replicates over labels, (R,), from those of each label (R, L) and the scores on the data, `point` (L,).

    The mean is over the labels that are defined in the data. A replicate in which one of these is undefined (no patient
    with a rare finding was drawn) deviates by the mean over the others, so that the mean does not jump.
    """
    defined = np.isfinite(point)
    deviations = values[:, defined] - point[defined]
    present = np.isfinite(deviations)
    total = np.where(present, deviations, 0).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return point[defined].mean() + total / present.sum(axis=1) if defined.any() else np.full(len(values), np.nan)


def compute_p_value(differences: np.ndarray) -> float:
    """Compute the two-sided p-value of replicates of a difference: twice the smaller share on either side of zero.

    It is below 0.05 where the 95 % percentile interval excludes zero, and at least 2 / (R + 1).
    """
    differences = differences[np.isfinite(differences)]
    if not len(differences):
        return np.nan
    smaller = min((differences <= 0).sum(), (differences >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(differences) + 1)))


def adjust_p_values(p_values: np.ndarray) -> np.ndarray:
    """Adjust p-values (M,) for M tests (Holm, Scandinavian Journal of Statistics 6, 1979); NaN stays NaN."""
    adjusted = np.full(len(p_values), np.nan)
    order = np.argsort(p_values)
    order = order[np.isfinite(p_values[order])]
    stepped = p_values[order] * (len(order) - np.arange(len(order)))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(stepped))
    return adjusted


def bootstrap_mean(
    values: np.ndarray, patient_ids: np.ndarray, *, replicates: int = REPLICATES, seed: int = 0
) -> np.ndarray:
    """Compute bootstrap replicates (R, K) of the means over images of values (N, K); NaN is ignored."""
    is_known = np.isfinite(values)
    known, values = is_known.T.astype(np.float64), np.where(is_known, values, 0)
    with np.errstate(invalid="ignore"):
        blocks = [values.T @ weights / (known @ weights) for weights in sample_weights(patient_ids, replicates, seed)]
    return np.concatenate(blocks, axis=1).T
