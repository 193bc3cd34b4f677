"""Scores of multi-label predictions, label by label."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrkeras import labels
from cxrkeras.scoring.notes import COLLAPSED
from cxrkeras.scoring.predictions import Predictions


def score_labels(truth: np.ndarray, logits: np.ndarray, names: tuple[str, ...] = labels.LABELS) -> pd.DataFrame:
    """Score each label by itself.

    truth: 0 or 1, (N, L); logits: float (N, L), only their order counts. Returns a row a label, in the order of
    `names`: auc (area under the ROC curve, exact with ties), average_precision, positives, images, prevalence, note. A
    score that is not defined is NaN and the note says why. Nearly equal logits of a network are to be made equal before
    (`Predictions.flatten`).
    """
    rows = []
    for column, label in enumerate(names):
        y, z = truth[:, column], logits[:, column]
        positives = int(y.sum())
        row = {"label": label, "auc": np.nan, "average_precision": np.nan, "positives": positives, "images": len(y)}
        row["prevalence"] = positives / len(y) if len(y) else np.nan
        if positives == 0 or positives == len(y):
            row["note"] = "no positives" if positives == 0 else "no negatives"
        elif not np.isfinite(z).all():
            row["note"] = "logits are not finite"
        else:
            row |= {"auc": roc_auc_score(y, z), "average_precision": average_precision_score(y, z), "note": ""}
        rows.append(row)
    return pd.DataFrame(rows).set_index("label")


def mean_auc(scores: pd.DataFrame) -> tuple[float, int]:
    """Mean AUC over those of the 14 findings for which it is defined, and their number; NaN and 0 if none is."""
    defined = scores["auc"].reindex(list(labels.FINDINGS)).dropna()
    return (float(defined.mean()) if len(defined) else np.nan), len(defined)


def format_count(scores: pd.DataFrame) -> str:
    """How many findings a mean AUC is over, as in `14 of 14` or `14 of 14, 3 collapsed`."""
    counted = scores.reindex(list(labels.FINDINGS)).dropna(subset=["auc"])
    collapsed = int((counted["note"] == COLLAPSED).sum())
    return f"{len(counted)} of {len(labels.FINDINGS)}" + (f", {collapsed} collapsed" if collapsed else "")


def format_mean(scores: pd.DataFrame) -> str:
    """Mean AUC with its count, as in `0.812 (14 of 14)` or `0.512 (14 of 14, 3 collapsed)`."""
    mean, count = mean_auc(scores)
    return f"{f'{mean:.3f}' if count else 'undefined'} ({format_count(scores)})"


def score_predictions(predictions: Predictions) -> pd.DataFrame:
    """`score_labels` of predictions, in which collapsed labels have an AUC of 0.5 and a note that says so."""
    scores = score_labels(predictions.truth, predictions.flatten().logits, predictions.names)
    is_flat = scores.index.isin(predictions.collapsed) & scores["auc"].notna()
    scores.loc[is_flat, "note"] = COLLAPSED
    return scores


def explain_collapse(names: Sequence[str]) -> str:
    """A sentence about labels for which a network has collapsed; empty without any."""
    if not names:
        return ""
    return (
        f"the network gives nearly the same logit to all images for {', '.join(names)}: it has collapsed there, and "
        "counts as AUC 0.5"
    )


def hamming_loss(truth: np.ndarray, probs: np.ndarray, threshold: float | np.ndarray) -> float:
    """Share of labels that are wrong where probabilities (N, L) from `threshold` on, one or one a label, mean yes."""
    return float(np.mean((probs >= threshold) != (truth > 0)))


def describe_scores(predictions: Predictions) -> dict:
    """Scores of one part as plain JSON values; undefined ones are null with a note."""
    scores = score_predictions(predictions)
    mean, count = mean_auc(scores)
    rows = scores.reset_index().astype(object).where(scores.reset_index().notna(), None).to_dict("records")
    return {
        "images": len(predictions.image_ids),
        "patients": predictions.num_patients,
        "mean_auc": mean if count else None,
        "mean_auc_findings": count,
        "collapsed": list(predictions.collapsed),
        "labels": rows,
    }
