import subprocess
import sys

import keras
import numpy as np
import pytest

from cxrkeras.config import Head
from cxrkeras.errors import InputError
from cxrkeras.models.classifier import FEATURES, add_head, build_classifier
from cxrkeras.models.registry import NETWORKS, find_network
from cxrkeras.models.weights import set_prevalence_bias
from tests.support.networks import draw_images, draw_weights

FAST = ["resnet18", "googlenet", "efficientnetlite0", "mobilenetv3small"]
SLOW = [name for name in NETWORKS if name not in FAST]

# Trainable parameters with the ImageNet head of 1000 classes, as in torchvision and keras.applications.
TRAINABLE = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "densenet121": 7_978_856,
    "densenet161": 28_681_000,
    "densenet169": 14_149_480,
    "densenet201": 20_013_928,
    "googlenet": 6_624_904,
    "efficientnetlite0": 4_652_008,
    "efficientnetb0": 5_288_548,
    "efficientnetb7": 66_347_960,
}

LOAD_ELSEWHERE = """
import json, sys
import keras, numpy as np
for path in sys.argv[1:]:
    network = keras.models.load_model(path)
    images = np.load(path + ".images.npy")
    np.save(path + ".logits.npy", network.predict(images, verbose=0))
assert not [name for name in sys.modules if name.startswith("cxrkeras")]
"""


def check_networks(names, tmp_path):
    """Build, randomise, save and reload in a process without cxrkeras: logits are equal, also for uint8 images."""
    logits = {}
    for name in names:
        network = build_classifier(name, 64, 15)
        channels = network.get_layer(FEATURES).output.shape[-1]
        assert network.count_params() == NETWORKS[name].parameters + 15 * (channels + 1)
        if name in TRAINABLE:
            trainable = sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)
            assert trainable == TRAINABLE[name] - 985 * (channels + 1)
        nested = [layer for layer in network.layers if isinstance(layer, keras.Model)]
        # In keras.applications, each normalised convolution between the stages of ConvNeXt is a Sequential.
        assert all(isinstance(layer, keras.Sequential) and len(layer.layers) == 2 for layer in nested)
        assert len(nested) == (4 if name == "convnexttiny" else 0)
        assert all(type(layer).__module__.startswith("keras.") for layer in network.layers)
        assert all(layer.supports_jit for layer in network.layers)
        assert network.get_layer("pool").input is network.get_layer(FEATURES).output
        assert (network.input.dtype, network.output.dtype, network.output.shape) == ("float32", "float32", (None, 15))
        images = draw_images(6, 64)
        draw_weights(network, images)
        logits[name] = network.predict(images, verbose=0)
        assert logits[name].std() == pytest.approx(2, rel=1e-3)
        assert np.array_equal(network.predict(images.astype(np.float32), verbose=0), logits[name])
        network.save(tmp_path / f"{name}.keras")
        np.save(tmp_path / f"{name}.keras.images.npy", images)
    paths = [str(tmp_path / f"{name}.keras") for name in names]
    subprocess.run([sys.executable, "-c", LOAD_ELSEWHERE, *paths], check=True, cwd=tmp_path)
    for name in names:
        again = np.load(tmp_path / f"{name}.keras.logits.npy")
        assert np.abs(again - logits[name]).max() < 1e-4, name


def test_fast_networks_load_anywhere_with_equal_outputs(tmp_path):
    check_networks(FAST, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_slow_networks_load_anywhere_with_equal_outputs(tmp_path, name):
    check_networks([name], tmp_path)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in NETWORKS]
)
def test_mixed_precision_is_internal_and_close_to_float32(name, policy):
    keras.utils.set_random_seed(0)
    network = build_classifier(name, 64, 15, precision=policy)
    assert keras.config.dtype_policy().name == "float32"
    assert policy.removeprefix("mixed_") in {layer.compute_dtype for layer in network.layers}
    assert (network.input.dtype, network.output.dtype) == ("float32", "float32")
    assert {layer.compute_dtype for layer in map(network.get_layer, ("scaling", "pool", "logits"))} == {"float32"}
    images = draw_images(6, 64)
    exact = build_classifier(name, 64, 15)
    draw_weights(exact, images)
    network.set_weights(exact.get_weights())
    logits = np.asarray(exact(images, training=False))
    off = np.sqrt(np.mean((np.asarray(network(images, training=False)) - logits) ** 2))
    assert off < (0.02 if policy == "mixed_float16" else 0.05) * logits.std()


def test_unknown_names_suggest_similar_ones_and_small_images_are_refused():
    with pytest.raises(InputError, match="did you mean resnet18"):
        find_network("resnet-18")
    with pytest.raises(InputError, match="32 pixels"):
        build_classifier("resnet18", 16, 15)


@pytest.mark.parametrize("pooling", ["average", "max", "both"])
@pytest.mark.parametrize("activation", ["relu", "silu", "gelu", "leaky_relu", "tanh", "elu"])
def test_heads_compute_what_their_settings_say(pooling, activation):
    rng = np.random.default_rng(0)
    head = Head(pooling=pooling, hidden=7, activation=activation, dropout=0.5)
    features = keras.Input((3, 3, 5), name=FEATURES)
    model = keras.Model(features, add_head(features, 15, head))
    maps = rng.normal(size=(4, 3, 3, 5)).astype(np.float32)
    pools = {"average": [maps.mean((1, 2))], "max": [maps.max((1, 2))], "both": [maps.mean((1, 2)), maps.max((1, 2))]}
    pooled = np.concatenate(pools[pooling], -1)
    (inner, inner_bias), (outer, outer_bias) = (model.get_layer(name).get_weights() for name in ("hidden", "logits"))
    hidden = getattr(keras.activations, activation)(pooled @ inner + inner_bias)
    expected = np.asarray(hidden) @ outer + outer_bias
    assert np.allclose(model(maps, training=False), expected, atol=1e-5)
    assert not np.allclose(model(maps, training=True), expected, atol=1e-3)
    assert model.output.dtype == "float32"


def test_the_bias_can_be_initialised_to_the_prevalence():
    network = build_classifier("resnet18", 32, 15)
    positives = np.array([0, 30, 100] + [10] * 12)
    set_prevalence_bias(network, positives, 100)
    bias = network.get_layer("logits").get_weights()[1]
    assert np.isfinite(bias).all()
    assert np.allclose(1 / (1 + np.exp(-bias[1:2])), 30.5 / 101)
    assert bias[0] < bias[3] < bias[1] < bias[2]


def test_the_costs_in_the_registry_are_those_of_the_networks():
    """Multiplications and additions of the convolutions, side of the last feature map; parameters are tested above."""
    for name in ("resnet18", "googlenet", "mobilenetv3small"):
        network = build_classifier(name, 224, 15)
        products = 0
        for layer in network.layers:
            if isinstance(layer, keras.layers.DepthwiseConv2D):
                products += np.prod(layer.output.shape[1:]) * np.prod(layer.kernel.shape[:2])
            elif isinstance(layer, keras.layers.Conv2D):
                products += np.prod(layer.output.shape[1:]) * np.prod(layer.kernel.shape[:3])
        assert NETWORKS[name].gflops == pytest.approx(2e-9 * products, abs=6e-4)
        assert NETWORKS[name].cells == network.get_layer(FEATURES).output.shape[1]
