import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from cxrkeras.config import Augmentation as Settings
from cxrkeras.training.augment import Augmentation, adjust, warp

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
    warped = any_warp(IMAGES, NONE, np.deg2rad(degrees))
    assert np.allclose(warped[:, 16, 16], IMAGES[:, 16, 16], atol=1e-3)
    rows, columns = np.mgrid[-16:17, -16:17]
    inside = np.hypot(rows, columns) < 15
    for image, angle, rotated in zip(IMAGES[..., 0], degrees, warped[..., 0], strict=True):
        expected = ndimage.rotate(image, angle, reshape=False, order=1, mode="nearest")
        assert np.abs(rotated - expected)[inside].max() < 0.01


def test_flip_comes_before_rotation(any_warp):
    angle = np.full(4, 0.3, np.float32)
    both = any_warp(IMAGES, ~NONE, angle)
    assert np.allclose(both, any_warp(IMAGES[:, :, ::-1].copy(), NONE, angle), atol=1e-3)


def test_shift_and_zoom_equal_scipy_inside(any_warp):
    zooms, shifts = np.array([1, 1.2, 0.8, 1.1], np.float32), RNG.uniform(-4, 4, (2, 4)).astype(np.float32)
    warped = any_warp(IMAGES, NONE, np.zeros(4, np.float32), zooms, *shifts)
    for image, zoom, shift, moved in zip(IMAGES[..., 0], zooms, shifts.T, warped[..., 0], strict=True):
        expected = ndimage.affine_transform(image, np.eye(2) / zoom, 16 - (16 + shift) / zoom, order=1, mode="nearest")
        assert np.abs(moved - expected)[8:25, 8:25].max() < 0.01


def test_contrast_keeps_the_mean_and_noise_has_its_standard_deviation():
    grey = np.full((2, 64, 64, 1), 100, np.float32)
    grey[:, ::2] = 140
    ones, zeros = np.ones(2, np.float32), np.zeros(2, np.float32)
    sharper = keras.ops.convert_to_numpy(adjust(grey, 2 * ones, zeros, keras.random.SeedGenerator(0)))
    assert np.allclose(sharper, np.where(grey == 140, 160, 80))
    noisy = keras.ops.convert_to_numpy(adjust(grey, ones, np.float32([3, 9]), keras.random.SeedGenerator(0)))
    assert np.allclose((noisy - grey).std(axis=(1, 2, 3)), [3, 9], rtol=0.05)
    extreme = keras.ops.convert_to_numpy(adjust(grey, 90 * ones, 90 * ones, keras.random.SeedGenerator(0)))
    assert (extreme.min(), extreme.max()) == (0, 255)


def test_eager_and_compiled_agree():
    inputs = IMAGES, RNG.random(4) < 0.5, *RNG.uniform(-0.2, 0.2, (4, 4)).astype(np.float32)
    inputs = [*inputs[:3], 1 + inputs[3], 20 * inputs[4], 20 * inputs[5]]
    eager = keras.ops.convert_to_numpy(warp(*inputs))
    assert np.abs(eager - COMPILED(*map(tf.constant, inputs))).max() < 1e-3
    sharpen = lambda images: adjust(images, inputs[3], 0 * inputs[3], 0)  # noqa: E731
    assert np.abs(sharpen(IMAGES) - tf.function(sharpen, jit_compile=True)(IMAGES)).max() < 1e-3


@pytest.mark.parametrize("option", ["flip", "rotation", "translation", "zoom", "contrast", "noise"])
def test_each_option_alters_images_eagerly_and_compiled(option):
    """XLA draws different numbers from the same seed, so only the presence of an effect is compared."""
    off = {"flip": 0, "rotation": 0}
    layers = [Augmentation(Settings(**off | {option: value}), seed=1) for value in (0, 0.9)]
    for layer, is_altered in zip(layers, (False, True), strict=True):
        for is_compiled in (False, True):
            augment = tf.function(lambda images, layer=layer: layer(images, training=True), jit_compile=is_compiled)
            assert (np.abs(augment(tf.constant(IMAGES)) - IMAGES).max() > 0.5) == is_altered


def test_draws_depend_on_seed_epoch_and_step_and_only_happen_in_training():
    settings = Settings(flip=0.5, rotation=7, translation=0.1, zoom=0.1, contrast=0.2, noise=5)
    layer = Augmentation(settings, seed=3)
    assert layer.supports_jit

    def augment_steps(epoch, number):
        layer.start_epoch(epoch)
        return [keras.ops.convert_to_numpy(layer(IMAGES, training=True)) for _ in range(number)]

    first = augment_steps(0, 3)
    assert not np.array_equal(first[0], first[1])
    assert not np.array_equal(first[0], augment_steps(1, 1)[0])
    assert all(np.array_equal(a, b) for a, b in zip(first, augment_steps(0, 3), strict=True))
    assert np.array_equal(layer(IMAGES), IMAGES)


def test_flip_probability_and_rotation_range():
    ramp = np.tile(np.arange(33, dtype=np.float32), (2000, 33, 1))[..., None]
    layer = Augmentation(Settings(flip=0.25, rotation=0))
    flipped = keras.ops.convert_to_numpy(layer(ramp, training=True))[:, 16, 0, 0] > 16
    assert abs(flipped.mean() - 0.25) < 0.03
    turned = keras.ops.convert_to_numpy(Augmentation(Settings(flip=0, rotation=10))(ramp, training=True))
    middle = turned[:, 12:21, 12:21, 0]
    slope = np.rad2deg(np.arctan2(middle[:, -1, 4] - middle[:, 0, 4], middle[:, 4, -1] - middle[:, 4, 0]))
    assert 9.5 < np.abs(slope).max() <= 10.01
    assert abs(slope.mean()) < 0.5


def test_float32_regardless_of_the_dtype_policy():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        layer = Augmentation(Settings(flip=0, rotation=0))
    finally:
        keras.config.set_dtype_policy("float32")
    grey = RNG.integers(0, 256, (2, 8, 8, 1), np.uint8)
    assert np.array_equal(keras.ops.convert_to_numpy(layer(grey, training=True)), grey.astype(np.float32))
