"""Evaluation of the predictions for a set: scores, intervals, decisions, calibration."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import expit

from cxrkeras.progress import SILENT, Progress
from cxrkeras.scoring.calibration import brier_score, calibration_error, least_calibration_error
from cxrkeras.scoring.intervals import (
    REPLICATES,
    Interval,
    Replicates,
    average_scores,
    bootstrap_mean,
    bootstrap_scores,
    compute_interval,
)
from cxrkeras.scoring.operating_points import OperatingPoints
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.scoring.run_files import SCORED_SETS
from cxrkeras.scoring.scores import explain_collapse, format_count, score_labels, score_predictions
from cxrkeras.scoring.thresholds import Thresholds, score_decisions, score_images
from cxrkeras.text import num_of

MEAN = "mean of findings"
AGE_BANDS = {"under 20": (0, 20), "20 to 39": (20, 40), "40 to 59": (40, 60), "60 and over": (60, np.inf)}
LEAST_PATIENTS = 10  # smaller groups are not scored
SEXES = {"F": "women", "M": "men", "other": "another sex"}
VIEW_NAMES = {"PA": "PA", "AP": "AP", "frontal": "frontal", "lateral": "lateral", "other": "another view"}


@dataclass(frozen=True)
class Evaluation:
    """The scores of a set.

    scores: one row per label and one for the mean of the findings, with auc and average_precision, each with `_low` and
    `_high` of its 95 % interval over patients, positives, known, images, prevalence, note; with calibration and
    thresholds also the columns of `score_decisions`, `error_before` and `error_after` (calibration errors),
    `error_least` (that of exact probabilities) and `brier`. probs: (N, L), calibrated if possible, else the sigmoid.
    """

    predictions: Predictions
    probs: np.ndarray
    scores: pd.DataFrame
    images: dict[str, float]  # Hamming loss and exact match
    notes: list[str] = field(default_factory=list)

    def interval(self, label: str, score: str = "auc") -> Interval:
        """Return the interval of a score of a label."""
        row = self.scores.loc[label]
        return Interval(row[f"{score}_low"], row[f"{score}_high"], int(row["replicates"]))


def evaluate(
    predictions: Predictions,
    *,
    points: OperatingPoints | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Progress = SILENT,
    phase: str = "intervals",
) -> Evaluation:
    """Score the predictions for a set. Calibration and thresholds, `points`, are given, never fitted here.

    `phase` is the name of the progress bar.
    """
    labels, truth, logits = predictions.labels, predictions.truth, predictions.logits
    names = labels.names
    scores, notes = score_predictions(predictions), _list_notes(predictions)
    scores.loc[list(predictions.left_out), "note"] = "left out of the mean: scores of one or two values"
    probs = points.calibration.apply(logits, names) if points else expit(logits)
    findings = [k for k in labels.finding_columns if names[k] not in predictions.left_out]
    drawn = (
        bootstrap_scores(
            truth,
            predictions.flatten().logits,
            predictions.patient_ids,
            replicates=replicates,
            seed=seed,
            advance=progress.start(phase, replicates),
        )
        if predictions.has_patients
        else None
    )
    mean = _add_intervals(scores, drawn, findings)
    images: dict[str, float] = {}
    if points:
        limits = points.thresholds.array(names)
        scores = scores.join(score_decisions(truth, probs, limits, names))
        images = score_images(truth, probs, limits)
        scores["error_before"] = calibration_error(truth, expit(logits))
        scores["error_after"] = calibration_error(truth, probs)
        scores["error_least"] = least_calibration_error(truth, probs, seed=seed)
        scores["brier"] = brier_score(truth, probs)
    scores.loc[MEAN] = pd.Series(mean | {"images": len(truth), "note": format_count(scores.iloc[findings], labels)})
    return Evaluation(predictions, probs, scores, images, notes)


def _list_notes(predictions: Predictions) -> list[str]:
    """List what limits the scores: collapsed labels, missing or few patients, logits that are not finite."""
    truth, logits, notes = predictions.truth, predictions.logits, []
    if sentence := explain_collapse(predictions.collapsed):
        notes.append(sentence)
    if not predictions.has_patients:
        without = int((predictions.patient_ids == "").sum())
        notes.append(
            f"{without:,} of {num_of(len(predictions), 'image', 'has')} no patient: no intervals, which need them all"
        )
    elif predictions.num_patients < LEAST_PATIENTS:
        notes.append(f"only {num_of(predictions.num_patients, 'patient')}: no interval can be trusted")
    names = predictions.labels.names
    if lost := [name for k, name in enumerate(names) if not np.isfinite(logits[np.isfinite(truth[:, k]), k]).all()]:
        notes.append(f"logits that are not finite leave {', '.join(lost)} without scores")
    return notes


def _add_intervals(scores: pd.DataFrame, drawn: Replicates | None, findings: list[int]) -> dict[str, float]:
    """Add the columns of the intervals to `scores`; return the row of the mean over `findings`."""
    mean = {}
    for score in ("auc", "average_precision"):
        values = scores[score].to_numpy()
        defined = values[findings][np.isfinite(values[findings])]
        mean[score] = defined.mean() if len(defined) else np.nan
        columns = getattr(drawn, score) if drawn else np.full((0, len(scores)), np.nan)
        intervals = [compute_interval(column) for column in columns.T]
        intervals.append(compute_interval(average_scores(columns[:, findings], values[findings])))
        mean |= {f"{score}_low": intervals[-1].low, f"{score}_high": intervals[-1].high}
        scores[f"{score}_low"] = [interval.low for interval in intervals[:-1]]
        scores[f"{score}_high"] = [interval.high for interval in intervals[:-1]]
        if score == "auc":
            scores["replicates"] = [interval.replicates for interval in intervals[:-1]]
            mean["replicates"] = intervals[-1].replicates
    return mean


def evaluate_groups(
    predictions: Predictions,
    demographics: pd.DataFrame,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    progress: Progress = SILENT,
) -> pd.DataFrame:
    """Compute the AUC of each label, and the mean of the findings, by sex, age band, view and source.

    demographics: age, sex, view and, where there are several, source by image id. Returns one row per group and label:
    attribute, group, label, auc, low, high, positives, known, images, patients, findings (those in the mean: defined in
    every scored group of the attribute). Groups of fewer than LEAST_PATIENTS patients have counts only.
    """
    predictions, masks = predictions.flatten(), _mask_groups(demographics.reindex(predictions.image_ids))
    scored = {}
    for key, mask in masks.items():
        group = predictions.take(mask)
        scores = score_labels(group.truth, group.logits, group.labels.names)
        if group.num_patients < LEAST_PATIENTS:
            scores["auc"] = np.nan
        scored[key] = scores
    rows = []
    advance = progress.start("scores by group", len(masks))
    for (attribute, name), mask in masks.items():
        group, scores = predictions.take(mask), scored[attribute, name]
        values = scores["auc"].to_numpy()
        drawn = bootstrap_scores(group.truth, group.logits, group.patient_ids, replicates=replicates, seed=seed).auc
        drawn[:, np.isnan(values)] = np.nan
        of_attribute = [other["auc"].notna() for (kind, _), other in scored.items() if kind == attribute]
        scorable = [defined for defined in of_attribute if defined.any()]
        common = np.logical_and.reduce(scorable or [np.zeros(len(values), bool)])
        common &= np.isfinite(values) & np.isin(np.arange(len(values)), group.labels.finding_columns)
        counts = {"images": len(group), "patients": group.num_patients, "findings": int(common.sum())}
        for row in _list_group_scores(scores, drawn, common):
            rows.append({"attribute": attribute, "group": name, **row, **counts})
        advance()
    return pd.DataFrame(rows)


def _mask_groups(demographics: pd.DataFrame) -> dict[tuple[str, str], np.ndarray]:
    """Build the masks (N,) of the groups that occur, by attribute and name of the group."""
    age = demographics["age"].to_numpy(float)
    masks = {("all", "all images"): np.ones(len(demographics), bool)}
    masks |= {("sex", name): (demographics["sex"] == sex).to_numpy() for sex, name in SEXES.items()}
    masks |= {("age", band): (age >= low) & (age < high) for band, (low, high) in AGE_BANDS.items()}
    masks |= {("view", name): (demographics["view"] == view).to_numpy() for view, name in VIEW_NAMES.items()}
    sources = demographics["source"].dropna().unique() if "source" in demographics.columns else ()
    if len(sources) > 1:
        masks |= {("source", source): (demographics["source"] == source).to_numpy() for source in sources}
    return {key: mask for key, mask in masks.items() if mask.any()}


def _list_group_scores(scores: pd.DataFrame, drawn: np.ndarray, common: np.ndarray) -> Iterator[dict[str, object]]:
    """Yield the scores of a group with their intervals: the mean over the `common` findings, then each label."""
    values = scores["auc"].to_numpy()
    entries = [(name, values[k], compute_interval(drawn[:, k])) for k, name in enumerate(scores.index)]
    if common.any():
        average = compute_interval(average_scores(drawn[:, common], values[common]))
        entries.insert(0, (MEAN, values[common].mean(), average))
    else:
        entries.insert(0, (MEAN, np.nan, Interval(np.nan, np.nan, 0)))
    for name, auc, interval in entries:
        yield {
            "label": name,
            "auc": auc,
            "low": interval.low,
            "high": interval.high,
            "positives": scores["positives"].get(name, np.nan),
            "known": scores["known"].get(name, np.nan),
        }


def compare_prevalence(validation: Predictions, test: Predictions, *, seed: int = 0) -> pd.DataFrame:
    """Compare the prevalence of each label in validation and test, and whether it differs by more than chance.

    It differs if the 95 % bootstrap interval of the difference, over patients in both sets, excludes zero. Returns one
    row per label.
    """
    sets = (validation, test)
    shares = {
        name: np.where((known := np.isfinite(found.truth).sum(axis=0)) > 0, (found.truth == 1).sum(axis=0), np.nan)
        / np.maximum(known, 1)
        for name, found in zip(SCORED_SETS, sets, strict=True)
    }
    table = pd.DataFrame(shares, index=pd.Index(validation.labels.names, name="label"))
    drawn = [bootstrap_mean(found.truth, found.patient_ids, seed=seed + number) for number, found in enumerate(sets)]
    low, high = np.quantile(drawn[1] - drawn[0], [0.025, 0.975], axis=0)
    table["differs"] = (low > 0) | (high < 0)
    return table


def find_mistakes(evaluation: Evaluation, thresholds: Thresholds, count: int = 12) -> pd.DataFrame:
    """Find the most confident mistakes, half of them false positives and half false negatives, each image at most once.

    Confidence is the distance of the calibrated probability from the threshold in log odds, so that rare labels count
    as much as frequent ones. Columns: image_id, label, kind, prob, threshold, row (in the predictions).
    """
    predictions = evaluation.predictions
    probs = np.clip(evaluation.probs, 1e-6, 1 - 1e-6)
    names, limits = predictions.labels.names, thresholds.array(predictions.labels)
    clipped = np.clip(limits, 1e-6, 1 - 1e-6)
    distance = np.log(probs / (1 - probs)) - np.log(clipped / (1 - clipped))
    chosen, seen = [], set()
    # "No finding" has no location in the image, and its mistakes are those of the findings.
    columns = predictions.labels.finding_columns
    for kind, strength in (
        ("false positive", np.where(predictions.truth == 0, distance, -np.inf)),
        ("false negative", np.where(predictions.truth == 1, -distance, -np.inf)),
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
                    "label": names[k],
                    "kind": kind,
                    "prob": evaluation.probs[row, k],
                    "threshold": limits[k],
                    "row": row,
                }
            )
    return pd.DataFrame(chosen, columns=["image_id", "label", "kind", "prob", "threshold", "row"])
