import numpy as np
import pandas as pd
import pytest

from cxrkeras import labels
from cxrkeras.config import Sampling
from cxrkeras.training.sampling import draw_copies, expect_copies, split_passes

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def hot():
    """As rare as in the NIH release, some with several labels."""
    prevalence = np.linspace(0.002, 0.17, 14)
    findings = RNG.random((20000, 14)) < prevalence
    return np.concatenate([findings, ~findings.any(axis=1, keepdims=True)], axis=1).astype(float)


def exact_copies(hot):
    """Of N draws with replacement with the original's weight."""
    weights = 1 / (hot @ hot.sum(axis=0))
    return len(hot) * weights / weights.sum()


def check_against_exact(hot):
    expected = expect_copies(hot, Sampling(name="balanced"))
    exact = exact_copies(hot)
    assert np.allclose(hot.T @ expected, hot.T @ exact, rtol=1e-9)
    epochs = np.stack([hot.T @ draw_copies(expected, np.random.default_rng([3, epoch])) for epoch in range(50)])
    # Of N draws each falls on label l with probability p: binomial.
    share = hot.T @ exact / len(hot)
    error = np.sqrt(len(hot) * share * (1 - share) / 50)
    assert np.all(np.abs(epochs.mean(axis=0) - len(hot) * share) < 3 * error)


def test_expected_counts_are_those_of_the_exact_weighted_sampler(hot):
    check_against_exact(hot)


def test_on_the_full_label_file(nih_sample):
    text = pd.read_csv(nih_sample / "Data_Entry_2017_v2020.csv")["Finding Labels"].str.split("|")
    check_against_exact(np.array([[label in found for label in labels.LABELS] for found in text]).astype(float))


def test_limits_are_kept_and_the_epoch_keeps_its_length(hot):
    expected = expect_copies(hot, Sampling(name="balanced", least=0.3, most=6))
    assert (expected.min(), expected.max()) == pytest.approx((0.3, 6))
    assert expected.sum() == pytest.approx(len(hot))
    between = (expected > 0.3) & (expected < 6)
    ratio = expected[between] / exact_copies(hot)[between]
    assert np.allclose(ratio, ratio[0])


def test_images_without_a_label_are_seen_too():
    hot = np.zeros((10, 15))
    hot[:4, 0], hot[4:6, 1] = 1, 1
    expected = expect_copies(hot, Sampling(name="balanced"))
    assert expected[-1] == expected[0] < expected[4]


def test_copies_are_a_function_of_the_seed_and_spread_over_passes(hot):
    expected = expect_copies(hot, Sampling(name="balanced"))
    draws = [draw_copies(expected, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert draws[0].sum() == len(hot)
    passes = split_passes(draws[0], 4, RNG)
    assert np.array_equal(passes.sum(axis=0), draws[0])
    assert np.ptp(passes, axis=0).max() <= 1
    assert np.ptp(passes.sum(axis=1)) < 0.05 * len(hot)
