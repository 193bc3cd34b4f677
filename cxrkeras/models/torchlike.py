"""Layers equivalent to those of PyTorch, so that its weights fit and give equal outputs."""

from keras import initializers, layers


def conv(x, filters: int, kernel: int, stride: int = 1, *, name: str):
    """Add a convolution without bias, padded by kernel // 2 on each side."""
    if stride > 1 and kernel > 1:  # padding="same" of Keras would pad on one side only
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


def norm(x, *, name: str, epsilon: float = 1e-5):
    return layers.BatchNormalization(momentum=0.9, epsilon=epsilon, name=name)(x)


def max_pool(x, *, name: str):
    """Add 3 x 3 max pooling with stride 2 of a non-negative x, padded by 1 on each side."""
    x = layers.ZeroPadding2D(1, name=f"{name}.pad")(x)
    return layers.MaxPooling2D(3, 2, name=name)(x)
