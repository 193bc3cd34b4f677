"""Verify that adopted networks equal PyTorch's torchxrayvision: `make parity` where both are installed.

Weights are drawn from a seed by name and shape, the same for both sides; ours pass through the conversion of
`cxrkeras adopt`. On the same grey levels the logits are compared. Of whole files, read, cropped and resized by
torchxrayvision in floats and by us to 8 bits, the difference is shown as a share of the spread of a logit over images,
for the files in `nih-sample` in the folder that CXRKERAS_TEST_DATA names. `--save` stores PyTorch's logits in
`tests/references/public_parity.npz`, against which the tests verify ours without PyTorch.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.parity import difference, draw_array
from benchmarks.pytorch import import_torchvision
from benchmarks.table import Tables
from cxrkeras.data.images import load_image
from cxrkeras.models.classifier import FEATURES, LOGITS, build_classifier
from cxrkeras.models.public import fill_public_network
from cxrkeras.models.public_table import find_public

RESULTS = Path(__file__).parents[1] / "tests" / "references" / "public_parity.npz"
LABEL_FILES = Path(__file__).parents[1] / "data" / "label-files"  # `make label-files` unpacks torchxrayvision there
NETWORKS = ("xrv-all", "xrv-resnet50-res512-all", "chexnet-jrzech")
TOLERANCE = 1e-5
IMAGES, FILES = 2, 100


def draw_grey(size: int) -> np.ndarray:
    """Smooth images of whole grey levels, float32 (N, size, size, 1)."""
    from scipy.ndimage import zoom

    coarse = np.random.default_rng(size).normal(128, 60, (IMAGES, size // 8, size // 8))
    return np.clip(zoom(coarse, (1, 8, 8), order=1).round(), 0, 255).astype(np.float32)[..., None]


def draw_state(name: str) -> dict[str, np.ndarray]:
    """Draw the state dict of a public network, with PyTorch's names and layouts."""
    row = find_public(name)
    network = build_classifier(row.network, 64, 1)
    body = keras.Model(network.input, network.get_layer(FEATURES).output)
    names = {"kernel": "weight", "gamma": "weight", "beta": "bias", "moving_mean": "running_mean"}
    shapes = {}
    for layer in body.layers:
        for variable in layer.weights:
            shape = tuple(variable.shape)
            key = f"{layer.name}.{names.get(variable.name, 'running_var')}"
            shapes[key] = (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape
    head = {"xrv": "classifier", "chexnet": "classifier.0"}[name.partition("-")[0]]
    head = "fc" if row.network.startswith("resnet") else head
    num = network.get_layer(LOGITS).input.shape[-1]
    shapes |= {f"{head}.weight": (len(row.labels), num), f"{head}.bias": (len(row.labels),)}
    stem = next(key for key in ("features.conv0.weight", "conv1.weight") if key in shapes)
    if row.scaling:
        shapes[stem] = (shapes[stem][0], 1, *shapes[stem][2:])
    state = {key: draw_array(key, shape) for key, shape in shapes.items()}
    if row.scaling:
        state[stem] /= np.float32(1024)  # its inputs reach from -1024 to 1024
    return state


def import_torchxrayvision():
    """Import torchxrayvision, installed or as `make label-files` unpacks it; None where that or PyTorch is missing."""
    if import_torchvision() is None:
        return None
    sys.path.append(str(LABEL_FILES))
    try:
        import torchxrayvision
    except ImportError:
        return None
    return torchxrayvision


def build_with_torch(name: str):
    """Build PyTorch's network of a public one with the weights of `draw_state`; it takes scaled images."""
    import torch

    state = {key: torch.from_numpy(value) for key, value in draw_state(name).items()}
    torchvision, xrv = import_torchvision(), import_torchxrayvision()
    row = find_public(name)
    if row.network.startswith("resnet"):
        network = torchvision.models.resnet50(num_classes=len(row.labels), weights=None)
        network.conv1 = torch.nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    elif row.scaling:
        network = xrv.models.DenseNet()
    else:
        network = torchvision.models.densenet121(weights=None)
        network.classifier = torch.nn.Sequential(torch.nn.Linear(1024, len(row.labels)))
    counters = {key: value for key, value in network.state_dict().items() if key.endswith("num_batches_tracked")}
    network.load_state_dict(state | counters)
    return network.eval()


def scale_for_torch(name: str, grey: np.ndarray) -> np.ndarray:
    """Scale grey levels (N, S, S) as the network's own code does, float32 (N, C, S, S)."""
    if find_public(name).scaling:
        return ((2 * grey / 255 - 1) * 1024).astype(np.float32)[:, None]
    mean, std = (np.array(values).reshape(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return ((grey[:, None] / 255 - mean) / std).astype(np.float32)


def compute_with_torch(network, images: np.ndarray) -> np.ndarray:
    import torch

    with torch.no_grad():
        return network(torch.from_numpy(images)).numpy()


def measure_rounding(folder: Path) -> tuple[float, float]:
    """Compare whole files: the median and worst difference of a logit, as a share of its spread over the images."""
    import torchvision

    xrv = import_torchxrayvision()
    row = find_public("xrv-all")
    ours = fill_public_network(row, draw_state("xrv-all"), "drawn weights")
    theirs = build_with_torch("xrv-all")
    prepare = torchvision.transforms.Compose([xrv.datasets.XRayCenterCrop(), xrv.datasets.XRayResizer(row.size)])
    paths = sorted(folder.rglob("*.png"))
    paths = [path for path in paths if path.stat().st_size > 100_000][:FILES]  # those of 1024 px
    floats = np.stack([prepare(xrv.utils.load_image(str(path))) for path in paths])
    whole = np.stack([load_image(path.read_bytes(), row.size, row.preparation) for path in paths])
    expected = compute_with_torch(theirs, floats)
    batches = np.array_split(whole[..., None].astype(np.float32), 10)
    got = np.concatenate([ours(batch, training=False).numpy() for batch in batches])
    shares = np.abs(got - expected) / expected.std(axis=0)
    return float(np.median(shares)), float(shares.max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--save", action="store_true", help="store PyTorch's results for the tests")
    is_saving = parser.parse_args().save
    if import_torchxrayvision() is None:
        parser.exit(2, "torchxrayvision is not there: `.venv/bin/pip install torch torchvision torchxrayvision`\n")
    rows, stored = [], {}
    for name in NETWORKS:
        row = find_public(name)
        grey = draw_grey(row.size)
        expected = compute_with_torch(build_with_torch(name), scale_for_torch(name, grey[..., 0]))[:, row.outputs]
        ours = fill_public_network(row, draw_state(name), "drawn weights")
        error = difference(ours(grey, training=False).numpy(), expected)
        rows.append((name, str(row.size), f"{error:.1e}", "equal" if error < TOLERANCE else "DIFFERENT"))
        stored[name] = expected.astype(np.float32)
    tables = Tables("Parity of public networks with PyTorch", "make parity")
    tables.add("largest difference of logits, relative to the largest", ["network", "px", "logits", ""], rows)
    folder = Path(os.environ.get("CXRKERAS_TEST_DATA", "nowhere"), "nih-sample")
    if folder.is_dir():
        median, worst = measure_rounding(folder)
        title = f"whole files read by both, up to {FILES} of 1024 px: difference of a logit, of its spread over images"
        tables.add(title, ["network", "median", "worst"], [("xrv-all", f"{median:.2%}", f"{worst:.2%}")])
    tables.save()
    if is_saving:
        np.savez_compressed(RESULTS, **stored)
    if any(row[-1] != "equal" for row in rows):
        parser.exit(1)


if __name__ == "__main__":
    main()
