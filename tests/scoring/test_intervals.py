"""Tests intervals statistically, against simulated truth."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import average_precision_score, roc_auc_score

from cxrkeras.scoring.intervals import (
    Ranking,
    adjust_p_values,
    average_replicates,
    average_scores,
    bootstrap_mean,
    bootstrap_scores,
    compute_interval,
    compute_p_value,
    sample_weights,
)

GAP, SPREAD, NOISE = 1.2, 1.0, 0.7
TRUE_AUC = norm.cdf(GAP / np.sqrt(2 * (SPREAD**2 + NOISE**2)))


def simulate(rng, patients=300):
    """Simulate images of ill and healthy patients, with scores that are correlated within a patient."""
    who = np.repeat(np.arange(patients), rng.integers(1, 9, patients))
    ill = (rng.random(patients) < 0.3)[who].astype(float)
    scores = GAP * ill + SPREAD * rng.normal(size=patients)[who] + NOISE * rng.normal(size=len(who))
    return ill, scores, who.astype(str)


def degenerate_cases():
    rng = np.random.default_rng(0)
    ties = rng.integers(0, 5, 200).astype(float)
    truth = (rng.random(200) < 0.3).astype(float)
    return {
        "ties": (truth, ties),
        "no ties": (truth, rng.normal(size=200)),
        "all scores equal": (truth, np.zeros(200)),
        "one positive": (np.eye(200)[7], ties),
        "one negative": (1 - np.eye(200)[7], ties),
        "perfect": (truth, truth),
        "all wrong": (truth, -truth),
        "huge scores": (truth, 1e30 * ties),
    }


@pytest.mark.parametrize("case", degenerate_cases())
def test_scores_equal_scikit_learn_for_any_weights(case):
    truth, scores = degenerate_cases()[case]
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 4, (len(truth), 6)).astype(np.float32)
    weights[:, 0] = 1
    weights[[7, 8]] = 1  # keep the only positive or negative
    auc, precision = Ranking(truth, scores).score(weights)
    for k, weight in enumerate(weights.T):
        assert auc[k] == pytest.approx(roc_auc_score(truth, scores, sample_weight=weight), abs=1e-12)
        assert precision[k] == pytest.approx(average_precision_score(truth, scores, sample_weight=weight), abs=1e-12)


def test_a_replicate_without_positives_or_negatives_is_undefined():
    truth, scores = np.array([1.0, 0, 0, 1]), np.array([0.3, 0.1, 0.5, 0.9])
    weights = np.array([[0, 1], [1, 0], [2, 0], [0, 1]], np.float32)
    assert all(np.isnan(values).all() for values in Ranking(truth, scores).score(weights))


def test_all_images_of_a_patient_are_drawn_together_and_reproducibly():
    ids = np.array(["a", "b", "a", "c", "c", "c"])
    blocks = np.concatenate(list(sample_weights(ids, 250, seed=3)), axis=1)
    assert blocks.shape == (6, 250)
    assert (blocks[0] == blocks[2]).all()
    assert (blocks[3] == blocks[5]).all()
    assert (blocks[[0, 1, 3]].sum(axis=0) == 3).all()
    assert (blocks == np.concatenate(list(sample_weights(ids, 250, seed=3)), axis=1)).all()
    assert (blocks != np.concatenate(list(sample_weights(ids, 250, seed=4)), axis=1)).any()


def test_labels_that_cannot_be_scored_are_undefined_and_do_not_affect_others():
    ill, scores, who = simulate(np.random.default_rng(0), 60)
    truth = np.stack([ill, ill, 0 * ill], axis=1)
    logits = np.stack([scores, np.where(scores > 2, np.nan, scores), scores], axis=1)
    drawn = bootstrap_scores(truth, logits, who, replicates=120)
    assert np.isfinite(drawn.auc[:, 0]).all()
    assert np.isnan(drawn.auc[:, 1:]).all()
    assert np.isnan(drawn.average_precision[:, 1:]).all()
    empty = compute_interval(drawn.auc[:, 1])
    assert np.isnan(empty.low)
    assert empty.replicates == 0


def test_the_mean_does_not_jump_where_a_rare_label_is_not_drawn():
    point = np.array([0.9, 0.5, np.nan])
    drawn = np.array([[0.92, 0.52, np.nan], [0.92, np.nan, np.nan]])
    assert average_replicates(drawn, point) == pytest.approx([0.72, 0.72])


def test_means_are_over_the_drawn_images():
    values, ids = np.array([[1.0, 0], [2, 0], [3, 1]]), np.array(["a", "a", "b"])
    drawn = bootstrap_mean(values, ids, replicates=50)
    assert np.unique(drawn.round(6), axis=0).tolist() == [[1.5, 0.0], [2.0, 0.333333], [3.0, 1.0]]


def test_p_values_are_adjusted_by_holm():
    assert adjust_p_values(np.array([0.04, 0.01, np.nan, 0.03])) == pytest.approx(
        [0.06, 0.03, np.nan, 0.06], nan_ok=True
    )


def cover(datasets, patients=300, replicates=400):
    """Compute how often intervals over patients, and over images, contain the true AUC."""
    rng = np.random.default_rng(7)
    covered = np.zeros(2)
    for number in range(datasets):
        ill, scores, who = simulate(rng, patients)
        for kind, ids in enumerate((who, np.arange(len(who)).astype(str))):
            drawn = bootstrap_scores(ill[:, None], scores[:, None], ids, replicates=replicates, seed=number).auc
            interval = compute_interval(drawn[:, 0])
            covered[kind] += interval.low <= TRUE_AUC <= interval.high
    return covered / datasets


def reject(datasets, gap, patients=200, replicates=400):
    """Count how often a paired test finds a difference between two networks whose AUCs differ by `gap`."""
    rng = np.random.default_rng(8)
    found = 0
    spread = 1.0
    first = 1.0
    auc = norm.cdf(first / np.sqrt(2 * (spread**2 + 0.3**2)))
    second = norm.ppf(auc + gap) * np.sqrt(2 * (spread**2 + 0.3**2))
    for number in range(datasets):
        ill, _, who = simulate(rng, patients)
        shared = spread * rng.normal(size=patients)[who.astype(int)]
        both = [mean * ill + shared + 0.3 * rng.normal(size=len(ill)) for mean in (first, second)]
        truth = np.stack([ill, ill], axis=1)
        drawn = bootstrap_scores(truth, np.stack(both, axis=1), who, replicates=replicates, seed=number).auc
        found += compute_p_value(drawn[:, 1] - drawn[:, 0]) < 0.05
    return found


def test_intervals_over_patients_have_nominal_coverage_and_those_over_images_do_not():
    over_patients, over_images = cover(150)
    assert 0.89 <= over_patients <= 0.99
    assert over_images < 0.8


def test_paired_differences_are_found_only_if_they_exist():
    assert reject(100, gap=0.0) <= 12
    assert reject(60, gap=0.02) > 30


@pytest.mark.slow
def test_coverage_over_a_thousand_data_sets():
    over_patients, over_images = cover(1000, replicates=1000)
    print(f"coverage over patients {over_patients:.3f}, over images {over_images:.3f}")
    assert 0.93 <= over_patients <= 0.97
    assert over_images < 0.8


@pytest.mark.slow
def test_paired_test_over_a_thousand_pairs():
    by_chance, planted = reject(1000, gap=0.0, replicates=1000), reject(200, gap=0.02, replicates=1000)
    print(f"rejected {by_chance} of 1,000 pairs without a difference, {planted} of 200 with one of 0.02")
    assert 35 <= by_chance <= 65
    assert planted > 100


def test_the_interval_of_a_mean_auc_stays_within_0_and_1():
    values = np.array([[1.0, np.nan], [0.99, np.nan], [1.0, 0.9]])
    mean = average_scores(values, np.array([0.7, 0.95]))
    assert average_replicates(values, np.array([0.7, 0.95])).max() > 1
    assert mean.tolist() == [1, 1, pytest.approx(0.95)]
