"""Scores of multi-label predictions, label by label."""

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrkeras import labels


def score_labels(truth: np.ndarray, logits: np.ndarray) -> pd.DataFrame:
    """Score each label by itself.

    truth: 0 or 1, (N, 15); logits: float (N, 15), only their order counts. Returns a row a label, in label order:
    auc (area under the ROC curve, exact with ties), average_precision, positives, images, note. A score that is
    not defined is NaN and the note says why.
    """
    rows = []
    for column, label in enumerate(labels.LABELS):
        y, z = truth[:, column], logits[:, column]
        positives = int(y.sum())
        row = {"label": label, "auc": np.nan, "average_precision": np.nan, "positives": positives, "images": len(y)}
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


def format_mean(scores: pd.DataFrame) -> str:
    """Mean AUC with its count, as in `0.812 (14 of 14)`."""
    mean, count = mean_auc(scores)
    return f"{mean:.3f} ({count} of {len(labels.FINDINGS)})" if count else f"undefined (0 of {len(labels.FINDINGS)})"


def hamming_loss(truth: np.ndarray, probs: np.ndarray, threshold: float | np.ndarray) -> float:
    """Share of labels that are wrong where probabilities (N, L) over `threshold`, one or one a label, mean yes."""
    return float(np.mean((probs > threshold) != (truth > 0)))
