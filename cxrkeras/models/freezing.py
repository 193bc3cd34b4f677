"""Which part of a network learns."""

import keras

from cxrkeras.models.classifier import FEATURES


def count_halvings(network: keras.Model) -> dict[str, int]:
    """How often the image side was halved in the output of each layer of a flat network, along the longest way."""
    halvings = {}
    for layer in network.layers:
        inputs = keras.tree.flatten(layer.input)
        before = [halvings.get(tensor._keras_history.operation.name, 0) for tensor in inputs]
        stride = 1
        for part in getattr(layer, "layers", [layer]):  # ConvNeXt's are Sequential ones
            strides = getattr(part, "strides", 1)
            stride *= strides if isinstance(strides, int) else strides[0]
        halvings[layer.name] = max(before, default=0) + stride.bit_length() - 1
    return halvings


def unfreeze(network: keras.Model, layers: str | int) -> None:
    """Let a part learn: `head`, `all`, or the head and so many of the last blocks; the rest is frozen.

    A block is what lies between two halvings of the feature map, so that the networks of the registry have five of
    them; the last one of a ResNet is torchvision's layer4. Frozen BatchNormalization uses its statistics and keeps
    them.
    """
    halvings = count_halvings(network)
    names = [layer.name for layer in network.layers]
    head = set(names[names.index(FEATURES) + 1 :])
    learning = {"head": 0, "all": len(names)}.get(layers, layers)
    first = halvings[FEATURES] - learning
    for layer in network.layers:
        layer.trainable = layer.name in head or halvings[layer.name] > first
