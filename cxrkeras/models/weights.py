"""Start weights: ImageNet's, a file's, or none. Never a silent start from random ones."""

import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from cxrkeras.data.download import download_file
from cxrkeras.errors import InputError
from cxrkeras.models.registry import Network, find_network


def fetch_imagenet(name: str, progress: Callable[[int, int], None] = lambda done, total: None) -> Path:
    """Path of a network's ImageNet file in Keras' cache, downloaded if it is not there yet.

    Raises InputError where the registry has none, and, within seconds, where it cannot be fetched.
    """
    source = find_network(name).imagenet
    if source is None:
        raise InputError(
            f"there are no ImageNet weights for {name}: start it with WEIGHTS=none or from a file of your own"
        )
    path = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models" / source.file
    try:
        return download_file(source.url, path, md5=source.md5, progress=progress)
    except InputError as error:
        raise InputError(
            f"no ImageNet weights for {name}: {error} Put the file {source.file} at {path}, "
            "or train with WEIGHTS=none or WEIGHTS=<.keras file of a run>"
        ) from None


def load_weights(network: keras.Model, name: str, weights: str, imagenet_file: Path | None = None) -> None:
    """Set the weights a training starts from.

    `weights`: `none` keeps the random ones; `imagenet` loads `imagenet_file` into the backbone; else the path of a
    `.keras` network of the same name, or of a `.weights.h5`. Loading is strict: InputError names what does not fit.
    """
    if weights == "none":
        return
    row = find_network(name)
    if weights == "imagenet":
        _load_backbone(network, row, imagenet_file)
        return
    path = Path(weights)
    if not path.is_file():
        raise InputError(f"no weights {weights!r}: give imagenet, none, or a .keras or .weights.h5 file")
    try:
        if path.suffix == ".keras":
            other = keras.models.load_model(path, compile=False)
            if other.name != name:
                raise InputError(f"{path} holds the network {other.name}; wanted {name}")
            network.set_weights(other.get_weights())
        elif path.name.endswith(".weights.h5"):
            network.load_weights(path)
        else:
            raise InputError(f"cannot tell what {path} is: give a .keras or .weights.h5 file")
    except InputError:
        raise
    except Exception as error:  # h5py, zipfile and Keras each have their own
        raise InputError(f"{path} does not fit {name}: {str(error).splitlines()[0]}") from None


def _load_backbone(network: keras.Model, row: Network, path: Path) -> None:
    backbone = keras.Model(network.input, network.get_layer(row.cam_layer).output)
    try:
        backbone.load_weights(path)
    except Exception as error:
        raise InputError(f"{path} does not fit {network.name}: {str(error).splitlines()[0]}") from None
    # EfficientNet's file also fills a Normalization layer, by the square root of what is needed. Our own scaling
    # stands before it, so that it must do nothing, whatever the weights came from.
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Normalization):
            mean, variance, count = layer.get_weights()
            layer.set_weights([np.zeros_like(mean), np.ones_like(variance), count])
            layer.finalize_state()
