import keras
import numpy as np
import pytest
import tensorflow as tf

from cxrkeras.models.fused import FusedBatchNormalization, fuse_norms
from cxrkeras.training.optimisers import FusedAdam

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_adam_equals_that_of_keras(is_compiled):
    start = [RNG.normal(size=shape).astype(np.float32) for shape in ((5, 3), (4,))]
    results = []
    for kind in (keras.optimizers.Adam, FusedAdam):
        variables = [tf.Variable(values) for values in start]
        optimiser = kind(0.01)
        optimiser.build(variables)

        @tf.function(jit_compile=is_compiled)
        def step(scale, optimiser=optimiser, variables=variables):
            optimiser.apply([scale * tf.sin(3 * tf.convert_to_tensor(v)) for v in variables], variables)

        for number in range(6):
            optimiser.learning_rate = 0.01 / (1 + number)
            step(tf.constant(1.0 + number))
        results.append([np.asarray(v) for v in (*variables, *optimiser.variables)])
    for expected, got in zip(*results, strict=True):
        assert np.allclose(got, expected, rtol=5e-5, atol=1e-7)  # 1 - 0.999 in float32
    assert np.abs(results[0][0] - start[0]).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("is_compiled", [False, True])
def test_batch_normalisation_equals_that_of_keras(dtype, is_compiled):
    images = RNG.normal(3, 2, (4, 5, 6, 3)).astype(np.float32)
    start = [RNG.uniform(0.5, 1.5, 3).astype(np.float32) for _ in range(4)]
    results = []
    for kind in (keras.layers.BatchNormalization, FusedBatchNormalization):
        layer = kind(momentum=0.9, epsilon=1e-3, dtype=dtype)
        layer.build(images.shape)
        layer.set_weights(start)
        unmoved = np.asarray(tf.cast(layer(images), tf.float32))

        @tf.function(jit_compile=is_compiled)
        def differentiate(x, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
                loss = tf.reduce_mean(tf.cast(y, tf.float32) ** 3)
            return y, tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])

        y, gradients = differentiate(tf.constant(images))
        results.append([np.asarray(tf.cast(tensor, tf.float32)) for tensor in (y, *gradients)])
        results[-1] += [unmoved, *layer.get_weights()]
    expected, got = results
    bias = 4 * 5 * 6 / (4 * 5 * 6 - 1)  # of the variance in Keras
    expected[-1] = 0.9 * start[3] + (expected[-1] - 0.9 * start[3]) * bias
    tolerance = {"float32": 1e-4, "mixed_float16": 4e-3, "mixed_bfloat16": 3e-2}[dtype]
    for place, (a, b) in enumerate(zip(expected, got, strict=True)):
        assert np.abs(a - b).max() <= tolerance * max(np.abs(a).max(), 1), place
    assert not np.allclose(got[-1], start[3])


def test_a_fused_network_computes_the_same_and_leaves_the_original_unchanged():
    image = keras.Input((8, 8, 1))
    x = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, name="conv")(image))
    network = keras.Model(image, keras.layers.Flatten()(x), name="small")
    network.set_weights([RNG.uniform(0.5, 1, w.shape) for w in network.get_weights()])
    fused = fuse_norms(network)
    assert isinstance(fused.get_layer("norm"), FusedBatchNormalization)
    assert not isinstance(network.get_layer("norm"), FusedBatchNormalization)
    images = RNG.normal(size=(3, 8, 8, 1)).astype(np.float32)
    assert np.allclose(fused(images), network(images), atol=1e-6)
    assert np.allclose(fused(images, training=True), network(images, training=True), atol=1e-4)
