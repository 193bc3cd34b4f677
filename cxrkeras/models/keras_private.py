"""The only private names of Keras in use, which a minor release may change: checked with Keras 3.15."""

import keras


def find_moments(adam: keras.optimizers.Adam, variable: object) -> tuple[keras.Variable, keras.Variable]:
    """The first and second moment that a built Adam keeps for a variable, in the variable's shape."""
    index = adam._get_variable_index(variable)
    return adam._momentums[index], adam._velocities[index]
