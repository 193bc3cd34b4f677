"""The networks, a row each."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from cxrkeras.errors import InputError

# grey level g of a copied channel c -> scale[c] * g + offset[c], as the network's own ImageNet weights want it
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCH = tuple(1 / (255 * s) for s in _STD), tuple(-m / s for m, s in zip(_MEAN, _STD, strict=True))
CAFFE = (1.0, 1.0, 1.0), (-103.939, -116.779, -123.68)
# EfficientNet divides by 255 itself
EFFICIENTNET = tuple(255 * s for s in TORCH[0]), tuple(255 * o for o in TORCH[1])

_GOOGLE = "https://storage.googleapis.com/"


@dataclass(frozen=True)
class WeightsFile:
    """Where ImageNet weights without their head come from."""

    url: str
    md5: str

    @property
    def file(self) -> str:
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Network:
    """A row: `build` adds the backbone to scaled images (N, S, S, 3) and returns the features.

    `cam_layer` names the layer whose output they are; Grad-CAM looks there. `smallest` is the least image side.
    """

    build: Callable
    scaling: tuple[tuple[float, ...], tuple[float, ...]]
    cam_layer: str
    smallest: int = 32
    imagenet: WeightsFile | None = None


def _application(name: str) -> Callable:
    def build(x):
        import keras

        return getattr(keras.applications, name)(include_top=False, weights=None, input_tensor=x).output

    return build


def _resnet(*blocks: int) -> Callable:
    def build(x):
        from cxrkeras.models.resnet import build_resnet

        return build_resnet(x, blocks)

    return build


NETWORKS = {
    "resnet18": Network(_resnet(2, 2, 2, 2), TORCH, "layer4.1.relu2"),
    "resnet50": Network(
        _application("ResNet50"),
        CAFFE,
        "conv5_block3_out",
        imagenet=WeightsFile(
            _GOOGLE + "tensorflow/keras-applications/resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "4d473c1dd8becc155b73f8504c6f6626",
        ),
    ),
    "densenet121": Network(
        _application("DenseNet121"),
        TORCH,
        "relu",
        imagenet=WeightsFile(
            _GOOGLE + "tensorflow/keras-applications/densenet/densenet121_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "30ee3e1110167f948a6b9946edeeb738",
        ),
    ),
    "efficientnetb0": Network(
        _application("EfficientNetB0"),
        EFFICIENTNET,
        "top_activation",
        imagenet=WeightsFile(
            _GOOGLE + "keras-applications/efficientnetb0_notop.h5", "50bc09e76180e00e4465e1a485ddc09d"
        ),
    ),
    "efficientnetb7": Network(
        _application("EfficientNetB7"),
        EFFICIENTNET,
        "top_activation",
        imagenet=WeightsFile(
            _GOOGLE + "keras-applications/efficientnetb7_notop.h5", "cbcfe4450ddf6f3ad90b1b398090fe4a"
        ),
    ),
}


def find_network(name: str) -> Network:
    """The row of a network; InputError with the nearest names for one that is not there."""
    if name not in NETWORKS:
        near = difflib.get_close_matches(name, NETWORKS, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"unknown network {name!r}; {hint}the networks are {', '.join(NETWORKS)}")
    return NETWORKS[name]
