"""Initial weights: ImageNet, a file or random. Loading is strict: no weight is silently left at random."""

import math
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path

import h5py
import keras
import numpy as np

from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet, spelling_key
from cxrkeras.models.classifier import FEATURES, LOGITS
from cxrkeras.models.network_file import read_label_names

# Arrays of a state dict outside the backbone: heads, including auxiliary ones, and the batch counters of PyTorch.
_NOT_BACKBONE = re.compile(r"^(fc|classifier|aux1|aux2)\.|\.num_batches_tracked$")
_NORM_ARRAYS = ("weight", "bias", "running_mean", "running_var")


def load_weights(
    network: keras.Model, weights: str, imagenet_file: Path | None = None, labels: LabelSet | None = None
) -> str:
    """Set the initial weights of a training.

    weights: `none` keeps the random weights; `imagenet` loads `imagenet_file`, a `.h5` of keras.applications or a
    `.safetensors`, into the backbone; otherwise the path of a `.keras` network of the same name and head, of the
    `.weights.h5` of such a network, or of a torchvision state dict as `.safetensors`, whose head is ignored. From a
    `.keras` network with other labels, the logits of those `labels` that both have are loaded. Returns a sentence about
    differences from the file, empty if there are none. Raises InputError that names what does not fit.
    """
    if weights == "none":
        return ""
    path = imagenet_file if weights == "imagenet" else Path(weights)
    if path is None or not path.is_file():
        raise InputError(
            f"no weights {weights!r}: choose imagenet, none, or a .keras, .weights.h5 or .safetensors file"
        )
    try:
        if path.suffix == ".safetensors":
            load_state_dict(network, read_state_dict(path), source=str(path))
        elif path.suffix == ".keras":
            return _copy_weights(path, network, labels)
        elif path.name.endswith(".weights.h5"):
            _load_weights_file(network, path)
        elif weights == "imagenet":
            _load_keras_file(network, path)
        else:
            raise InputError(f"cannot tell the format of {path}: choose a .keras, .weights.h5 or .safetensors file")
    except InputError:
        raise
    except Exception as error:  # h5py, zipfile, safetensors and Keras raise different ones
        raise InputError(f"{path} does not fit {network.name}: {str(error).splitlines()[0]}") from None
    return ""


def read_state_dict(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a `.safetensors` file by name. Raises InputError if it is damaged."""
    import safetensors.numpy

    try:
        return safetensors.numpy.load_file(path)
    except Exception as error:
        raise InputError(f"{path} is not a safetensors file, or is truncated ({error}): restore it") from None


def load_state_dict(network: keras.Model, arrays: Mapping[str, np.ndarray], *, source: str) -> None:
    """Set the backbone's weights from arrays with the names and layouts of PyTorch; heads are ignored.

    Kernels are transposed from OIHW to HWIO, depthwise kernels to HWC1. Layers and arrays must match one to one: raises
    InputError for the first array that is missing, left over or of the wrong shape.
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
        transposed = [_transpose(arrays[key], layer) for key in keys]
        for key, array, variable in zip(keys, transposed, layer.weights, strict=True):
            if array.shape != variable.shape:
                raise InputError(
                    f"{source} does not fit {network.name}: {key} has the shape {arrays[key].shape}; "
                    f"expected {tuple(variable.shape)} in the order of Keras"
                )
        taken += keys
        layer.set_weights(transposed)
    if left := sorted(set(arrays) - set(taken)):
        raise InputError(f"{source} does not fit {network.name}, which has no place for {left[0]} (of {len(left)})")


def modern_key(key: str) -> str:
    """Normalise a key: early DenseNet files of torchvision have `norm.1` for `norm1`, EfficientNet-Lite underscores."""
    return re.sub(r"(^|\.)_", r"\1", re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key))


def _transpose(array: np.ndarray, layer: keras.layers.Layer) -> np.ndarray:
    if isinstance(layer, keras.layers.DepthwiseConv2D):
        return array.transpose(2, 3, 0, 1)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def _backbone(network: keras.Model) -> keras.Model:
    return keras.Model(network.input, network.get_layer(FEATURES).output)


def _load_weights_file(network: keras.Model, path: Path) -> None:
    """Load weights after comparing shapes, as Keras matches layers by their order alone and ignores extra arrays."""
    shapes = []
    with h5py.File(path) as file:
        file.visititems(lambda name, node: shapes.append(node.shape) if isinstance(node, h5py.Dataset) else None)
    expected = [tuple(variable.shape) for variable in network.weights]
    if sorted(shapes) != sorted(expected):
        raise InputError(
            f"{path} does not fit {network.name}: it holds {len(shapes)} arrays of {_count_numbers(shapes):,} numbers; "
            f"expected {len(expected)} of {_count_numbers(expected):,}"
        )
    network.load_weights(path)


def _count_numbers(shapes: list[tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in shapes)


def _copy_weights(path: Path, network: keras.Model, labels: LabelSet | None) -> str:
    if not zipfile.is_zipfile(path):
        raise InputError(f"{path} is not a .keras file, or is truncated, and does not fit {network.name}")
    other = keras.models.load_model(path, compile=False)
    if other.name != network.name:
        raise InputError(f"{path} holds the network {other.name}; expected {network.name}")
    found, expected = _describe_head(other), _describe_head(network)
    if found != expected:
        raise InputError(
            f"{path} has the head {found}; expected {expected}: set model.head accordingly, or choose other weights"
        )
    num_outputs, given = other.output_shape[-1], read_label_names(path)
    if given is not None and len(given) != num_outputs:
        raise InputError(f"{path} is damaged: it names {len(given)} labels and has {num_outputs} outputs")
    if given is None or labels is None:
        if num_outputs != network.output_shape[-1]:
            raise InputError(
                f"{path} was trained for other labels ({num_outputs} outputs), which it does not name; expected "
                f"{network.output_shape[-1]}"
            )
        network.set_weights(other.get_weights())
        if labels is None:
            return ""
        return f"{path} does not name its outputs: they are assumed to be {labels.describe()}"
    *inner, kernel, bias = other.get_weights()
    start = network.get_layer(LOGITS).get_weights()
    places = {spelling_key(name): k for k, name in enumerate(given)}
    shared = [(k, places[spelling_key(name)]) for k, name in enumerate(labels) if spelling_key(name) in places]
    for ours, theirs in shared:
        start[0][:, ours], start[1][ours] = kernel[:, theirs], bias[theirs]
    network.set_weights([*inner, *start])
    if len(shared) == len(labels):
        return "" if len(given) == len(labels) else f"{len(labels)} of the {len(given)} outputs of {path} are loaded"
    new = [name for name in labels if spelling_key(name) not in places]
    return f"{path} was trained for other labels: the outputs for {', '.join(new)} start at random"


def _describe_head(network: keras.Model) -> str:
    """List the layers after the features with their units and activation; dropout, without weights, is left out."""
    names = [layer.name for layer in network.layers]
    described = []
    for layer in network.layers[names.index(FEATURES) + 1 if FEATURES in names else 0 :]:
        config = layer.get_config()
        if isinstance(layer, keras.layers.Activation):
            described.append(config["activation"])
        elif isinstance(layer, keras.layers.Dense):
            described.append(layer.name if layer.name == LOGITS else f"{layer.name} {config['units']}")
        elif not isinstance(layer, keras.layers.Dropout):
            described.append(layer.name)
    return ", ".join(described)


def _load_keras_file(network: keras.Model, path: Path) -> None:
    backbone = _backbone(network)
    backbone.load_weights(path)
    # The file of EfficientNet also sets a Normalization layer, to the square root of the required variance. The scaling
    # of the classifier comes before it, so that it must be the identity, whatever the source of the weights.
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Normalization):
            mean, variance, count = layer.get_weights()
            layer.set_weights([np.zeros_like(mean), np.ones_like(variance), count])
            layer.finalize_state()


def set_prevalence_bias(network: keras.Model, positives: np.ndarray, known: np.ndarray) -> None:
    """Initialise the bias of each logit to the logit of its label's prevalence.

    positives, known: the numbers of images in which the label is present and known, (L,). Half an image is added to
    positives and negatives each, so that the bias of a label of no or all images is finite.
    """
    kernel, _ = network.get_layer(LOGITS).get_weights()
    network.get_layer(LOGITS).set_weights([kernel, np.log((positives + 0.5) / (known - positives + 0.5))])
