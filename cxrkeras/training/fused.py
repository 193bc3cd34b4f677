"""Training steps of fewer, larger operations: quicker to trace, to start and to run than Keras' own.

Keras composes Adam and BatchNormalization of dozens of small operations a variable or layer. TensorFlow has single
kernels for both, which XLA compiles too. Nothing of this is in a saved network.
"""

import keras
import tensorflow as tf


class FusedAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba, ICLR 2015, arXiv 1412.6980), one kernel a variable; equal to Keras' own."""

    def update_step(self, gradient, variable, learning_rate):
        index = self._get_variable_index(variable)
        step = tf.cast(tf.convert_to_tensor(self.iterations) + 1, gradient.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=(variable.value if isinstance(variable, keras.Variable) else variable).handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, gradient.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, gradient.dtype), step),
            lr=tf.cast(tf.convert_to_tensor(learning_rate), gradient.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization over the channels of images, one kernel in training; else Keras' own.

    As in PyTorch the moving variance collects the unbiased variance of a batch, n / (n - 1) of Keras'.
    """

    def call(self, inputs, training=None, mask=None):
        if not (training and self.trainable):
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta), epsilon=self.epsilon
        )
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign_add((batch - moving) * (1 - self.momentum))
        return outputs


def fuse_norms(network: keras.Model) -> keras.Model:
    """A copy of a network that computes the same, its BatchNormalization of images fused."""

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        is_plain = type(layer) is keras.layers.BatchNormalization and layer.scale and layer.center
        return (FusedBatchNormalization if is_plain else type(layer)).from_config(layer.get_config())

    copied = keras.models.clone_model(network, clone_function=copy)
    copied.set_weights(network.get_weights())
    return copied
