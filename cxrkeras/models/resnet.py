"""ResNet with basic blocks (He et al., CVPR 2016, arXiv 1512.03385), which keras.applications lacks.

Layer for layer torchvision's network with its names, so that its weights fit: symmetric padding, BatchNorm with
epsilon 1e-5.
"""

from keras import initializers, layers


def _conv(x, filters: int, kernel: int, stride: int, name: str):
    if stride > 1 and kernel > 1:  # Keras' "same" would pad on one side only
        x = layers.ZeroPadding2D(kernel // 2, name=f"{name}.pad")(x)
    return layers.Conv2D(
        filters,
        kernel,
        stride,
        padding="same" if stride == 1 else "valid",
        use_bias=False,
        kernel_initializer=initializers.VarianceScaling(2.0, "fan_out", "untruncated_normal"),
        name=name,
    )(x)


def _norm(x, name: str):
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)


def _basic_block(x, filters: int, stride: int, name: str):
    shortcut = x
    x = _norm(_conv(x, filters, 3, stride, f"{name}.conv1"), f"{name}.bn1")
    x = layers.ReLU(name=f"{name}.relu1")(x)
    x = _norm(_conv(x, filters, 3, 1, f"{name}.conv2"), f"{name}.bn2")
    if stride > 1 or shortcut.shape[-1] != filters:
        shortcut = _norm(_conv(shortcut, filters, 1, stride, f"{name}.downsample.0"), f"{name}.downsample.1")
    return layers.ReLU(name=f"{name}.relu2")(layers.Add(name=f"{name}.add")([x, shortcut]))


def build_resnet(x, blocks: tuple[int, int, int, int]):
    """Add a ResNet without its head to scaled images (N, S, S, 3); returns features (N, S/32, S/32, 512)."""
    x = _norm(_conv(x, 64, 7, 2, "conv1"), "bn1")
    x = layers.ReLU(name="relu")(x)
    x = layers.ZeroPadding2D(1, name="maxpool.pad")(x)  # zero is the least value after the ReLU
    x = layers.MaxPooling2D(3, 2, name="maxpool")(x)
    for stage, num_blocks in enumerate(blocks):
        for block in range(num_blocks):
            stride = 2 if stage and not block else 1
            x = _basic_block(x, 64 * 2**stage, stride, f"layer{stage + 1}.{block}")
    return x
