"""Freezes and unfreezes the layers of a network."""

import keras

from cxrkeras.models.classifier import FEATURES


def count_halvings(network: keras.Model) -> dict[str, int]:
    """Count how often the image side is halved up to the output of each layer of a flat network (longest path)."""
    halvings, of_tensor = {}, {}
    for layer in network.layers:
        before = [of_tensor.get(id(tensor), 0) for tensor in keras.tree.flatten(layer.input)]
        stride = 1
        for inner in getattr(layer, "layers", [layer]):  # ConvNeXt has Sequential layers
            strides = getattr(inner, "strides", 1)
            stride *= strides if isinstance(strides, int) else strides[0]
        halvings[layer.name] = max(before, default=0) + stride.bit_length() - 1
        of_tensor |= {id(tensor): halvings[layer.name] for tensor in keras.tree.flatten(layer.output)}
    return halvings


def unfreeze(network: keras.Model, layers: str | int) -> None:
    """Make some layers trainable and freeze the rest.

    layers: `head`, `all`, or a number of blocks, counted from the last, in addition to the head. A block lies between
    two halvings of the feature map, so that the networks of the registry have five; the last block of a ResNet is
    torchvision's layer4. Frozen BatchNormalization uses its moving statistics and does not update them.
    """
    halvings = count_halvings(network)
    names = [layer.name for layer in network.layers]
    head = set(names[names.index(FEATURES) + 1 :])
    num_blocks = layers if isinstance(layers, int) else {"head": 0, "all": len(names)}[layers]
    first = halvings[FEATURES] - num_blocks
    for layer in network.layers:
        layer.trainable = layer.name in head or halvings[layer.name] > first
