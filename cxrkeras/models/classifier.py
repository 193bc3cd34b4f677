"""The whole network: grey levels in, 15 logits out."""

import keras
from keras import layers

from cxrkeras import labels
from cxrkeras.errors import InputError
from cxrkeras.models.registry import find_network


def build_classifier(name: str, size: int, *, precision: str = "float32") -> keras.Model:
    """Build a network of the registry with random weights.

    Input float32 (N, size, size, 1), grey levels 0 to 255 (uint8 is cast exactly); output float32 (N, 15) logits.
    The network's input scaling is inside. One flat graph of layers that ship with Keras, so that a saved one loads
    anywhere. `precision` is a Keras dtype policy for the layers in between.
    """
    row = find_network(name)
    if size < row.smallest:
        raise InputError(f"{name} takes images of {row.smallest} pixels and more; got {size}")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        image = keras.Input((size, size, 1), name="image", dtype="float32")
        scale, offset = row.scaling
        x = layers.Concatenate(name="channels", dtype="float32")([image] * 3)
        x = layers.Rescaling(list(scale), list(offset), name="scaling", dtype="float32")(x)
        features = row.build(x)
        pooled = layers.GlobalAveragePooling2D(name="pool", dtype="float32")(features)
        logits = layers.Dense(len(labels.LABELS), name="logits", dtype="float32")(pooled)
        return keras.Model(image, logits, name=name)
    finally:
        keras.config.set_dtype_policy(before)
