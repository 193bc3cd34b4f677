"""ResNet (He et al., CVPR 2016, arXiv 1512.03385), matching torchvision layer by layer.

This is version 1.5: the stride of a bottleneck is in its 3 x 3 convolution; in the ResNet50 of keras.applications it is
in the first 1 x 1 convolution.
"""

from keras import layers

from cxrkeras.models.torchlike import conv, max_pool, norm

EXPANSION = 4  # output channels of a bottleneck, relative to its inner ones


def _relu(x, name: str):
    return layers.ReLU(name=name)(x)


def _shortcut(x, filters: int, stride: int, name: str):
    if stride == 1 and x.shape[-1] == filters:
        return x
    return norm(conv(x, filters, 1, stride, name=f"{name}.downsample.0"), name=f"{name}.downsample.1")


def _basic_block(x, filters: int, stride: int, name: str):
    y = _relu(norm(conv(x, filters, 3, stride, name=f"{name}.conv1"), name=f"{name}.bn1"), f"{name}.relu1")
    y = norm(conv(y, filters, 3, name=f"{name}.conv2"), name=f"{name}.bn2")
    return _relu(layers.Add(name=f"{name}.add")([y, _shortcut(x, filters, stride, name)]), f"{name}.relu2")


def _bottleneck(x, filters: int, stride: int, name: str):
    y = _relu(norm(conv(x, filters, 1, name=f"{name}.conv1"), name=f"{name}.bn1"), f"{name}.relu1")
    y = _relu(norm(conv(y, filters, 3, stride, name=f"{name}.conv2"), name=f"{name}.bn2"), f"{name}.relu2")
    y = norm(conv(y, EXPANSION * filters, 1, name=f"{name}.conv3"), name=f"{name}.bn3")
    shortcut = _shortcut(x, EXPANSION * filters, stride, name)
    return _relu(layers.Add(name=f"{name}.add")([y, shortcut]), f"{name}.relu3")


def build_resnet(x, blocks: tuple[int, int, int, int], *, is_deep: bool = False):
    """Add a ResNet without its head to scaled images (N, S, S, 3); return features (N, S/32, S/32, channels).

    `blocks` counts the blocks of the four stages: basic blocks, which end in 512 channels, or with `is_deep`
    bottlenecks, which end in 2048.
    """
    x = _relu(norm(conv(x, 64, 7, 2, name="conv1"), name="bn1"), "relu")
    x = max_pool(x, name="maxpool")
    add_block = _bottleneck if is_deep else _basic_block
    for stage, num_blocks in enumerate(blocks):
        for block in range(num_blocks):
            stride = 2 if stage and not block else 1
            x = add_block(x, 64 * 2**stage, stride, f"layer{stage + 1}.{block}")
    return x
