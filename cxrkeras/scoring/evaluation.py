"""All that is said about the predictions of one part of a split: scores, intervals, decisions, calibration."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import expit

from cxrkeras import labels
from cxrkeras.scoring.calibration import Calibration, brier_score, calibration_error, least_calibration_error
from cxrkeras.scoring.intervals import (
    REPLICATES,
    Interval,
    average_replicates,
    bootstrap_mean,
    bootstrap_scores,
    find_interval,
)
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.scoring.scores import explain_collapse, format_count, score_labels, score_predictions
from cxrkeras.scoring.thresholds import Thresholds, score_decisions, score_images
from cxrkeras.text import num_of

SHOW = Callable[[int, int], None]
MEAN = "mean of findings"
AGE_BANDS = {"under 20": (0, 20), "20 to 39": (20, 40), "40 to 59": (40, 60), "60 and over": (60, np.inf)}
LEAST_PATIENTS = 10  # of a group that is scored
SEXES = {"F": "women", "M": "men", "other": "another sex"}
VIEW_NAMES = {"PA": "PA", "AP": "AP", "lateral": "lateral", "other": "another view"}


@dataclass(frozen=True)
class Evaluation:
    """Scores of one part.

    scores: a row a label, and one for the mean of the findings, with auc and average_precision, each with `_low` and
    `_high` of its 95 % interval over patients, positives, prevalence, images, note; and, where thresholds and a
    calibration are given, the columns of `score_decisions`, `error_before` and `error_after` (calibration errors),
    `error_least` (that of exact probabilities), `brier`. probs: calibrated, or the sigmoid, (N, L).
    """

    predictions: Predictions
    probs: np.ndarray
    scores: pd.DataFrame
    images: dict[str, float]  # Hamming loss and exact match
    notes: list[str] = field(default_factory=list)

    def interval(self, label: str, score: str = "auc") -> Interval:
        row = self.scores.loc[label]
        return Interval(row[f"{score}_low"], row[f"{score}_high"], int(row["replicates"]))


def evaluate(
    predictions: Predictions,
    *,
    calibration: Calibration | None = None,
    thresholds: Thresholds | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: SHOW = lambda done, total: None,
) -> Evaluation:
    """Score the predictions of one part. Thresholds and calibration are given, never fitted here."""
    names, truth, logits = predictions.names, predictions.truth, predictions.logits
    scores, notes = score_predictions(predictions), []
    scores.loc[list(predictions.left_out), "note"] = "left out of the mean: scores of one or two values"
    if sentence := explain_collapse(predictions.collapsed):
        notes.append(sentence)
    probs = calibration.apply(logits, names) if calibration else expit(logits)
    with_intervals = predictions.has_patients
    if not with_intervals:
        without = int((predictions.patient_ids == "").sum())
        notes.append(
            f"{without:,} of {num_of(len(truth), 'image', 'has')} no patient: no intervals, which need all of them"
        )
    elif predictions.num_patients < LEAST_PATIENTS:
        notes.append(f"only {num_of(predictions.num_patients, 'patient')}: no interval can be trusted")
    if lost := [name for k, name in enumerate(names) if not np.isfinite(logits[:, k]).all()]:
        notes.append(f"logits that are no finite numbers leave {', '.join(lost)} without scores")
    findings = [k for k, name in enumerate(names) if name in labels.FINDINGS and name not in predictions.left_out]
    ranked = predictions.flatten().logits
    drawn = (
        bootstrap_scores(truth, ranked, predictions.patient_ids, replicates=replicates, seed=seed, progress=progress)
        if with_intervals
        else None
    )
    mean = {}
    for score in ("auc", "average_precision"):
        values = scores[score].to_numpy()
        defined = values[findings][np.isfinite(values[findings])]
        mean[score] = defined.mean() if len(defined) else np.nan
        columns = getattr(drawn, score) if drawn else np.full((0, len(names)), np.nan)
        intervals = [find_interval(column) for column in columns.T]
        intervals.append(find_interval(average_replicates(columns[:, findings], values[findings])))
        mean |= {f"{score}_low": intervals[-1].low, f"{score}_high": intervals[-1].high}
        scores[f"{score}_low"] = [one.low for one in intervals[:-1]]
        scores[f"{score}_high"] = [one.high for one in intervals[:-1]]
        if score == "auc":
            scores["replicates"] = [one.replicates for one in intervals[:-1]]
            mean["replicates"] = intervals[-1].replicates
    images = {}
    if thresholds:
        cuts = thresholds.array(names)
        scores = scores.join(score_decisions(truth, probs, cuts, names))
        images = score_images(truth, probs, cuts)
    if calibration:
        scores["error_before"] = calibration_error(truth, expit(logits))
        scores["error_after"] = calibration_error(truth, probs)
        scores["error_least"] = least_calibration_error(probs, seed=seed)
        scores["brier"] = brier_score(truth, probs)
    scores.loc[MEAN] = pd.Series(mean | {"images": len(truth), "note": format_count(scores.iloc[findings])})
    return Evaluation(predictions, probs, scores, images, notes)


def evaluate_groups(
    predictions: Predictions,
    people: pd.DataFrame,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: SHOW = lambda done, total: None,
) -> pd.DataFrame:
    """AUC of each label, and the mean of the findings, by sex, age band and view.

    people: age, sex and view by image id. A row for each group and label: attribute, group, label, auc, low, high,
    positives, images, patients, findings (in the mean: those defined in every scored group of the attribute).
    Groups of fewer than LEAST_PATIENTS patients have counts alone.
    """
    people, predictions = people.reindex(predictions.image_ids), predictions.flatten()
    age = people["age"].to_numpy(float)
    masks = {("all", "all images"): np.ones(len(people), bool)}
    masks |= {("sex", name): (people["sex"] == sex).to_numpy() for sex, name in SEXES.items()}
    masks |= {("age", band): (age >= low) & (age < high) for band, (low, high) in AGE_BANDS.items()}
    masks |= {("view", name): (people["view"] == view).to_numpy() for view, name in VIEW_NAMES.items()}
    masks = {key: mask for key, mask in masks.items() if mask.any()}
    scored = {}
    for key, mask in masks.items():
        part = predictions.take(mask)
        scores = score_labels(part.truth, part.logits, part.names)
        if part.num_patients < LEAST_PATIENTS:
            scores["auc"] = np.nan
        scored[key] = scores
    rows = []
    for number, ((attribute, group), mask) in enumerate(masks.items()):
        part, scores = predictions.take(mask), scored[attribute, group]
        values = scores["auc"].to_numpy()
        drawn = bootstrap_scores(part.truth, part.logits, part.patient_ids, replicates=replicates, seed=seed).auc
        drawn[:, np.isnan(values)] = np.nan
        beside = [other["auc"].notna() for (kind, _), other in scored.items() if kind == attribute]
        beside = [defined for defined in beside if defined.any()]
        common = np.logical_and.reduce(beside or [np.zeros(len(values), bool)])
        common &= np.isfinite(values) & [name in labels.FINDINGS for name in part.names]
        entries = [(name, values[k], find_interval(drawn[:, k])) for k, name in enumerate(part.names)]
        if common.any():
            average = find_interval(average_replicates(drawn[:, common], values[common]))
            entries.insert(0, (MEAN, values[common].mean(), average))
        else:
            entries.insert(0, (MEAN, np.nan, Interval(np.nan, np.nan, 0)))
        for name, auc, interval in entries:
            rows.append(
                {
                    "attribute": attribute,
                    "group": group,
                    "label": name,
                    "auc": auc,
                    "low": interval.low,
                    "high": interval.high,
                    "positives": scores["positives"].get(name, np.nan),
                    "images": len(part.truth),
                    "patients": part.num_patients,
                    "findings": int(common.sum()),
                }
            )
        progress(number + 1, len(masks))
    return pd.DataFrame(rows)


def compare_prevalence(validation: Predictions, test: Predictions, *, seed: int = 0) -> pd.DataFrame:
    """A row a label: its share in validation and in test, and whether they differ by more than chance.

    Chance is the 95 % bootstrap interval of the difference, patients drawn with replacement in both parts.
    """
    parts = (validation, test)
    table = pd.DataFrame(
        {name: part.truth.mean(axis=0) for name, part in zip(("validation", "test"), parts, strict=True)}
    )
    table.index = pd.Index(validation.names, name="label")
    drawn = [bootstrap_mean(part.truth, part.patient_ids, seed=seed + number) for number, part in enumerate(parts)]
    low, high = np.quantile(drawn[1] - drawn[0], [0.025, 0.975], axis=0)
    table["differs"] = (low > 0) | (high < 0)
    return table


def find_mistakes(evaluation: Evaluation, thresholds: Thresholds, count: int = 12) -> pd.DataFrame:
    """The most confident mistakes: half of them false positives, half false negatives, an image once.

    Confidence is the distance of the calibrated probability from the threshold in log odds, so that rare labels count
    as much as frequent ones. Columns: image_id, label, kind, prob, threshold, row (in the predictions).
    """
    predictions = evaluation.predictions
    probs = np.clip(evaluation.probs, 1e-6, 1 - 1e-6)
    cuts = np.clip(thresholds.array(predictions.names), 1e-6, 1 - 1e-6)
    distance = np.log(probs / (1 - probs)) - np.log(cuts / (1 - cuts))
    truth = predictions.truth > 0
    chosen, seen = [], set()
    # "No Finding" has no place to look at, and its mistakes are those of the findings.
    columns = [k for k, name in enumerate(predictions.names) if name in labels.FINDINGS]
    for kind, strength in (
        ("false positive", np.where(truth, -np.inf, distance)),
        ("false negative", np.where(truth, -distance, -np.inf)),
    ):
        strength = np.nan_to_num(strength[:, columns], nan=-np.inf)
        found = 0
        for place in np.argsort(-strength, axis=None, kind="stable"):
            row, column = np.unravel_index(place, strength.shape)
            if found == count // 2 or strength[row, column] <= 0:
                break
            if row in seen:
                continue
            seen.add(row)
            found += 1
            k = columns[column]
            chosen.append(
                {
                    "image_id": predictions.image_ids[row],
                    "label": predictions.names[k],
                    "kind": kind,
                    "prob": evaluation.probs[row, k],
                    "threshold": thresholds.array(predictions.names)[k],
                    "row": row,
                }
            )
    return pd.DataFrame(chosen, columns=["image_id", "label", "kind", "prob", "threshold", "row"])
