import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from cxrkeras.labels import NIH
from cxrkeras.scoring.scores import format_mean, mean_auc, score_labels

RNG = np.random.default_rng(0)


def test_auc_counts_pairs_and_ties_half():
    truth = (RNG.random((60, 15)) < 0.4).astype(int)
    logits = RNG.integers(0, 6, (60, 15)).astype(float)
    scores = score_labels(truth, logits, NIH.names)
    for column, label in enumerate(NIH.names):
        positive, negative = (logits[truth[:, column] == side, column] for side in (1, 0))
        wins = (positive[:, None] > negative).mean() + 0.5 * (positive[:, None] == negative).mean()
        assert scores.loc[label, "auc"] == pytest.approx(wins, abs=1e-12)
        assert scores.loc[label, "positives"] == truth[:, column].sum()


def test_undefined_scores_are_nan_with_a_note():
    truth = (RNG.random((40, 15)) < 0.5).astype(int)
    logits = RNG.normal(size=(40, 15))
    truth[:, 0], truth[:, 1], logits[3, 2] = 0, 1, np.nan
    scores = score_labels(truth, logits, NIH.names)
    assert scores["auc"].isna().tolist() == [True] * 3 + [False] * 12
    assert scores["note"].tolist()[:4] == ["no positives", "no negatives", "logits are not finite", ""]
    mean, count = mean_auc(scores, NIH)
    assert count == 11
    assert mean == pytest.approx(np.mean([roc_auc_score(truth[:, k], logits[:, k]) for k in range(3, 14)]))
    assert format_mean(scores, NIH) == f"{mean:.3f} (11 of 14)"


def test_the_mean_without_defined_scores_is_undefined():
    scores = score_labels(np.zeros((5, 15), int), np.zeros((5, 15)), NIH.names)
    assert np.isnan(mean_auc(scores, NIH)[0])
    assert format_mean(scores, NIH) == "undefined (0 of 14)"
