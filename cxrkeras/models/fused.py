"""BatchNormalization as a single fused operation, which traces, starts and runs faster than that of Keras.

For training and inference only; saved networks have the layers of Keras.
"""

import keras
import tensorflow as tf


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization over the channels of images in one kernel, which XLA can compile.

    As in PyTorch, the moving variance averages the unbiased variance of the batches, n / (n - 1) times that of Keras.
    """

    def call(self, inputs, training=None, mask=None):
        is_training = bool(training and self.trainable)
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=tf.convert_to_tensor(self.gamma),
            offset=tf.convert_to_tensor(self.beta),
            mean=tf.zeros([0]) if is_training else tf.convert_to_tensor(self.moving_mean),
            variance=tf.zeros([0]) if is_training else tf.convert_to_tensor(self.moving_variance),
            epsilon=self.epsilon,
            is_training=is_training,
        )
        if is_training:
            for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
                moving.assign_add((batch - moving) * (1 - self.momentum))
        return outputs


def _can_fuse(layer: keras.layers.Layer) -> bool:
    return type(layer) is keras.layers.BatchNormalization and layer.scale and layer.center


def fuse_norms(network: keras.Model) -> keras.Model:
    """Return an equivalent copy of a network with fused BatchNormalization, or the network itself if it has none."""
    if not any(map(_can_fuse, network.layers)):
        return network

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        return (FusedBatchNormalization if _can_fuse(layer) else type(layer)).from_config(layer.get_config())

    copied = keras.models.clone_model(network, clone_function=copy)
    copied.set_weights(network.get_weights())
    return copied
