"""Measure what the input check flags: `make bench-input RUNS="a b"`, test parts of runs and images that are no chest.

Photographs are those that come with scikit-image, if it is installed; the leg and the chest are those of pydicom-data.
The table stands in `benchmarks/README.md` afterwards.
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom.data import get_testdata_file

from benchmarks.table import Tables
from cxrkeras.data.dataset import TEST
from cxrkeras.data.images import load_image, resize_image
from cxrkeras.files import load_shaped
from cxrkeras.models.compiled import load_network
from cxrkeras.records.batches import build_evaluation_batches
from cxrkeras.scoring.find_runs import INPUT_CHECK, METRICS, MODEL, Metrics, find_fold
from cxrkeras.scoring.ood_check import build_extractor, load_input_check

PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cat", "cell", "checkerboard", "chelsea", "clock", "coffee", "coins", "colorwheel",
    "grass", "gravel", "horse", "hubble_deep_field", "immunohistochemistry", "logo", "moon", "page", "retina", "rocket",
    "text",
)  # fmt: skip


def load_photographs(size: int) -> list[np.ndarray]:
    """Those of scikit-image's pictures that are here without a download."""
    try:
        from skimage import data
    except ImportError:
        return []
    found = []
    for name in PHOTOGRAPHS:
        try:
            pixels = getattr(data, name)()
        except Exception:  # not in the package; it would be fetched
            continue
        pixels = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
        found.append(resize_image(np.asarray(Image.fromarray(pixels).convert("L")), size))
    return found


def draw_pages(size: int, count: int = 20) -> list[np.ndarray]:
    """Pages of text, black on white."""
    rng, words = np.random.default_rng(0), __doc__.split()
    pages = []
    for _ in range(count):
        page = Image.new("L", (600, 800), 255)
        pen, font = ImageDraw.Draw(page), ImageFont.load_default(int(rng.integers(10, 26)))
        for line in range(30, 770, int(font.size * 1.4)):
            pen.text((40, line), " ".join(rng.choice(words, 8)), 0, font)
        pages.append(resize_image(np.asarray(page), size))
    return pages


def draw_gradients(size: int) -> list[np.ndarray]:
    ramp = np.linspace(0, 255, size)
    ramps = [np.tile(ramp, (size, 1)), np.add.outer(ramp, ramp) / 2, np.hypot(*np.meshgrid(ramp - 128, ramp - 128))]
    return [np.clip(np.rot90(one, turn), 0, 255).astype(np.uint8) for one in ramps for turn in range(4)]


def load_dicom(name: str, size: int) -> list[np.ndarray]:
    return [load_image(Path(get_testdata_file(f"{name}.dcm", download=False)).read_bytes(), size)]


def measure(folder: Path) -> tuple[str, list[tuple[str, ...]]]:
    """What the check of a finished fold is, and a row a group: its images, the share flagged, the reason given most."""
    metrics = load_shaped(folder / METRICS, Metrics)
    network, check = load_network(folder / MODEL), load_input_check(folder / INPUT_CHECK)
    extract, size = build_extractor(network), network.input_shape[1]
    batches = build_evaluation_batches(Path(metrics["records"]), TEST, batch_size=64)
    test = np.concatenate([images.numpy() for images, *_ in batches])
    rng = np.random.default_rng(0)
    groups = {
        "test part": test,
        "test part, inverted": 255 - test,
        "test part, turned by 90 degrees to the left": np.rot90(test, 1, axes=(1, 2)),
        "test part, turned by 90 degrees to the right": np.rot90(test, -1, axes=(1, 2)),
        "test part, upside down": np.rot90(test, 2, axes=(1, 2)),
        "photographs of scikit-image": load_photographs(size),
        "pages of text": draw_pages(size),
        "noise": rng.integers(0, 256, (50, size, size)).astype(np.uint8),
        "gradients": draw_gradients(size),
        "blank": [np.full((size, size), level, np.uint8) for level in range(0, 256, 15)],
        "a leg (RG3, pydicom-data)": load_dicom("RG3_UNCI", size),
        "a chest with masses (RG1, pydicom-data)": load_dicom("RG1_UNCI", size),
    }
    rows = []
    for name, images in groups.items():
        if not len(images):
            rows.append((name, "0", "not here", ""))
            continue
        images = np.asarray(images).reshape(len(images), size, size, 1)
        features = np.concatenate([extract(images[k : k + 64]) for k in range(0, len(images), 64)])
        reasons = [found[0] for found in check.judge(images, features) if found]
        most = Counter(reasons).most_common(1)
        rows.append((name, f"{len(images):,}", f"{len(reasons) / len(images):.1%}", most[0][0] if most else ""))
    kind = "synthetic phantoms" if metrics["is_synthetic"] else "radiographs"
    title = (
        f"Flagged by the check of {folder.parent.name}, fold {metrics['fold']}, {size} px, trained on {kind} of split "
        f"{metrics['split_name']} ({metrics['test']['images']:,} test images of {metrics['test']['patients']:,} "
        "patients); its cuts were chosen on validation"
    )
    return title, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="finished folds; by default the newest")
    tables = Tables("Input check", "make bench-input")
    for run in parser.parse_args().runs or [None]:
        title, rows = measure(find_fold(run, with_network=True))
        tables.add(title, ["group", "images", "flagged", "most frequent reason"], rows)
    tables.save()


if __name__ == "__main__":
    main()
