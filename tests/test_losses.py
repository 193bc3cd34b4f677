import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cxrkeras.config import Loss
from cxrkeras.scoring.scores import hamming_loss
from cxrkeras.training.losses import build_loss, weigh_positives

RNG = np.random.default_rng(0)
REFERENCE = json.loads((Path(__file__).parent / "data" / "tfa-reference.json").read_text())
LOGITS = np.array(REFERENCE["logits"], np.float32)
TRUTH = np.array(REFERENCE["labels"], np.float32)
PROBS = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
ONES = np.ones(15)
LOSSES = [
    Loss(),
    Loss(label_smoothing=0.1),
    Loss(name="weighted_bce", weights=list(range(1, 16))),
    Loss(name="focal"),
    Loss(name="focal", gamma=0.5, alpha=[0.5] * 15),
    Loss(name="hamming"),
    Loss(name="asymmetric"),
    Loss(name="asymmetric", gamma_negative=0.5, gamma_positive=1, margin=0.2),
    Loss(name="asymmetric", margin=0),
]


def value(loss, truth=TRUTH, logits=LOGITS):
    return keras.ops.convert_to_numpy(build_loss(loss)(truth, keras.ops.convert_to_tensor(logits)))


@pytest.mark.parametrize("expected", REFERENCE["focal"], ids=lambda e: f"gamma{e['gamma']}-alpha{e['alpha']}")
def test_focal_loss_is_that_of_tensorflow_addons(expected):
    focal = value(Loss(name="focal", alpha=expected["alpha"], gamma=expected["gamma"]))
    assert np.allclose(focal.sum(axis=1), expected["per_example_sum_over_labels"], rtol=1e-5)


@pytest.mark.parametrize("expected", REFERENCE["hamming"])
def test_hamming_loss_is_that_of_tensorflow_addons(expected):
    got = hamming_loss(TRUTH, PROBS, expected["threshold_on_probability"])
    assert got == pytest.approx(expected["value"], rel=1e-6)


def test_bce_is_keras_own():
    for smoothing in (0, 0.2):
        keras_loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=smoothing)
        assert value(Loss(label_smoothing=smoothing)).mean() == pytest.approx(
            float(keras_loss(TRUTH, LOGITS)), rel=1e-5
        )


def test_focal_identities():
    bce = value(Loss())
    assert np.allclose(value(Loss(name="focal", gamma=0, alpha=0.5)), bce / 2, rtol=1e-5)
    of_truth = np.where(TRUTH, PROBS, 1 - PROBS)
    for gamma in (1, 2.5):
        assert np.allclose(
            value(Loss(name="focal", gamma=gamma, alpha=0.5)), bce / 2 * (1 - of_truth) ** gamma, rtol=1e-4
        )
    alpha = [round(0.05 * i, 2) for i in range(1, 16)]
    per_label = value(Loss(name="focal", alpha=alpha))
    for column in (0, 7, 14):
        assert np.allclose(per_label[:, column], value(Loss(name="focal", alpha=alpha[column]))[:, column], rtol=1e-5)


def test_weights_make_positives_and_negatives_of_a_label_weigh_the_same():
    positives = TRUTH.sum(axis=0)
    weights = np.where(TRUTH, weigh_positives(positives, len(TRUTH)), 1)
    both = (positives > 0) & (positives < len(TRUTH))
    assert both.any()
    assert np.allclose((weights * TRUTH).sum(0)[both], (weights * (1 - TRUTH)).sum(0)[both])
    loss = build_loss(Loss(name="weighted_bce"), positives, len(TRUTH))
    assert np.allclose(loss(TRUTH, LOGITS), weights * value(Loss()), rtol=1e-5)
    assert weigh_positives(np.array([0, 5]), 10).tolist() == [1, 1]


def test_hamming_is_the_expected_share_of_wrong_labels():
    drawn = RNG.random((20000, *PROBS.shape)) < PROBS
    assert np.allclose(value(Loss(name="hamming")), (drawn != TRUTH).mean(axis=0), atol=0.02)


def test_asymmetric_identities():
    assert np.allclose(value(Loss(name="asymmetric", gamma_negative=0, margin=0)), value(Loss()), rtol=1e-5)
    got = value(Loss(name="asymmetric", gamma_negative=3, gamma_positive=1, margin=0.1)).astype(np.float64)
    shifted = np.maximum(PROBS - 0.1, 0)
    expected = np.where(TRUTH, (1 - PROBS) * -np.log(PROBS), shifted**3 * -np.log(1 - shifted))
    assert np.allclose(got, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.name}-{LOSSES.index(loss)}")
def test_values_and_gradients_stay_finite_and_right_eagerly_and_compiled(loss, dtype):
    each = build_loss(loss, ONES, 30)
    logits = tf.constant([[-100.0] * 15, [100.0] * 15, [0.0] * 15, [1.0] * 15], dtype)
    for truth in (tf.zeros((4, 15)), tf.ones((4, 15))):

        def slope(logits, truth=truth):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                values = each(truth, logits)
            return values, tape.gradient(values, logits)

        values, gradients = slope(logits)
        assert values.dtype == dtype
        assert values.shape == (4, 15)
        assert np.isfinite(values).all()
        assert np.isfinite(gradients).all()
        assert np.all(values >= 0)
        # Away from the truth the loss is larger.
        assert np.all(values[1] >= values[0]) if not truth[0, 0] else np.all(values[0] >= values[1])
        for eager, compiled in zip((values, gradients), tf.function(slope, jit_compile=True)(logits), strict=True):
            assert np.allclose(eager, compiled, rtol=1e-2 if dtype == "float16" else 1e-5, atol=1e-3)
