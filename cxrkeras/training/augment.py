"""Augmentation on the accelerator, inside the training step.

Keras' own RandomRotation lowers to an operation that XLA cannot compile; one such layer would switch XLA off for
the whole step. Here everything is arithmetic and a gather, which compile.
"""

import keras
import numpy as np
from keras import ops


def warp(images, flips, angles):
    """Mirror and rotate images about their centre, bilinearly; what comes from outside repeats the edge.

    images: float32 (N, H, W, 1); flips: bool (N,), mirror left and right; angles: float32 (N,), radians, positive
    turns the picture counter-clockwise, after the mirroring. Returns the shape and dtype of `images`.
    """
    _, height, width, channels = images.shape
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    y = ops.reshape(ops.arange(height, dtype="float32") - middle_y, (1, height, 1))
    x = ops.reshape(ops.arange(width, dtype="float32") - middle_x, (1, 1, width))
    cos, sin = (ops.reshape(part, (-1, 1, 1)) for part in (ops.cos(angles), ops.sin(angles)))
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


@keras.saving.register_keras_serializable("cxrkeras")
class Augmentation(keras.layers.Layer):
    """Mirrors images with probability `flip` and rotates them by up to `rotation` degrees, in training only.

    Always float32, whatever the policy: in bfloat16 grey levels over 128 lose their last bits. The draws are a
    function of the seed, the epoch given to `start_epoch` and the step within it.
    """

    def __init__(self, *, flip: float, rotation: float, seed: int = 0, **kwargs):
        super().__init__(dtype="float32", **kwargs)
        self.flip, self.rotation, self.seed = flip, rotation, seed
        self.draws = keras.random.SeedGenerator(seed)

    def start_epoch(self, epoch: int) -> None:
        self.draws.state.assign(np.array([self.seed, epoch << 20], dtype=self.draws.state.dtype))

    def call(self, images, training=False):
        images = ops.cast(images, "float32")
        if not training:
            return images
        num_images = ops.shape(images)[0]
        flips = keras.random.uniform((num_images,), seed=self.draws) < self.flip
        reach = float(np.deg2rad(self.rotation))
        angles = keras.random.uniform((num_images,), -reach, reach, seed=self.draws)
        return warp(images, flips, angles)

    def compute_output_shape(self, input_shape):
        return input_shape
