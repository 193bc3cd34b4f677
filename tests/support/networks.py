"""Random but lively networks: with fresh ones most comparisons hold of anything."""

import keras
import numpy as np


def draw_images(count: int, size: int, seed: int = 1) -> np.ndarray:
    """Smooth pictures of different brightness and contrast with some noise; uint8 (count, size, size, 1)."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 1, (count, 5, 5, 1)).astype(np.float32)
    smooth = np.asarray(keras.ops.image.resize(coarse, (size, size)))
    low, high = rng.uniform(0, 90, (count, 1, 1, 1)), rng.uniform(130, 240, (count, 1, 1, 1))
    return (low + (high - low) * smooth + rng.uniform(0, 15, smooth.shape)).astype(np.uint8)


def draw_weights(network: keras.Model, images: np.ndarray, seed: int = 0) -> None:
    """Draw kernels that keep activations moderate through any depth, BatchNorm statistics, logits of deviation 2."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        weights = layer.get_weights()
        if isinstance(layer, keras.layers.BatchNormalization):
            low, high = (0.7, -0.2, -0.2, 0.7), (1.3, 0.2, 0.2, 1.3)
            drawn = [rng.uniform(a, b, w.shape) for a, b, w in zip(low, high, weights, strict=True)]
            layer.set_weights(drawn)
        elif isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
            shape = weights[0].shape
            fan_in = np.prod(shape[:2] if isinstance(layer, keras.layers.DepthwiseConv2D) else shape[:3])
            layer.set_weights([rng.normal(0, np.sqrt(1.5 / fan_in), shape), *weights[1:]])
    pooled = keras.Model(network.input, network.get_layer("pool").output)(images, training=False)
    kernel = rng.normal(size=network.get_layer("logits").kernel.shape)
    kernel *= 2 / (keras.ops.convert_to_numpy(pooled) @ kernel).std()
    network.get_layer("logits").set_weights([kernel, np.zeros(kernel.shape[-1])])
