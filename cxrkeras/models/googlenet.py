"""GoogLeNet with BatchNorm (Szegedy et al., CVPR 2015, arXiv 1409.4842), matching torchvision layer by layer.

Its "5 x 5" branch uses 3 x 3 convolutions, its pooling layers round sizes up, and its auxiliary heads, which help
training from scratch, are left out.
"""

from keras import layers

from cxrkeras.models.torchlike import conv, norm

# Channels of each module: 1 x 1; 3 x 3 reduction and output; "5 x 5" reduction and output; pooling branch.
INCEPTION = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


def _conv(x, filters: int, kernel: int, stride: int = 1, *, name: str):
    x = norm(conv(x, filters, kernel, stride, name=f"{name}.conv"), name=f"{name}.bn", epsilon=1e-3)
    return layers.ReLU(name=f"{name}.relu")(x)


def _pool(x, kernel: int, name: str):
    """Max pooling with stride 2 whose last window may extend beyond the edge (`ceil_mode` of PyTorch)."""
    has_rest = (x.shape[1] - kernel) % 2 == 1
    return layers.MaxPooling2D(kernel, 2, padding="same" if has_rest else "valid", name=name)(x)


def _inception(x, module: str):
    out1, reduce3, out3, reduce5, out5, pooled = INCEPTION[module]
    name = f"inception{module}"
    branch1 = _conv(x, out1, 1, name=f"{name}.branch1")
    branch2 = _conv(_conv(x, reduce3, 1, name=f"{name}.branch2.0"), out3, 3, name=f"{name}.branch2.1")
    branch3 = _conv(_conv(x, reduce5, 1, name=f"{name}.branch3.0"), out5, 3, name=f"{name}.branch3.1")
    pool = layers.MaxPooling2D(3, 1, padding="same", name=f"{name}.branch4.0")(x)
    branch4 = _conv(pool, pooled, 1, name=f"{name}.branch4.1")
    return layers.Concatenate(name=name)([branch1, branch2, branch3, branch4])


def build_googlenet(x):
    """Add GoogLeNet without its head to scaled images (N, S, S, 3); return features (N, S/32, S/32, 1024)."""
    x = _pool(_conv(x, 64, 7, 2, name="conv1"), 3, "maxpool1")
    x = _conv(_conv(x, 64, 1, name="conv2"), 192, 3, name="conv3")
    x = _pool(x, 3, "maxpool2")
    for module in INCEPTION:
        if module == "4a":
            x = _pool(x, 3, "maxpool3")
        elif module == "5a":
            x = _pool(x, 2, "maxpool4")
        x = _inception(x, module)
    return x
