"""Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) on TensorFlow's GradientTape."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from cxrkeras import labels
from cxrkeras.models.classifier import FEATURES


def build_gradcam(network: keras.Model, layer: str):
    """Compile Grad-CAM for the output of one convolutional layer of a flat network.

    Returns a function of images, float32 (N, S, S, 1), that gives logits (N, 15) and raw maps (N, 15, h, w), both
    float32 arrays: for label k the ReLU of the features weighted by the mean over the map of d logit_k / d
    features. Maps are not normalised; one that is zero everywhere means that nothing speaks for the label.
    """
    inner = keras.Model(network.input, [network.get_layer(layer).output, network.output])
    num_labels = network.output_shape[-1]

    @tf.function(input_signature=[tf.TensorSpec([None, *network.input_shape[1:]], tf.float32)])
    def explain(images):
        with tf.GradientTape(persistent=True) as tape:
            features, logits = inner(images, training=False)
            each = tf.unstack(tf.cast(logits, tf.float32), num=num_labels, axis=1)
        return logits, draw_maps(tape, each, features)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, maps = explain(tf.cast(images, tf.float32))
        return logits.numpy(), maps.numpy()

    return run


def draw_maps(tape: tf.GradientTape, logits: list[tf.Tensor], features: tf.Tensor) -> tf.Tensor:
    """Raw maps, float32 (N, labels, h, w): `logits`, a tensor (N,) a label, were computed from `features` on `tape`."""
    maps = []
    for logit in logits:
        # From the features onwards an image's logit depends on that image alone, so that the batch is one gradient.
        gradients = tape.gradient(logit, features)
        weights = tf.reduce_mean(tf.cast(gradients, tf.float32), axis=(1, 2), keepdims=True)
        maps.append(tf.nn.relu(tf.reduce_sum(tf.cast(features, tf.float32) * weights, axis=-1)))
    return tf.stack(maps, axis=1)


def build_explainer(network: keras.Model) -> Callable[[np.ndarray], tuple[np.ndarray, dict[str, np.ndarray]]]:
    """A function of one grey image, uint8 (S, S), that gives its logits (15,) and the raw map (h, w) of each label."""
    explain = build_gradcam(network, FEATURES)

    def run(image: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        logits, maps = explain(image[None, ..., None])
        return logits[0], dict(zip(labels.LABELS, maps[0], strict=True))

    return run
