"""Random but lively networks: with fresh ones most comparisons hold of anything."""

import keras
import numpy as np


def randomise(network: keras.Model, images: np.ndarray, seed: int = 0) -> None:
    """Randomise BatchNorm statistics, and scale the head to logits of mean 0 and deviation 2 on the images."""
    rng = np.random.default_rng(seed)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            layer.set_weights(
                [
                    rng.uniform(0.7, 1.3, gamma.shape),
                    rng.normal(0, 0.2, beta.shape),
                    mean + rng.normal(0, 0.2, mean.shape),
                    variance * rng.uniform(0.7, 1.3, variance.shape),
                ]
            )
    pooled = keras.Model(network.input, network.get_layer("pool").output)(images, training=False)
    pooled = keras.ops.convert_to_numpy(pooled).astype(np.float64)
    head = network.get_layer("logits")
    kernel = rng.normal(size=head.kernel.shape)
    logits = pooled @ kernel
    # The spread over images of each label becomes 2, so that neither scale nor offset hides a difference.
    kernel *= 2 / logits.std(0)
    head.set_weights([kernel, -(pooled @ kernel).mean(0)])
