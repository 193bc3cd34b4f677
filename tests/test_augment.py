import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from cxrkeras.training.augment import Augmentation, warp

RNG = np.random.default_rng(0)
IMAGES = ndimage.gaussian_filter(RNG.uniform(0, 255, (4, 33, 33, 1)), (0, 2, 2, 0)).astype(np.float32)
NONE = np.zeros(4, bool)
COMPILED = tf.function(warp, jit_compile=True)


@pytest.fixture(params=[warp, lambda *inputs: COMPILED(*map(tf.constant, inputs))], ids=["eager", "xla"])
def any_warp(request):
    return lambda *inputs: keras.ops.convert_to_numpy(request.param(*inputs))


def test_flip_twice_is_identity(any_warp):
    still = np.zeros(4, np.float32)
    flipped = any_warp(IMAGES, ~NONE, still)
    assert np.array_equal(flipped, IMAGES[:, :, ::-1])
    assert np.array_equal(any_warp(flipped, ~NONE, still), IMAGES)
    assert np.array_equal(any_warp(IMAGES, NONE, still), IMAGES)


def test_a_rotation_keeps_the_centre_and_equals_scipy_inside(any_warp):
    degrees = np.array([7, -7, 33, 90], np.float32)
    turned = any_warp(IMAGES, NONE, np.deg2rad(degrees))
    assert np.allclose(turned[:, 16, 16], IMAGES[:, 16, 16], atol=1e-3)
    rows, columns = np.mgrid[-16:17, -16:17]
    inside = np.hypot(rows, columns) < 15
    for image, angle, got in zip(IMAGES[..., 0], degrees, turned[..., 0], strict=True):
        expected = ndimage.rotate(image, angle, reshape=False, order=1, mode="nearest")
        assert np.abs(got - expected)[inside].max() < 0.01


def test_flip_comes_before_rotation(any_warp):
    angle = np.full(4, 0.3, np.float32)
    both = any_warp(IMAGES, ~NONE, angle)
    assert np.allclose(both, any_warp(IMAGES[:, :, ::-1].copy(), NONE, angle), atol=1e-3)


def test_eager_and_compiled_agree():
    flips, angles = RNG.random(4) < 0.5, RNG.uniform(-0.2, 0.2, 4).astype(np.float32)
    eager = keras.ops.convert_to_numpy(warp(IMAGES, flips, angles))
    assert np.abs(eager - COMPILED(tf.constant(IMAGES), tf.constant(flips), tf.constant(angles))).max() < 1e-3


def test_draws_follow_seed_epoch_and_step_and_only_in_training():
    layer = Augmentation(flip=0.5, rotation=7, seed=3)
    assert layer.supports_jit

    def steps(epoch, number):
        layer.start_epoch(epoch)
        return [keras.ops.convert_to_numpy(layer(IMAGES, training=True)) for _ in range(number)]

    first = steps(0, 3)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], steps(1, 1)[0])
    assert all(np.array_equal(a, b) for a, b in zip(first, steps(0, 3), strict=True))
    assert np.array_equal(layer(IMAGES), IMAGES)


def test_probability_and_reach_are_kept():
    ramp = np.tile(np.arange(33, dtype=np.float32), (2000, 33, 1))[..., None]
    layer = Augmentation(flip=0.25, rotation=0, seed=0)
    flipped = keras.ops.convert_to_numpy(layer(ramp, training=True))[:, 16, 0, 0] > 16
    assert abs(flipped.mean() - 0.25) < 0.03
    turned = keras.ops.convert_to_numpy(Augmentation(flip=0, rotation=10, seed=0)(ramp, training=True))
    middle = turned[:, 12:21, 12:21, 0]
    slope = np.rad2deg(np.arctan2(middle[:, -1, 4] - middle[:, 0, 4], middle[:, 4, -1] - middle[:, 4, 0]))
    assert 9.5 < np.abs(slope).max() <= 10.01
    assert abs(slope.mean()) < 0.5


def test_float32_and_uint8_whatever_the_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = Augmentation(flip=0, rotation=0)
    finally:
        keras.config.set_dtype_policy("float32")
    grey = RNG.integers(0, 256, (2, 8, 8, 1), np.uint8)
    assert np.array_equal(keras.ops.convert_to_numpy(layer(grey, training=True)), grey.astype(np.float32))
