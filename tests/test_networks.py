import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from networks import randomise

from cxrkeras.errors import InputError
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.registry import NETWORKS, find_network

FAST = ["resnet18", "efficientnetb0"]
SLOW = [name for name in NETWORKS if name not in FAST]

# Trainable and other parameters with a head of 15, from the papers' layer tables.
PARAMETERS = {
    "resnet18": 11_176_512 + 9_600 + 513 * 15,
    "resnet50": 23_587_712 + 2_049 * 15,
    "densenet121": 7_037_504 + 1_025 * 15,
    "efficientnetb0": 4_049_571 + 1_281 * 15,
    "efficientnetb7": 64_097_687 + 2_561 * 15,
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
    """Build, randomise, save; reload in a process without cxrkeras; equal logits, also for uint8 images."""
    logits = {}
    for name in names:
        network = build_classifier(name, 64)
        assert network.count_params() == PARAMETERS[name]
        assert not any(isinstance(layer, keras.Model) for layer in network.layers)
        assert all(type(layer).__module__.startswith("keras.") for layer in network.layers)
        assert all(layer.supports_jit for layer in network.layers)
        assert network.get_layer("pool").input is network.get_layer(NETWORKS[name].cam_layer).output
        assert (network.input.dtype, network.output.dtype, network.output.shape) == ("float32", "float32", (None, 15))
        images = np.random.default_rng(1).integers(0, 256, (6, 64, 64, 1), np.uint8)
        randomise(network, images)
        logits[name] = network.predict(images, verbose=0)
        assert np.allclose(logits[name].std(0), 2, atol=0.1)
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
def test_mixed_precision_is_inside_only(policy):
    keras.utils.set_random_seed(0)
    network = build_classifier("resnet18", 32, precision=policy)
    assert keras.config.dtype_policy().name == "float32"
    assert network.get_layer("conv1").compute_dtype == policy.removeprefix("mixed_")
    assert (network.input.dtype, network.output.dtype) == ("float32", "float32")
    assert {layer.compute_dtype for layer in map(network.get_layer, ("scaling", "pool", "logits"))} == {"float32"}
    rng = np.random.default_rng(1)
    images = (rng.integers(0, 256, (6, 32, 32, 1)) * np.linspace(0.2, 1, 6).reshape(6, 1, 1, 1)).astype(np.uint8)
    exact = build_classifier("resnet18", 32)
    randomise(exact, images)
    network.set_weights(exact.get_weights())
    logits = exact.predict(images, verbose=0)
    off = np.sqrt(np.mean((network.predict(images, verbose=0) - logits) ** 2))
    assert off < (0.02 if policy == "mixed_float16" else 0.08) * logits.std()


def test_unknown_names_suggest_near_ones_and_small_images_are_refused():
    with pytest.raises(InputError, match="did you mean resnet18"):
        find_network("resnet-18")
    with pytest.raises(InputError, match="32 pixels"):
        build_classifier("resnet18", 16)


def test_resnet18_has_the_names_and_shapes_of_torchvision():
    """A sample of the state dict of torchvision's resnet18, kernels turned from OIHW to HWIO."""
    network = build_classifier("resnet18", 64)
    expected = {
        "conv1": (7, 7, 1 * 3, 64),
        "layer1.0.conv1": (3, 3, 64, 64),
        "layer2.0.conv1": (3, 3, 64, 128),
        "layer2.0.downsample.0": (1, 1, 64, 128),
        "layer4.1.conv2": (3, 3, 512, 512),
    }
    for name, shape in expected.items():
        assert network.get_layer(name).kernel.shape == shape
    assert json.dumps([layer.name for layer in network.layers if "downsample.0" in layer.name]) == json.dumps(
        ["layer2.0.downsample.0", "layer3.0.downsample.0", "layer4.0.downsample.0"]
    )
