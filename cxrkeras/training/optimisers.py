"""Optimisers; Adam with a fused update instead of dozens of small operations."""

import keras
import tensorflow as tf

from cxrkeras.config import Optimiser
from cxrkeras.models.keras_private import find_moments


class FusedAdam(keras.optimizers.Adam):
    """Adam (Kingma and Ba, ICLR 2015, arXiv 1412.6980) with one kernel per variable; equivalent to Keras' Adam.

    With weight decay it is AdamW (Loshchilov and Hutter, ICLR 2019, arXiv 1711.05101). Keras' update has some twenty
    operations per variable, which for a network of 213 variables take longer to trace than the network itself. XLA
    compiles the kernel too.
    """

    def update_step(self, gradient, variable, learning_rate):
        momentum, velocity = find_moments(self, variable)
        step = tf.cast(tf.convert_to_tensor(self.iterations) + 1, gradient.dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=(variable.value if isinstance(variable, keras.Variable) else variable).handle,
            m=momentum.value.handle,
            v=velocity.value.handle,
            beta1_power=tf.pow(tf.cast(self.beta_1, gradient.dtype), step),
            beta2_power=tf.pow(tf.cast(self.beta_2, gradient.dtype), step),
            lr=tf.cast(tf.convert_to_tensor(learning_rate), gradient.dtype),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def build_optimiser(optimiser: Optimiser, *, is_distributed: bool = False) -> keras.optimizers.Optimizer:
    """Build an optimiser; on several devices, which need it, Keras' own Adam."""
    options = {"learning_rate": optimiser.learning_rate, "global_clipnorm": optimiser.clip_norm or None}
    if optimiser.name == "sgd":
        return keras.optimizers.SGD(momentum=optimiser.momentum, nesterov=optimiser.nesterov, **options)
    if optimiser.name == "adamw":
        options["weight_decay"] = optimiser.weight_decay
    return (keras.optimizers.Adam if is_distributed else FusedAdam)(**options)
