import itertools

import keras
import numpy as np
import pytest

from cxrkeras.models.classifier import FEATURES, build_classifier
from cxrkeras.models.freezing import count_halvings, unfreeze

FAST = ["resnet18", "densenet121", "efficientnetb0", "googlenet", "efficientnetlite0", "mobilenetv3small"]


def trainable_layers(network, layers):
    unfreeze(network, layers)
    return {layer.name for layer in network.layers if layer.trainable_weights}


@pytest.mark.parametrize("name", FAST)
def test_every_network_has_five_blocks_and_a_head(name):
    network = build_classifier(name, 64, 15)
    assert count_halvings(network)[FEATURES] == 5
    everything = trainable_layers(network, "all")
    trainable = [trainable_layers(network, layers) for layers in ("head", 1, 2, 3, 4, 5)]
    assert trainable[0] == {"logits"}
    assert all(fewer < more for fewer, more in itertools.pairwise(trainable))
    assert trainable[-1] == everything


def test_the_last_block_of_a_resnet_is_layer4():
    network = build_classifier("resnet18", 64, 15)
    assert {name.split(".")[0] for name in trainable_layers(network, 1)} == {"layer4", "logits"}
    assert {name.split(".")[0] for name in trainable_layers(network, 2)} == {"layer3", "layer4", "logits"}


def test_frozen_norms_use_their_statistics_without_updating_them():
    network = build_classifier("resnet18", 32, 15)
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 1)).astype(np.float32)
    before = network.get_layer("layer1.0.bn1").get_weights()
    unfreeze(network, "head")
    assert np.allclose(network(images, training=True), network(images, training=False), atol=1e-5)
    assert all(map(np.array_equal, before, network.get_layer("layer1.0.bn1").get_weights()))
    unfreeze(network, "all")
    network(images, training=True)
    assert not all(map(np.array_equal, before, network.get_layer("layer1.0.bn1").get_weights()))
    assert isinstance(network.get_layer("layer1.0.bn1"), keras.layers.BatchNormalization)
