"""Fits the out-of-distribution check of an adopted network on a folder of radiographs of the user."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tensorflow as tf

from cxrkeras.data.images import load_image, open_image
from cxrkeras.errors import InputError
from cxrkeras.files import replacing
from cxrkeras.models.compiled import load_network
from cxrkeras.progress import SILENT, Progress
from cxrkeras.scoring.ood_check import fit_ood_check
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import MODEL, OOD_CHECK
from cxrkeras.text import num_of

LEAST_IMAGES = 50
FEW_IMAGES = 500  # below, the limits rest on the largest distance of fewer than 100 images
BATCH = 32
_NTH = 5  # every fifth image is held out for the limits


def fit_on_images(fold: Fold, folder: Path, progress: Progress = SILENT) -> str:
    """Fit the check on the readable images in a folder and the folders in it; return a sentence about them.

    Every fifth image, by name, sets the limits; the others give means and covariances. Raises InputError for fewer than
    LEAST_IMAGES readable images.
    """
    if not folder.is_dir():
        raise InputError(f"no folder {folder}", option="images")
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    images, skipped = [], 0
    advance = progress.start("reading radiographs", len(paths))
    for path in paths:
        try:
            with open_image(path) as content:
                images.append(load_image(content, fold.size, fold.config.preparation))
        except (InputError, OSError):
            skipped += 1
        advance()
    if len(images) < LEAST_IMAGES:
        raise InputError(
            f"{folder} has {num_of(len(images), 'readable image')}, and {skipped:,} other files; the check needs "
            f"{LEAST_IMAGES} radiographs or more, and better {FEW_IMAGES}",
            option="images",
        )
    pixels = np.stack(images)[..., None]
    is_held_out = np.arange(len(pixels)) % _NTH == 0
    parts = [list(_batch(pixels[~is_held_out])), list(_batch(pixels[is_held_out]))]
    advance = progress.start("fitting the out-of-distribution check", sum(map(len, parts)))
    network = load_network(fold.folder / MODEL, fold.labels)
    with replacing(fold.folder / OOD_CHECK) as draft, draft.open("wb") as file:
        np.savez(file, **fit_ood_check(network, parts[:1], parts[1], advance))  # type: ignore[arg-type]
    unread = f"; {num_of(skipped, 'file')} skipped that cannot be read as an image" if skipped else ""
    rough = f"; fewer than {FEW_IMAGES}, so that its limits are rough" if len(images) < FEW_IMAGES else ""
    return f"the input check is fitted on {num_of(len(images), 'image')} in {folder}{unread}{rough}"


def _batch(pixels: np.ndarray) -> Iterator[tuple[tf.Tensor]]:
    for start in range(0, len(pixels), BATCH):
        yield (tf.constant(pixels[start : start + BATCH]),)
