import numpy as np
import pandas as pd
import pytest

from cxrkeras.config import Sampling
from cxrkeras.labels import NIH
from cxrkeras.training.sampling import expect_copies, is_weighted, sample_copies, split_passes

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def labels():
    """Labels as rare as in the NIH release, some images with several."""
    prevalence = np.linspace(0.002, 0.17, 14)
    findings = RNG.random((20000, 14)) < prevalence
    return np.concatenate([findings, ~findings.any(axis=1, keepdims=True)], axis=1).astype(float)


def exact_copies(labels):
    """Expected copies of N draws with replacement, with the weights of the original implementation."""
    weights = 1 / (labels @ labels.sum(axis=0))
    return len(labels) * weights / weights.sum()


def check_against_exact(labels):
    expected = expect_copies(labels, Sampling(name="balanced"))
    exact = exact_copies(labels)
    assert np.allclose(labels.T @ expected, labels.T @ exact, rtol=1e-9)
    epochs = np.stack([labels.T @ sample_copies(expected, np.random.default_rng([3, epoch])) for epoch in range(50)])
    # Each of N draws has label l with probability p: binomial.
    share = labels.T @ exact / len(labels)
    error = np.sqrt(len(labels) * share * (1 - share) / 50)
    assert np.all(np.abs(epochs.mean(axis=0) - len(labels) * share) < 3 * error)


def test_expected_counts_equal_the_exact_weighted_sampler(labels):
    check_against_exact(labels)


def test_on_the_full_label_file(nih_sample):
    text = pd.read_csv(nih_sample / "Data_Entry_2017_v2020.csv")["Finding Labels"].str.split("|")
    check_against_exact(np.array([[label in found for label in NIH.names] for found in text]).astype(float))


def test_copies_stay_within_limits_and_the_epoch_keeps_its_length(labels):
    expected = expect_copies(labels, Sampling(name="balanced", least=0.3, most=6))
    assert (expected.min(), expected.max()) == pytest.approx((0.3, 6))
    assert expected.sum() == pytest.approx(len(labels))
    between = (expected > 0.3) & (expected < 6)
    ratio = expected[between] / exact_copies(labels)[between]
    assert np.allclose(ratio, ratio[0])


def test_images_without_a_label_are_sampled():
    labels = np.zeros((10, 15))
    labels[:4, 0], labels[4:6, 1] = 1, 1
    expected = expect_copies(labels, Sampling(name="balanced"))
    assert expected[-1] == expected[0] < expected[4]


def test_copies_depend_on_the_seed_and_spread_over_passes(labels):
    expected = expect_copies(labels, Sampling(name="balanced"))
    draws = [sample_copies(expected, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])
    assert draws[0].sum() == len(labels)
    passes = split_passes(draws[0], 4, RNG)
    assert np.array_equal(passes.sum(axis=0), draws[0])
    assert np.ptp(passes, axis=0).max() <= 1
    assert np.ptp(passes.sum(axis=1)) < 0.05 * len(labels)


def test_equal_sources_share_an_epoch_equally(labels):
    sources = np.where(np.arange(len(labels)) < 2000, "small", "large")
    for sampling in (Sampling(sources="equal"), Sampling(name="balanced", sources="equal")):
        copies = expect_copies(labels > 0, sampling, sources)
        assert copies.sum() == pytest.approx(len(labels))
        assert copies[:2000].sum() == pytest.approx(len(labels) / 2)
    plain = expect_copies(labels > 0, Sampling(sources="equal"), sources)
    assert np.allclose(plain[:2000], 5)
    assert np.allclose(plain[2000:], 10000 / 18000)
    balanced, within = expect_copies(labels > 0, Sampling(name="balanced"))[:2000], copies[:2000]
    assert np.allclose(within / within.sum(), balanced / balanced.sum())
    assert is_weighted(Sampling(sources="equal"))
    assert not is_weighted(Sampling())
