"""Grad-CAM++ and Score-CAM, based on tf-keras-vis."""

import contextlib
import io
from collections.abc import Callable

import keras
import numpy as np
from tf_keras_vis.gradcam_plus_plus import GradcamPlusPlus
from tf_keras_vis.scorecam import Scorecam
from tf_keras_vis.utils.scores import CategoricalScore

from cxrkeras.models.classifier import FEATURES

_OPTIONS = {
    "penultimate_layer": FEATURES,
    "seek_penultimate_conv_layer": False,
    "expand_cam": False,
    "normalize_cam": False,
}


def build_gradcam_plus_plus(network: keras.Model) -> Callable[[np.ndarray, list[int]], np.ndarray]:
    """Build a function of images, float32 (N, S, S, 1), and the column of one label per image: raw maps (N, h, w)."""
    explain = GradcamPlusPlus(network, clone=False)

    def run(images: np.ndarray, columns: list[int]) -> np.ndarray:
        return np.asarray(explain(CategoricalScore(columns), images, **_OPTIONS))

    return run


def build_scorecam(network: keras.Model, channels: int) -> Callable[[np.ndarray, list[int]], np.ndarray]:
    """Build the same function for Score-CAM, with the `channels` of the features that vary most; image by image.

    tf-keras-vis applies a softmax to the outputs, which is wrong for labels that are not mutually exclusive. It gets a
    network with two outputs instead, the label's logit and zero, whose softmax is the sigmoid of the logit.
    """
    pair = keras.layers.Dense(2, use_bias=False, dtype="float32", trainable=False, name="label_and_zero")
    inner = keras.Model(network.inputs, pair(network.output))  # a list, because tf-keras-vis passes one
    explain = Scorecam(inner, clone=False)
    num_labels = network.output_shape[-1]
    available = network.get_layer(FEATURES).output.shape[-1]

    def run(images: np.ndarray, columns: list[int]) -> np.ndarray:
        maps = []
        for image, column in zip(images, columns, strict=True):
            kernel = np.zeros((num_labels, 2), np.float32)
            kernel[column, 0] = 1
            pair.set_weights([kernel])
            with contextlib.redirect_stdout(io.StringIO()):  # the progress bar of Keras' predict
                heat = explain(CategoricalScore([0]), image[None], max_N=min(channels, available), **_OPTIONS)
            maps.append(np.asarray(heat)[0])
        return np.stack(maps)

    return run
