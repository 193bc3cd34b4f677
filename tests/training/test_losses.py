import json
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from cxrkeras.config import Loss
from cxrkeras.scoring.scores import hamming_loss
from cxrkeras.training.losses import TargetCounts, build_elements, build_loss, mean_loss, weigh_positives

RNG = np.random.default_rng(0)
REFERENCE = json.loads((Path(__file__).parents[1] / "references" / "tfa-reference.json").read_text())
LOGITS = np.array(REFERENCE["logits"], np.float32)
TRUTH = np.array(REFERENCE["labels"], np.float32)
PROBS = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
COUNTS = TargetCounts(30, np.ones(15), np.full(15, 30), 15.0)
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
    return keras.ops.convert_to_numpy(build_loss(loss, 15)(truth, keras.ops.convert_to_tensor(logits)))


@pytest.mark.parametrize("expected", REFERENCE["focal"], ids=lambda e: f"gamma{e['gamma']}-alpha{e['alpha']}")
def test_focal_loss_equals_tensorflow_addons(expected):
    focal = value(Loss(name="focal", alpha=expected["alpha"], gamma=expected["gamma"]))
    assert np.allclose(focal.sum(axis=1), expected["per_example_sum_over_labels"], rtol=1e-5)


@pytest.mark.parametrize("expected", REFERENCE["hamming"])
def test_hamming_loss_equals_tensorflow_addons(expected):
    computed = hamming_loss(TRUTH, PROBS, expected["threshold_on_probability"])
    assert computed == pytest.approx(expected["value"], rel=1e-6)


def test_bce_equals_keras():
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


def test_weights_balance_positives_and_negatives_of_each_label():
    positives = TRUTH.sum(axis=0)
    weights = np.where(TRUTH, weigh_positives(positives, len(TRUTH)), 1)
    both = (positives > 0) & (positives < len(TRUTH))
    assert both.any()
    assert np.allclose((weights * TRUTH).sum(0)[both], (weights * (1 - TRUTH)).sum(0)[both])
    counts = TargetCounts(len(TRUTH), positives, np.full(15, len(TRUTH)), 15.0)
    loss = build_loss(Loss(name="weighted_bce"), 15, counts)
    assert np.allclose(loss(TRUTH, LOGITS), weights * value(Loss()), rtol=1e-5)
    assert weigh_positives(np.array([0, 5, 2]), np.array([10, 10, 4])).tolist() == [1, 1, 1]


def test_hamming_is_the_expected_share_of_wrong_labels():
    drawn = RNG.random((20000, *PROBS.shape)) < PROBS
    assert np.allclose(value(Loss(name="hamming")), (drawn != TRUTH).mean(axis=0), atol=0.02)


def test_asymmetric_identities():
    assert np.allclose(value(Loss(name="asymmetric", gamma_negative=0, margin=0)), value(Loss()), rtol=1e-5)
    computed = value(Loss(name="asymmetric", gamma_negative=3, gamma_positive=1, margin=0.1)).astype(np.float64)
    shifted = np.maximum(PROBS - 0.1, 0)
    expected = np.where(TRUTH, (1 - PROBS) * -np.log(PROBS), shifted**3 * -np.log(1 - shifted))
    assert np.allclose(computed, expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.name}-{LOSSES.index(loss)}")
def test_values_and_gradients_stay_finite_and_right_eagerly_and_compiled(loss, dtype):
    training_loss = build_loss(loss, 15, COUNTS)
    logits = tf.constant([[-100.0] * 15, [100.0] * 15, [0.0] * 15, [1.0] * 15], dtype)
    for truth in (tf.zeros((4, 15)), tf.ones((4, 15))):

        def slope(logits, truth=truth):
            with tf.GradientTape() as tape:
                tape.watch(logits)
                values = training_loss(truth, logits)
            return values, tape.gradient(values, logits)

        values, gradients = slope(logits)
        assert values.dtype == dtype
        assert values.shape == (4, 15)
        assert np.isfinite(values).all()
        assert np.isfinite(gradients).all()
        assert np.all(values >= 0)
        # Further from the truth the loss is larger.
        assert np.all(values[1] >= values[0]) if not truth[0, 0] else np.all(values[0] >= values[1])
        for eager, compiled in zip((values, gradients), tf.function(slope, jit_compile=True)(logits), strict=True):
            assert np.allclose(eager, compiled, rtol=1e-2 if dtype == "float16" else 1e-5, atol=1e-3)


def draw_masked(seed=3):
    """Draw targets, a third of them and all of one label not known, and logits."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((12, 15)) < 0.3).astype(np.float32)
    targets[rng.random(targets.shape) < 0.3] = np.nan
    targets[:, 6] = np.nan
    return targets, rng.normal(size=(12, 15)).astype(np.float32) * 3


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.name}-{LOSSES.index(loss)}")
def test_without_unknown_labels_the_loss_is_the_mean_over_images_and_labels(loss):
    for counts in (None, COUNTS):
        if counts is None and loss.name == "weighted_bce" and not loss.weights:
            continue
        scaled = build_loss(loss, 15, counts)(TRUTH, LOGITS)
        assert np.array_equal(scaled, build_elements(loss, counts)(TRUTH, LOGITS))


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.name}-{LOSSES.index(loss)}")
def test_unknown_labels_have_no_loss_and_no_gradient(loss, dtype, is_compiled):
    targets, logits = draw_masked()
    is_known = np.isfinite(targets)
    elements = build_elements(loss, COUNTS)

    def slope(targets, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            total = tf.reduce_sum(elements(targets, logits))
        return elements(targets, logits), tape.gradient(total, logits)

    call = tf.function(slope, jit_compile=True) if is_compiled else slope
    values, gradients = (np.asarray(array) for array in call(tf.constant(targets), tf.constant(logits, dtype)))
    assert (values[~is_known] == 0).all()
    assert (gradients[~is_known] == 0).all()
    assert np.isfinite(values).all()
    assert np.isfinite(gradients).all()
    assert (gradients[is_known] != 0).mean() > 0.8  # below the margin there is no gradient
    # Known elements count as if all were known.
    filled = np.where(is_known, targets, 1).astype(np.float32)
    whole = np.asarray(elements(tf.constant(filled), tf.constant(logits, dtype)))
    np.testing.assert_allclose(values[is_known], whole[is_known], rtol=2e-2 if dtype == "float16" else 1e-5, atol=1e-3)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.name}-{LOSSES.index(loss)}")
def test_slices_of_a_batch_add_up_to_the_batch(loss):
    targets, logits = draw_masked()
    known = np.isfinite(targets)
    counts = TargetCounts(12, np.ones(15), np.full(15, 12), float(known.sum(axis=1).mean()))
    scaled = build_loss(loss, 15, counts)
    whole = np.asarray(scaled(targets, tf.constant(logits)))
    slices = [np.asarray(scaled(targets[rows], tf.constant(logits[rows]))) for rows in (slice(0, 5), slice(5, 12))]
    assert whole.mean() == pytest.approx(sum(losses.sum() for losses in slices) / (12 * 15), rel=1e-5)
    # This equals the mean over the known elements.
    elements = build_elements(loss, counts)
    total = np.asarray(elements(targets, tf.constant(logits))).sum()
    assert whole.mean() == pytest.approx(total / known.sum(), rel=1e-5)
    assert mean_loss(elements, targets, logits) == pytest.approx(whole.mean(), rel=1e-5)
    assert np.isnan(mean_loss(elements, np.full_like(targets, np.nan), logits))
