"""Augmentation on the accelerator, inside the training step.

Keras' RandomRotation lowers to an operation that XLA cannot compile, and one such layer disables XLA for the whole
step. The layer here uses only arithmetic and a gather, which compile.
"""

import keras
import numpy as np
from keras import ops

from cxrkeras.config import Augmentation as Settings


def warp(images, flips, angles, zooms=1.0, downs=0.0, rights=0.0):
    """Flip, rotate, zoom and shift images in this order, bilinearly; pixels from outside repeat the edge.

    images: float32 (N, H, W, 1); flips: bool (N,), horizontal; angles: float32 (N,), radians, positive rotates
    counter-clockwise about the centre; zooms: float32 (N,), above 1 enlarges; downs and rights: float32 (N,), pixels.
    Returns the shape and dtype of `images`.
    """
    _, height, width, channels = images.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y = ops.reshape(ops.arange(height, dtype="float32") - middle_y, (1, height, 1))
    x = ops.reshape(ops.arange(width, dtype="float32") - middle_x, (1, 1, width))
    y, x = y - ops.reshape(downs, (-1, 1, 1)), x - ops.reshape(rights, (-1, 1, 1))
    cos, sin = (ops.reshape(factor / zooms, (-1, 1, 1)) for factor in (ops.cos(angles), ops.sin(angles)))
    source_x = cos * x - sin * y
    source_y = sin * x + cos * y
    source_x = ops.where(ops.reshape(flips, (-1, 1, 1)), -source_x, source_x)
    source_x = ops.clip(source_x + middle_x, 0, width - 1)
    source_y = ops.clip(source_y + middle_y, 0, height - 1)
    left, top = ops.floor(source_x), ops.floor(source_y)
    along, down = source_x - left, source_y - top
    left, top = ops.cast(left, "int32"), ops.cast(top, "int32")
    right, bottom = ops.minimum(left + 1, width - 1), ops.minimum(top + 1, height - 1)
    first = ops.reshape(ops.arange(ops.shape(images)[0], dtype="int32") * (height * width), (-1, 1, 1))
    pixels = ops.reshape(images, (-1, channels))

    def at(row, column):
        return ops.take(pixels, first + row * width + column, axis=0)

    along, down = along[..., None], down[..., None]
    upper = at(top, left) * (1 - along) + at(top, right) * along
    lower = at(bottom, left) * (1 - along) + at(bottom, right) * along
    return upper * (1 - down) + lower * down


def adjust(images, contrasts, noises, seed):
    """Scale the contrast about the mean of each image and add Gaussian noise; clipped to 0 to 255.

    images: float32 (N, H, W, 1); contrasts: float32 (N,), factors; noises: float32 (N,), standard deviations (SD) in
    grey levels.
    """
    means = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    images = means + ops.reshape(contrasts, (-1, 1, 1, 1)) * (images - means)
    images = images + ops.reshape(noises, (-1, 1, 1, 1)) * keras.random.normal(ops.shape(images), seed=seed)
    return ops.clip(images, 0, 255)


class Augmentation(keras.layers.Layer):
    """Applies random augmentation according to the settings, in training only.

    Always float32, regardless of the dtype policy: in bfloat16, grey levels above 128 lose their last bits. Random
    numbers depend only on the seed, the epoch passed to `start_epoch` and the step within it.
    """

    def __init__(self, settings: Settings, *, seed: int = 0, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.settings, self.seed = settings, seed
        self.draws = keras.random.SeedGenerator(seed)

    def start_epoch(self, epoch: int) -> None:
        """Seed the random numbers of an epoch, counted from 0."""
        self.draws.state.assign(np.array([self.seed, epoch << 20], dtype=self.draws.state.dtype))

    def call(self, images, training=False):
        images = ops.cast(images, "float32")
        if not training:
            return images
        settings, (height, width) = self.settings, images.shape[1:3]

        def draw(reach, middle=0.0):
            if not reach:
                return ops.full((ops.shape(images)[0],), middle)
            return keras.random.uniform((ops.shape(images)[0],), middle - reach, middle + reach, seed=self.draws)

        flips = draw(0.5, 0.5) < settings.flip
        angles = draw(np.deg2rad(settings.rotation))
        downs, rights = draw(settings.translation * height), draw(settings.translation * width)
        if settings.flip or settings.rotation or settings.translation or settings.zoom:
            images = warp(images, flips, angles, draw(settings.zoom, 1.0), downs, rights)
        if settings.contrast or settings.noise:
            noises = draw(settings.noise / 2, settings.noise / 2)
            images = adjust(images, draw(settings.contrast, 1.0), noises, self.draws)
        return images

    def compute_output_shape(self, input_shape):
        return input_shape
