"""ImageNet files are stood in for by files of the same format with random numbers."""

import dataclasses
import hashlib

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group
from networks import randomise

from cxrkeras.errors import InputError
from cxrkeras.models import weights as weights_module
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.registry import NETWORKS, WeightsFile
from cxrkeras.models.weights import fetch_imagenet, load_weights

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
APPLICATIONS = {"resnet50": "ResNet50", "densenet121": "DenseNet121", "efficientnetb0": "EfficientNetB0"}


def imagenet_like(name, path):
    """Write a network of keras.applications as its ImageNet file is: legacy HDF5, without the head."""
    network = getattr(keras.applications, APPLICATIONS[name])(include_top=False, weights=None, input_shape=(64, 64, 3))
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([np.abs(w) * rng.uniform(0.8, 1.2, w.shape) + 0.01 for w in layer.get_weights()])
        if isinstance(layer, keras.layers.Normalization):  # the real file has the deviation where a variance belongs
            layer.set_weights([MEAN, STD, np.array(0)])
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, network)
    return network


@pytest.mark.parametrize(
    "name", ["efficientnetb0", *(pytest.param(n, marks=pytest.mark.slow) for n in ("resnet50", "densenet121"))]
)
def test_imagenet_files_give_the_function_of_keras_applications(name, tmp_path):
    reference = imagenet_like(name, tmp_path / "weights.h5")
    network = build_classifier(name, 64)
    load_weights(network, name, "imagenet", tmp_path / "weights.h5")
    grey = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 1)).astype(np.float32)
    colour = np.repeat(grey, 3, axis=-1)
    if name == "efficientnetb0":
        # (x / 255 - mean) / sqrt(std), as the file has it, and the Rescaling by 1 / sqrt(std) that only its own
        # ImageNet network has: together they are the usual scaling.
        for layer in reference.layers:
            if isinstance(layer, keras.layers.Normalization):
                layer.set_weights([MEAN, STD**2, np.array(0)])
                layer.finalize_state()
    elif name == "resnet50":
        colour = keras.applications.resnet50.preprocess_input(colour.copy())
    else:
        colour = keras.applications.densenet.preprocess_input(colour.copy())
    features = keras.Model(network.input, network.get_layer(NETWORKS[name].cam_layer).output)
    expected, got = reference(colour, training=False), features(grey, training=False)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def test_a_file_of_another_network_is_refused(tmp_path):
    imagenet_like("resnet50", tmp_path / "weights.h5")
    with pytest.raises(InputError, match=r"weights\.h5 does not fit efficientnetb0"):
        load_weights(build_classifier("efficientnetb0", 64), "efficientnetb0", "imagenet", tmp_path / "weights.h5")


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_own_files_are_taken_up(tmp_path, ending):
    images = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 1), np.uint8)
    first, second = build_classifier("resnet18", 32), build_classifier("resnet18", 32)
    randomise(first, images)
    path = tmp_path / f"mine{ending}"
    first.save(path) if ending == ".keras" else first.save_weights(path)
    load_weights(second, "resnet18", str(path))
    assert np.allclose(second.predict(images, verbose=0), first.predict(images, verbose=0), atol=1e-5)


def test_what_does_not_fit_is_refused_by_name(tmp_path):
    network = build_classifier("resnet18", 32)
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="other")
    other.save(tmp_path / "other.keras")
    other.save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "text.keras").write_text("no network")
    (tmp_path / "weights.bin").write_text("no network")
    for name, words in (
        ("other.keras", "holds the network other; wanted resnet18"),
        ("other.weights.h5", "does not fit resnet18"),
        ("text.keras", "does not fit resnet18"),
        ("weights.bin", "cannot tell"),
        ("nowhere.keras", "no weights"),
    ):
        with pytest.raises(InputError, match=words):
            load_weights(network, "resnet18", str(tmp_path / name))


def test_fetching_uses_the_cache_and_names_the_file_when_it_cannot(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    content = b"weights"
    source = WeightsFile("http://127.0.0.1:9/some/net_notop.h5", hashlib.md5(content).hexdigest())
    row = dataclasses.replace(NETWORKS["resnet50"], imagenet=source)
    monkeypatch.setitem(NETWORKS, "resnet50", row)
    with pytest.raises(InputError) as caught:
        fetch_imagenet("resnet50")
    for words in ("net_notop.h5", str(tmp_path / "models"), "WEIGHTS=none"):
        assert words in str(caught.value)
    (tmp_path / "models").mkdir(exist_ok=True)
    (tmp_path / "models" / "net_notop.h5").write_bytes(content)
    assert fetch_imagenet("resnet50").read_bytes() == content
    assert weights_module.find_network("resnet18").imagenet is None
