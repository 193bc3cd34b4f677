"""Makes public chest X-ray networks ours: the arrays of their files become weights of a network of the registry."""

import re
from collections.abc import Mapping
from pathlib import Path

import h5py
import keras
import numpy as np

from cxrkeras.errors import InputError
from cxrkeras.models.classifier import FEATURES, LOGITS, build_classifier
from cxrkeras.models.network_file import check_links
from cxrkeras.models.public_table import PublicNetwork
from cxrkeras.models.registry import Scaling, find_network
from cxrkeras.models.torch_file import read_torch_file
from cxrkeras.models.weights import load_state_dict

_PREFIX = re.compile(r"^((module|densenet121|model)\.)+")
_HEADS = ("classifier", "classifier.0", "fc")
_STEMS = ("features.conv0.weight", "conv1.weight")
_HDF5 = b"\x89HDF\r\n\x1a\n"
# The BatchNormalization of keras.applications' DenseNet adds 1.001e-5 to the variance, that of ours 1e-5
_MORE_VARIANCE = 1.001e-5 - 1e-5


def build_public_network(row: PublicNetwork, path: Path, name: str) -> tuple[keras.Model, list[str]]:
    """Build the network of a row with the weights in the file at `path`, and list what of the file is not used.

    The result takes grey levels and gives a logit for each trained output, as every network here. Raises InputError for
    a file that does not fit, or is refused.
    """
    with path.open("rb") as file:
        start = file.read(512)
    if start.lstrip()[:1] == b"<":
        raise InputError(
            f"{path} is a web page, not the weights of {name}: fetch the file from {row.page} with a browser, and name "
            "it with --file"
        )
    if start.startswith(_HDF5):
        return _load_keras_file(row, path), []
    arrays, left_out = read_torch_file(path)
    return fill_public_network(row, arrays, str(path)), left_out


def fill_public_network(row: PublicNetwork, arrays: Mapping[str, np.ndarray], source: str) -> keras.Model:
    """Build the network of a row with arrays that have the names and layouts of PyTorch. Raises InputError."""
    network = build_classifier(row.network, row.size, len(row.outputs))
    arrays = {_PREFIX.sub("", key): array for key, array in arrays.items()}
    arrays.pop("op_threshs", None)  # of torchxrayvision, in the row
    kernel, bias = _take_head(arrays, row, source)
    for key in _STEMS:
        if row.scaling and key in arrays:
            arrays[key] = spread_channels(arrays[key], row.scaling, find_network(row.network).scaling)
    load_state_dict(network, arrays, source=source)
    _set_head(network, row, kernel.T, bias, source)
    return network


def spread_channels(kernel: np.ndarray, scaling: tuple[float, float], wanted: Scaling) -> np.ndarray:
    """Spread a kernel of one channel, (O, 1, h, w), over three with another scaling, (O, 3, h, w), float32.

    On grey levels g the one channel is a g + b, the others are s_c g + o_c: with the weights v_c of least norm for
    which the sum of v_c s_c is a and that of v_c o_c is b, both convolutions are equal, also where images are padded.
    """
    if kernel.ndim != 4 or kernel.shape[1] != 1:
        raise InputError(f"the first kernel must have one channel; it has the shape {kernel.shape}")
    weights = np.linalg.lstsq(np.array(wanted), np.array(scaling), rcond=None)[0]
    return (kernel.astype(np.float64) * weights[None, :, None, None]).astype(np.float32)


def _take_head(arrays: Mapping[str, np.ndarray], row: PublicNetwork, source: str) -> tuple[np.ndarray, np.ndarray]:
    """Take kernel (outputs, features) and bias of the last layer."""
    for head in _HEADS:
        if f"{head}.weight" in arrays and f"{head}.bias" in arrays:
            return arrays[f"{head}.weight"], arrays[f"{head}.bias"]
    raise InputError(f"{source} does not fit {row.network}: it has none of {', '.join(f'{h}.weight' for h in _HEADS)}")


def _set_head(network: keras.Model, row: PublicNetwork, kernel: np.ndarray, bias: np.ndarray, source: str) -> None:
    """Set the logits of the trained outputs; kernel: (features, outputs)."""
    wanted = (network.get_layer(LOGITS).input.shape[-1], len(row.labels))
    if kernel.shape != wanted or bias.shape != wanted[1:]:
        raise InputError(
            f"{source} does not fit: its last layer has the shapes {kernel.shape} and {bias.shape}; expected {wanted} "
            f"and {wanted[1:]}, the {len(row.labels)} outputs of the network as published"
        )
    network.get_layer(LOGITS).set_weights([kernel[:, row.outputs], bias[row.outputs]])


def _load_keras_file(row: PublicNetwork, path: Path) -> keras.Model:
    """Build the network of a row with a `.h5` file of Keras 2 with all layers, in the order of the network."""
    try:
        with h5py.File(path) as file:
            check_links(file)
            file = file.get("model_weights", file)
            arrays = []
            for layer in file.attrs["layer_names"]:
                group = file[layer]
                arrays += [np.asarray(group[weight], np.float32) for weight in group.attrs["weight_names"]]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not a file of weights of Keras: {error}") from None
    *inner, kernel, bias = arrays if len(arrays) > 1 else (np.zeros(0), np.zeros(0), np.zeros(0))
    network = build_classifier(row.network, row.size, len(row.outputs))
    backbone = keras.Model(network.input, network.get_layer(FEATURES).output)
    if [array.shape for array in inner] != [tuple(variable.shape) for variable in backbone.weights]:
        raise InputError(f"{path} does not fit {row.network}: its layers have other shapes, or another order")
    backbone.set_weights(inner)
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_variance.assign(layer.moving_variance + _MORE_VARIANCE)
    _set_head(network, row, kernel, bias, str(path))
    return network
