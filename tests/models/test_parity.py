"""Compares the networks with stored results of PyTorch (`make parity`)."""

import numpy as np
import pytest

from benchmarks.parity import CLASSES, NETWORKS, RESULTS, SIZES, TOLERANCE, compute_with_keras, difference, sample

FAST = ["resnet18", "densenet121", "googlenet", "efficientnetlite0"]


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in NETWORKS]
)
@pytest.mark.parametrize("size", SIZES)
def test_logits_and_features_equal_those_of_pytorch(name, size):
    with np.load(RESULTS) as stored:
        expected = stored[f"{name}-{size}"]
    logits, features = compute_with_keras(name, size)
    assert difference(logits, expected[:CLASSES]) < TOLERANCE
    assert difference(sample(features), expected[CLASSES:]) < TOLERANCE
    assert expected[:CLASSES].std() > 1  # the comparison is not trivial
