"""DenseNet-BC (Huang et al., CVPR 2017, arXiv 1608.06993), matching torchvision layer by layer."""

from keras import layers

from cxrkeras.models.torchlike import conv, max_pool, norm

WIDENING = 4  # channels of the 1 x 1 convolution before each 3 x 3, in units of the growth


def _norm_relu(x, name: str, relu: str):
    return layers.ReLU(name=relu)(norm(x, name=name))


def build_densenet(x, blocks: tuple[int, int, int, int], growth: int, stem: int):
    """Add a DenseNet without its head to scaled images (N, S, S, 3); return features (N, S/32, S/32, channels).

    `blocks` counts the layers of the four dense blocks, each of which adds `growth` channels to the `stem` channels of
    the first convolution; between blocks the channels are halved.
    """
    x = _norm_relu(conv(x, stem, 7, 2, name="features.conv0"), "features.norm0", "features.relu0")
    x = max_pool(x, name="features.pool0")
    for block, num_layers in enumerate(blocks, 1):
        for layer in range(1, num_layers + 1):
            name = f"features.denseblock{block}.denselayer{layer}"
            y = conv(_norm_relu(x, f"{name}.norm1", f"{name}.relu1"), WIDENING * growth, 1, name=f"{name}.conv1")
            y = conv(_norm_relu(y, f"{name}.norm2", f"{name}.relu2"), growth, 3, name=f"{name}.conv2")
            x = layers.Concatenate(name=f"{name}.concat")([x, y])
        if block < len(blocks):
            name = f"features.transition{block}"
            x = conv(_norm_relu(x, f"{name}.norm", f"{name}.relu"), x.shape[-1] // 2, 1, name=f"{name}.conv")
            x = layers.AveragePooling2D(2, name=f"{name}.pool")(x)
    return _norm_relu(x, "features.norm5", "relu5")
