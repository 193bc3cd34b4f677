"""What Keras does not promise to keep: a release that changes it fails here, by name."""

import keras
import numpy as np

from cxrkeras.models.keras_private import find_moments


def test_adam_keeps_its_moments_for_each_variable():
    adam = keras.optimizers.Adam(beta_1=0.9, beta_2=0.99)
    variables = [keras.Variable(np.zeros(size, np.float32)) for size in (2, 3)]
    adam.build(variables)
    adam.apply([keras.ops.ones(2), 2 * keras.ops.ones(3)])
    for variable, gradient in zip(variables, (1, 2), strict=True):
        first, second = find_moments(adam, variable)
        assert np.allclose(first, 0.1 * gradient)
        assert np.allclose(second, 0.01 * gradient**2)
        assert first.shape == second.shape == variable.shape
