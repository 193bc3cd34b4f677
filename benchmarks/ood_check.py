"""Measure what the out-of-distribution check flags: `make bench-ood RUNS="a b"`.

The test sets of runs, the same images inverted or rotated, and images that are not frontal chest radiographs. The
photographs are those that come with scikit-image, if it is installed; the leg and the chest with masses are those of
pydicom-data. The tables are saved in `benchmarks/README.md`.
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
from cxrkeras.models.compiled import load_network
from cxrkeras.scoring.ood_check import build_extractor, load_ood_check
from cxrkeras.scoring.run import Fold, open_fold
from cxrkeras.scoring.run_files import MODEL, OOD_CHECK

BATCH = 64
PHOTOGRAPHS = (
    "astronaut", "brick", "camera", "cat", "cell", "checkerboard", "chelsea", "clock", "coffee", "coins", "colorwheel",
    "grass", "gravel", "horse", "hubble_deep_field", "immunohistochemistry", "logo", "moon", "page", "retina", "rocket",
    "text",
)  # fmt: skip


def load_photographs(size: int) -> list[np.ndarray]:
    """Those of scikit-image's pictures that are available without a download."""
    try:
        from skimage import data
    except ImportError:
        return []
    photographs = []
    for name in PHOTOGRAPHS:
        try:
            pixels = getattr(data, name)()
        except Exception:  # not in the package; it would be downloaded
            continue
        pixels = pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
        photographs.append(resize_image(np.asarray(Image.fromarray(pixels).convert("L")), size))
    return photographs


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
    """Linear, diagonal and radial ramps of grey, each in four orientations."""
    levels = np.linspace(0, 255, size)
    ramps = [
        np.tile(levels, (size, 1)),
        np.add.outer(levels, levels) / 2,
        np.hypot(*np.meshgrid(levels - 128, levels - 128)),
    ]
    return [np.clip(np.rot90(ramp, turn), 0, 255).astype(np.uint8) for ramp in ramps for turn in range(4)]


def load_dicom(name: str, size: int) -> list[np.ndarray]:
    return [load_image(Path(get_testdata_file(f"{name}.dcm", download=False)).read_bytes(), size)]


def measure(fold: Fold) -> tuple[str, list[tuple[str, ...]]]:
    """A title, and a row per group: its images, the share flagged, the most frequent reason."""
    fold.require(MODEL, OOD_CHECK)
    metrics = fold.metrics
    network, check = load_network(fold.folder / MODEL, fold.labels), load_ood_check(fold.folder / OOD_CHECK)
    extract, size = build_extractor(network), network.input_shape[1]
    batches = fold.records.evaluation_batches(TEST, batch_size=BATCH)
    test = np.concatenate([images.numpy() for images, *_ in batches])
    rng = np.random.default_rng(0)
    groups = {
        "test set": test,
        "test set, inverted": 255 - test,
        "test set, rotated by 90 degrees to the left": np.rot90(test, 1, axes=(1, 2)),
        "test set, rotated by 90 degrees to the right": np.rot90(test, -1, axes=(1, 2)),
        "test set, upside down": np.rot90(test, 2, axes=(1, 2)),
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
            rows.append((name, "0", "not available", ""))
            continue
        images = np.asarray(images).reshape(len(images), size, size, 1)
        starts = range(0, len(images), BATCH)
        features = np.concatenate([extract(images[start : start + BATCH]) for start in starts])
        first_reasons = [reasons[0] for reasons in check.judge(images, features) if reasons]
        most = Counter(first_reasons).most_common(1)
        rows.append((name, f"{len(images):,}", f"{len(first_reasons) / len(images):.1%}", most[0][0] if most else ""))
    kind = "synthetic phantoms" if metrics.is_synthetic else "radiographs"
    title = (
        f"flagged by the check of {metrics.run}, fold {metrics.fold}, {size} px, trained on {kind} of split "
        f"{metrics.split_name} ({metrics.test.images:,} test images of {metrics.test.patients:,} patients); its limits "
        "were chosen on the validation set"
    )
    return title, rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", help="finished folds; by default the newest")
    tables = Tables("Out-of-distribution check", "make bench-ood")
    for run in parser.parse_args().runs or [None]:
        title, rows = measure(open_fold(run, with_network=True))
        tables.add(title, ["group", "images", "flagged", "most frequent reason"], rows)
    tables.save()


if __name__ == "__main__":
    main()
