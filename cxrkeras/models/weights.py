"""Start weights: ImageNet's, a file's, or none. Loading is strict: never a silent start from random ones."""

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import keras
import numpy as np

from cxrkeras import labels
from cxrkeras.config import CONFIG
from cxrkeras.errors import InputError
from cxrkeras.files import load_json
from cxrkeras.models.classifier import FEATURES, LOGITS

# What a state dict holds beside the backbone: heads, also auxiliary ones, and PyTorch's count of batches.
_NOT_BACKBONE = re.compile(r"^(fc|classifier|aux1|aux2)\.|\.num_batches_tracked$")
_NORM_ARRAYS = ("weight", "bias", "running_mean", "running_var")


def load_weights(network: keras.Model, weights: str, imagenet_file: Path | None = None) -> None:
    """Set the weights a training starts from.

    `weights`: `none` keeps the random ones; `imagenet` loads `imagenet_file`, a `.h5` of keras.applications or a
    `.safetensors`, into the backbone; else the path of a `.keras` network of the same name and head, of a
    `.weights.h5` of such a one, or of a state dict of torchvision's network as `.safetensors`, whose head is left
    out. InputError names what does not fit.
    """
    if weights == "none":
        return
    path = imagenet_file if weights == "imagenet" else Path(weights)
    if not path.is_file():
        raise InputError(f"no weights {weights!r}: give imagenet, none, or a .keras, .weights.h5 or .safetensors file")
    try:
        if path.suffix == ".safetensors":
            load_state_dict(network, read_state_dict(path), source=str(path))
        elif path.suffix == ".keras":
            _copy_weights(path, network)
        elif path.name.endswith(".weights.h5"):
            _load_weights_file(network, path)
        elif weights == "imagenet":
            _load_keras_file(network, path)
        else:
            raise InputError(f"cannot tell what {path} is: give a .keras, .weights.h5 or .safetensors file")
    except InputError:
        raise
    except Exception as error:  # h5py, zipfile, safetensors and Keras each have their own
        raise InputError(f"{path} does not fit {network.name}: {str(error).splitlines()[0]}") from None


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Arrays of a `.safetensors` file by name. Raises InputError if it is damaged."""
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:
        raise InputError(f"{path} is no safetensors file, or was cut short ({error}): bring it anew") from None


def load_state_dict(network: keras.Model, arrays: Mapping[str, np.ndarray], *, source: str) -> None:
    """Set the backbone's weights from arrays with PyTorch's names and layouts; heads among them are left out.

    Kernels are turned from OIHW to HWIO, depthwise ones to HWC1. Every layer must find its arrays and every array
    its layer: InputError names the first that is missing, left over or of a wrong shape.
    """
    arrays = {modern_key(key): array for key, array in arrays.items()}
    arrays = {key: array for key, array in arrays.items() if not _NOT_BACKBONE.search(key)}
    wanted = _backbone(network).layers
    taken = []
    for layer in wanted:
        if not layer.weights:
            continue
        names = _NORM_ARRAYS if isinstance(layer, keras.layers.BatchNormalization) else ("weight",)
        keys = [f"{layer.name}.{name}" for name in names]
        if missing := [key for key in keys if key not in arrays]:
            raise InputError(f"{source} does not fit {network.name}: it has no {missing[0]}")
        turned = [_turn(arrays[key], layer) for key in keys]
        for key, array, variable in zip(keys, turned, layer.weights, strict=True):
            if array.shape != variable.shape:
                raise InputError(
                    f"{source} does not fit {network.name}: {key} has the shape {arrays[key].shape}, and "
                    f"{tuple(variable.shape)} is wanted in the order of Keras"
                )
        taken += keys
        layer.set_weights(turned)
    if left := sorted(set(arrays) - set(taken)):
        raise InputError(f"{source} does not fit {network.name}, which has no place for {left[0]} (of {len(left)})")


def modern_key(key: str) -> str:
    """torchvision's first DenseNet files say `norm.1` for `norm1`; EfficientNet-Lite's has leading underscores."""
    return re.sub(r"(^|\.)_", r"\1", re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key))


def _turn(array: np.ndarray, layer: keras.layers.Layer) -> np.ndarray:
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _backbone(network: keras.Model) -> keras.Model:
    return keras.Model(network.input, network.get_layer(FEATURES).output)


def _load_weights_file(network: keras.Model, path: Path) -> None:
    """Keras finds its place by the order of layers alone, and leaves out what is too much."""
    held = []
    with h5py.File(path) as file:
        file.visititems(lambda name, node: held.append(node.shape) if isinstance(node, h5py.Dataset) else None)
    wanted = [tuple(variable.shape) for variable in network.weights]
    if sorted(held) != sorted(wanted):
        raise InputError(
            f"{path} does not fit {network.name}: it holds {len(held)} arrays of {_count(held):,} numbers; wanted are "
            f"{len(wanted)} of {_count(wanted):,}"
        )
    network.load_weights(path)


def _count(shapes: list[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _copy_weights(path: Path, network: keras.Model) -> None:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is no .keras file, or was cut short, and does not fit {network.name}")
    other = keras.models.load_model(path, compile=False)
    if other.name != network.name:
        raise InputError(f"{path} holds the network {other.name}; wanted {network.name}")
    trained_on = labels.LABELS
    if path.with_name(CONFIG).is_file():
        trained_on = tuple(load_json(path.with_name(CONFIG), ("labels",))["labels"])
    if trained_on != labels.LABELS or other.output_shape[-1] != len(labels.LABELS):
        raise InputError(
            f"{path} was trained for other labels, {', '.join(trained_on)} ({other.output_shape[-1]} outputs); "
            f"wanted {', '.join(labels.LABELS)}"
        )
    has, wanted = _describe_head(other), _describe_head(network)
    if has != wanted:
        raise InputError(f"{path} has the head {has}; wanted {wanted}: give its model.head settings, or other weights")
    network.set_weights(other.get_weights())


def _describe_head(network: keras.Model) -> str:
    """The layers after the features, with their units and activation; dropout has no weights and does not count."""
    names = [layer.name for layer in network.layers]
    parts = []
    for layer in network.layers[names.index(FEATURES) + 1 if FEATURES in names else 0 :]:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Activation):
            parts.append(config["activation"])
        elif isinstance(layer, keras.layers.Dense):
            parts.append(f"{layer.name} {config['units']}")
        elif not isinstance(layer, keras.layers.Dropout):
            parts.append(layer.name)
    return ", ".join(parts)


def _load_keras_file(network: keras.Model, path: Path) -> None:
    backbone = _backbone(network)
    backbone.load_weights(path)
    # EfficientNet's file also fills a Normalization layer, by the square root of what is needed. Our own scaling
    # stands before it, so that it must do nothing, whatever the weights came from.
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Normalization):
            mean, variance, count = layer.get_weights()
            layer.set_weights([np.zeros_like(mean), np.ones_like(variance), count])
            layer.finalize_state()


def set_prevalence_bias(network: keras.Model, positives: np.ndarray, num_images: int) -> None:
    """Start each logit at the logit of its label's prevalence; `positives` counts images, (15,).

    Half an image is added on both sides, so that a label that none or all have stays finite.
    """
    kernel, _ = network.get_layer(LOGITS).get_weights()
    network.get_layer(LOGITS).set_weights([kernel, np.log((positives + 0.5) / (num_images - positives + 0.5))])
