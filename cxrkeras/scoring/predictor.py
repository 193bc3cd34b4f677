"""A network at work on the images of records."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from cxrkeras.models.fused import fuse_norms
from cxrkeras.scoring.predictions import Predictions


def build_predictor(network: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """Compile a network, as it is now, for inference on batches of any number of images, uint8 (N, S, S, 1).

    Its weights become constants of the graph, which saves a tenth to a quarter of the time on a CPU.
    """
    network = fuse_norms(network)
    trainable = [variable.numpy() for variable in network.trainable_variables]
    others = [variable.numpy() for variable in network.non_trainable_variables]

    def forward(images):
        constants = [[tf.constant(array) for array in arrays] for arrays in (trainable, others)]
        return network.stateless_call(*constants, tf.cast(images, tf.float32), training=False)[0]

    return tf.function(forward, input_signature=_signature(network))


def build_live_predictor(network: keras.Model) -> Callable[[tf.Tensor], tf.Tensor]:
    """The same of a network in training: each call computes with the weights it has then."""
    return tf.function(
        lambda images: network(tf.cast(images, tf.float32), training=False), input_signature=_signature(network)
    )


def _signature(network: keras.Model) -> list[tf.TensorSpec]:
    return [tf.TensorSpec([None, *network.input_shape[1:]], tf.uint8)]


def predict_batches(
    predictor: Callable, batches: tf.data.Dataset, progress: Callable[[int], None] = lambda count: None
) -> Predictions:
    """Run evaluation batches of records through a predictor; `progress` is called with 1 after each."""
    image_ids, patient_ids, truth, logits = [], [], [], []
    for images, hot, of_image, of_patient in batches:
        logits.append(predictor(images).numpy())
        truth.append(hot.numpy())
        image_ids += [name.decode() for name in of_image.numpy()]
        patient_ids += [name.decode() for name in of_patient.numpy()]
        progress(1)
    return Predictions(np.array(image_ids), np.array(patient_ids), np.concatenate(truth), np.concatenate(logits))
