"""The whole network: grey levels in, 15 logits out."""

import keras
from keras import layers

from cxrkeras import labels
from cxrkeras.config import Head
from cxrkeras.errors import InputError
from cxrkeras.models.registry import find_network

FEATURES = "features"  # the last feature map, where Grad-CAM looks
LOGITS = "logits"


def build_classifier(name: str, size: int, *, head: Head | None = None, precision: str = "float32") -> keras.Model:
    """Build a network of the registry with random weights.

    Input float32 (N, size, size, 1), grey levels 0 to 255 (uint8 is cast exactly); output float32 (N, 15) logits.
    The network's input scaling is inside; the layer `features` gives the last feature map. One flat graph of layers
    that ship with Keras, so that a saved one loads anywhere. `precision` is a Keras dtype policy for the layers in
    between. Raises InputError for an unknown name or a size that is too small.
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
        features = layers.Activation("linear", name=FEATURES)(row.build(x))
        return keras.Model(image, _add_head(features, head or Head()), name=name)
    finally:
        keras.config.set_dtype_policy(before)


def _add_head(features, head: Head):
    """Pool the features and add the layers up to the logits, all in float32."""
    pooled = []
    if head.pooling in ("average", "both"):
        pooled.append(layers.GlobalAveragePooling2D(name="pool", dtype="float32")(features))
    if head.pooling in ("max", "both"):
        pooled.append(layers.GlobalMaxPooling2D(name="max_pool", dtype="float32")(features))
    x = layers.Concatenate(name="pools", dtype="float32")(pooled) if len(pooled) > 1 else pooled[0]
    if head.hidden:
        x = layers.Dense(head.hidden, name="hidden", dtype="float32")(x)
        x = layers.Activation(head.activation, name="hidden_activation", dtype="float32")(x)
    if head.dropout:
        x = layers.Dropout(head.dropout, name="dropout", dtype="float32")(x)
    return layers.Dense(len(labels.LABELS), name=LOGITS, dtype="float32")(x)
