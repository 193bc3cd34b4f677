"""EfficientNet-Lite0: EfficientNet-B0 (Tan and Le, ICML 2019, arXiv 1905.11946) without squeeze-and-excitation.

Designed for mobile processors: the activation is ReLU6, and the first and last convolution have a fixed width. Layers
are named as in the package efficientnet-lite-pytorch, without leading underscores.
"""

from keras import layers

# Blocks, kernel, stride, expansion and channels of each stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, TOP = 32, 1280
DROP_CONNECT = 0.2  # stochastic depth: drop rate of the last block in training, proportionally less in earlier ones


def _norm(x, name: str):
    return layers.BatchNormalization(momentum=0.99, epsilon=1e-3, name=name)(x)


def _relu6(x, name: str):
    return layers.ReLU(6.0, name=name)(x)


def _conv(x, filters: int, kernel: int, stride: int, name: str):
    return layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=name
    )(x)


def _block(x, kernel: int, stride: int, expansion: int, filters: int, drop: float, name: str):
    shortcut = x
    if expansion > 1:
        x = _conv(x, expansion * x.shape[-1], 1, 1, f"{name}.expand_conv")
        x = _relu6(_norm(x, f"{name}.bn0"), f"{name}.relu0")
    x = layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, depthwise_initializer="he_normal", name=f"{name}.depthwise_conv"
    )(x)
    x = _relu6(_norm(x, f"{name}.bn1"), f"{name}.relu1")
    x = _norm(_conv(x, filters, 1, 1, f"{name}.project_conv"), f"{name}.bn2")
    if stride > 1 or shortcut.shape[-1] != filters:
        return x
    if drop:
        x = layers.Dropout(drop, noise_shape=(None, 1, 1, 1), name=f"{name}.drop")(x)
    return layers.Add(name=f"{name}.add")([x, shortcut])


def build_efficientnetlite(x):
    """Add EfficientNet-Lite0 without its head to scaled images (N, S, S, 3); return features (N, S/32, S/32, 1280)."""
    x = _relu6(_norm(_conv(x, STEM, 3, 2, "conv_stem"), "bn0"), "relu0")
    num_blocks = sum(stage[0] for stage in STAGES)
    number = 0
    for repeats, kernel, stride, expansion, filters in STAGES:
        for repeat in range(repeats):
            drop = DROP_CONNECT * number / num_blocks
            x = _block(x, kernel, 1 if repeat else stride, expansion, filters, drop, f"blocks.{number}")
            number += 1
    return _relu6(_norm(_conv(x, TOP, 1, 1, "conv_head"), "bn1"), "relu1")
