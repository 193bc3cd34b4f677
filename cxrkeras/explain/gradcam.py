"""Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391) on TensorFlow's GradientTape."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from cxrkeras.labels import LabelSet
from cxrkeras.models.classifier import FEATURES


def build_gradcam(network: keras.Model, layer: str) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Compile Grad-CAM for the output of one convolutional layer of a flat network.

    Returns a function of images, float32 (N, S, S, 1), that returns logits (N, L) and raw maps (N, L, h, w), both
    float32 arrays: for label k the ReLU of the features, weighted by the spatial mean of d logit_k / d features. Maps
    are not normalised; an all-zero map means no evidence for the label.
    """
    inner = keras.Model(network.input, [network.get_layer(layer).output, network.output])
    num_labels = network.output_shape[-1]

    @tf.function(input_signature=[tf.TensorSpec([None, *network.input_shape[1:]], tf.float32)])
    def explain(images):
        with tf.GradientTape(persistent=True) as tape:
            features, logits = inner(images, training=False)
            logits_by_label = tf.unstack(tf.cast(logits, tf.float32), num=num_labels, axis=1)
        return logits, compute_maps(tape, logits_by_label, features)

    def run(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, maps = explain(tf.cast(images, tf.float32))
        return logits.numpy(), maps.numpy()

    return run


def compute_maps(tape: tf.GradientTape, logits: list[tf.Tensor], features: tf.Tensor) -> tf.Tensor:
    """Compute raw maps, float32 (N, L, h, w), from `logits`, a tensor (N,) per label, of `features` on `tape`."""
    maps = []
    for logit in logits:
        # A logit depends only on the features of its own image, so that one gradient serves the whole batch.
        gradients = tape.gradient(logit, features)
        weights = tf.reduce_mean(tf.cast(gradients, tf.float32), axis=(1, 2), keepdims=True)
        maps.append(tf.nn.relu(tf.reduce_sum(tf.cast(features, tf.float32) * weights, axis=-1)))
    return tf.stack(maps, axis=1)


def build_explainer(
    network: keras.Model, labels: LabelSet
) -> Callable[[np.ndarray], tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Build a function of a grey image, uint8 (S, S), that returns its logits (L,) and the raw map (h, w) per label."""
    explain = build_gradcam(network, FEATURES)

    def run(image: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        logits, maps = explain(image[None, ..., None])
        return logits[0], dict(zip(labels, maps[0], strict=True))

    return run
