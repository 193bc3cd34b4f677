"""A moving average of a network's variables."""

import keras
import tensorflow as tf


class Average:
    """Exponential moving average of each variable: average <- decay * average + (1 - decay) * variable.

    As in TensorFlow's ExponentialMovingAverage, the decay of the n-th update is at most (1 + n) / (10 + n), so that
    the initial values fade quickly. Statistics of BatchNormalization are averaged like weights.
    """

    def __init__(self, network: keras.Model, decay: float):
        self.updates = keras.Variable(0.0, trainable=False, name="updates")
        self.averages = [keras.Variable(weight, trainable=False, dtype=weight.dtype) for weight in network.weights]
        self.variables = [self.updates, *self.averages]

        @tf.function
        def update():
            self.updates.assign_add(1.0)
            share = 1 - tf.minimum(decay, (1 + self.updates) / (10 + self.updates))
            for average, weight in zip(self.averages, network.weights, strict=True):
                if average.dtype.startswith("float"):
                    average.assign_add(share * (weight - average))
                else:
                    average.assign(weight)

        self.update = update

    def get_weights(self) -> list:
        """Return arrays in the order of the network's `get_weights`."""
        return [average.numpy() for average in self.averages]
