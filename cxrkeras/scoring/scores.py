"""Scores of multi-label predictions, for each label over the images in which it is known."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrkeras.labels import LabelSet
from cxrkeras.scoring.notes import COLLAPSED
from cxrkeras.scoring.predictions import Predictions


def score_labels(truth: np.ndarray, logits: np.ndarray, names: Sequence[str]) -> pd.DataFrame:
    """Score each label separately, over the images in which it is known.

    truth: 0, 1, or NaN where not known, (N, L); logits: float (N, L), only their order matters. Returns one row per
    label, in the order of `names`: auc (area under the ROC curve, exact with ties), average_precision, the numbers of
    positives, known labels and images, prevalence (among the known), note. An undefined score is NaN, and the note says
    why. Nearly equal logits of a network must be made equal before (`Predictions.flatten`).
    """
    rows = []
    for column, label in enumerate(names):
        is_known = np.isfinite(truth[:, column])
        y, z = truth[is_known, column], logits[is_known, column]
        positives, known = int(y.sum()), len(y)
        row: dict[str, Any] = {"label": label, "auc": np.nan, "average_precision": np.nan}
        row |= {
            "positives": positives,
            "known": known,
            "images": len(truth),
            "prevalence": positives / known if known else np.nan,
        }
        if not known:
            row["note"] = "not known of any image"
        elif positives in (0, known):
            row["note"] = "no negatives" if positives else "no positives"
        elif not np.isfinite(z).all():
            row["note"] = "logits are not finite"
        else:
            row |= {"auc": roc_auc_score(y, z), "average_precision": average_precision_score(y, z), "note": ""}
        rows.append(row)
    return pd.DataFrame(rows).set_index("label")


def mean_auc(scores: pd.DataFrame, labels: LabelSet) -> tuple[float, int]:
    """Compute the mean AUC over the findings for which it is defined, and their number; NaN and 0 if there are none."""
    defined = scores["auc"].reindex(list(labels.findings)).dropna()
    return (float(defined.mean()) if len(defined) else np.nan), len(defined)


def format_count(scores: pd.DataFrame, labels: LabelSet) -> str:
    """Format the number of findings in a mean AUC, as `3 of 3` or `3 of 3, 1 collapsed`."""
    counted = scores.reindex(list(labels.findings)).dropna(subset=["auc"])
    collapsed = int((counted["note"] == COLLAPSED).sum())
    return f"{len(counted)} of {len(labels.findings)}" + (f", {collapsed} collapsed" if collapsed else "")


def format_mean(scores: pd.DataFrame, labels: LabelSet) -> str:
    """Format a mean AUC with its count, as `0.812 (3 of 3)` or `0.512 (3 of 3, 1 collapsed)`."""
    mean, count = mean_auc(scores, labels)
    return f"{f'{mean:.3f}' if count else 'undefined'} ({format_count(scores, labels)})"


def score_predictions(predictions: Predictions) -> pd.DataFrame:
    """Score predictions as `score_labels`; collapsed labels have an AUC of 0.5 and a note."""
    scores = score_labels(predictions.truth, predictions.flatten().logits, predictions.labels.names)
    is_flat = scores.index.isin(predictions.collapsed) & scores["auc"].notna()
    scores.loc[is_flat, "note"] = COLLAPSED
    return scores


def explain_collapse(names: Sequence[str]) -> str:
    """Explain for which labels a network has collapsed; an empty text if there are none."""
    if not names:
        return ""
    return (
        f"the network gives nearly the same logit to all images for {', '.join(names)}: it has collapsed there, and "
        "counts as AUC 0.5"
    )


def hamming_loss(truth: np.ndarray, probs: np.ndarray, threshold: float | np.ndarray) -> float:
    """Compute the share of known labels that are wrong if probabilities (N, L) of at least `threshold` count as found.

    threshold: a scalar, or (L,). Returns NaN without a known label.
    """
    is_known = np.isfinite(truth)
    return float(((probs >= threshold) != (truth > 0))[is_known].mean()) if is_known.any() else np.nan


def describe_scores(predictions: Predictions) -> dict[str, Any]:
    """Return the scores of a set as plain JSON values; undefined ones are null with a note."""
    scores = score_predictions(predictions)
    mean, count = mean_auc(scores, predictions.labels)
    rows = scores.reset_index().astype(object).where(scores.reset_index().notna(), None).to_dict("records")
    return {
        "images": len(predictions.image_ids),
        "patients": predictions.num_patients,
        "mean_auc": mean if count else None,
        "mean_auc_findings": count,
        "collapsed": list(predictions.collapsed),
        "labels": rows,
    }
