"""The complete network, from grey levels to one logit per label."""

from collections.abc import Callable

import keras
from keras import layers

from cxrkeras.config import Head
from cxrkeras.errors import InputError
from cxrkeras.models.registry import find_network

FEATURES = "features"  # the last feature map, which Grad-CAM uses
LOGITS = "logits"


def build_classifier(
    name: str, size: int, num_labels: int, *, head: Head | None = None, precision: str = "float32"
) -> keras.Model:
    """Build a network of the registry with random weights.

    Input: grey levels 0 to 255, float32 (N, size, size, 1) (uint8 is cast exactly); output: logits, float32
    (N, num_labels). The input scaling is part of the network, and the layer `features` outputs the last feature map.
    The graph is flat and consists of layers that ship with Keras, so that a saved network loads anywhere. `precision`
    is a Keras dtype policy for the layers in between. Raises InputError for an unknown name or too small a size.
    """
    row = find_network(name)
    if size < row.smallest:
        raise InputError(f"{name} needs images of at least {row.smallest} pixels; got {size}")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        image = keras.Input((size, size, 1), name="image", dtype="float32")
        scale, offset = row.scaling
        x = layers.Concatenate(name="channels", dtype="float32")([image] * 3)
        x = layers.Rescaling(list(scale), list(offset), name="scaling", dtype="float32")(x)
        features = layers.Activation("linear", name=FEATURES)(_build_body(name, row.build, x))
        network = keras.Model(image, add_head(features, num_labels, head or Head()), name=name)
    finally:
        keras.config.set_dtype_policy(before)
    _check_layers(network)
    return network


def _build_body(name: str, build: Callable, x: keras.KerasTensor) -> keras.KerasTensor:
    """Build the backbone. Raises InputError for a registered network that does not give a feature map."""
    try:
        features = build(x)
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"the network {name} cannot be built on images of shape {x.shape}: {error}") from error
    if not isinstance(features, keras.KerasTensor) or len(features.shape) != 4:
        raise InputError(
            f"the network {name} must return its last feature map, a Keras tensor (N, h, w, C); got "
            f"{features.shape if isinstance(features, keras.KerasTensor) else type(features).__name__}"
        )
    return features


def _check_layers(network: keras.Model) -> None:
    """Raise InputError for a layer that does not ship with Keras, without which a saved network could not be loaded."""
    for layer in network.layers:
        if not type(layer).__module__.startswith("keras.") or isinstance(layer, layers.Lambda):
            raise InputError(
                f"the network {network.name} has the layer {type(layer).__name__}: a network is made of layers that "
                "ship with Keras, other than Lambda, so that its file loads anywhere"
            )


def add_head(features, num_labels: int, head: Head):
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
    return layers.Dense(num_labels, name=LOGITS, dtype="float32")(x)
