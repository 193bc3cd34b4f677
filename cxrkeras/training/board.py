"""Writes a run for TensorBoard."""

from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorboard.plugins.hparams import api as hparams

from cxrkeras.config import Experiment, dump_experiment
from cxrkeras.explain.overlay import blend_map
from cxrkeras.labels import LabelSet, file_name
from cxrkeras.scoring.run_files import TENSORBOARD

GRID = 4  # augmented images per side


class Board:
    """Writes the settings, the scalars of each epoch, a grid of augmented inputs, and heat maps."""

    def __init__(self, folder: Path, resolved: Experiment, labels: LabelSet, *, is_synthetic: bool):
        self._labels = labels
        self._names = {f"auc/{label}": f"auc/{file_name(label)}" for label in labels}
        self._note = " (synthetic phantoms)" if is_synthetic else ""
        self._writer = tf.summary.create_file_writer(str(folder / TENSORBOARD))
        with self._writer.as_default(step=0):
            hparams.hparams(_flatten(dump_experiment(resolved)), trial_id=f"{folder.parent.name}/{folder.name}")

    def write_epoch(self, epoch: int, row: dict[str, float]) -> None:
        """Write a row of the history, such as `loss/train`, for an epoch counted from 1."""
        with self._writer.as_default(step=epoch):
            for name, value in row.items():
                if name != "epoch" and np.isfinite(value):
                    tf.summary.scalar(self._names.get(name, name), value)
        self._writer.flush()

    def write_inputs(self, images: np.ndarray) -> None:
        """Write up to 16 augmented images, grey levels (N, S, S, 1), as one image."""
        grid = _tile(np.round(images[: GRID * GRID]).astype(np.uint8), GRID)
        with self._writer.as_default(step=0):
            tf.summary.image(f"augmented inputs{self._note}", grid[None])
        self._writer.flush()

    def write_gradcam(self, epoch: int, images: np.ndarray, logits: np.ndarray, maps: np.ndarray) -> None:
        """Write images (N, S, S, 1), each next to the heat map of its most probable finding."""
        findings = self._labels.finding_columns
        columns = findings[logits[:, findings].argmax(axis=1)]
        pairs = []
        for image, column, heat in zip(images, columns, maps, strict=True):
            pairs += [np.repeat(image, 3, axis=-1), blend_map(image[..., 0], heat[column])]
        shown = ", ".join(self._labels.names[column] for column in columns)
        with self._writer.as_default(step=epoch):
            tf.summary.image(
                f"Grad-CAM of validation images{self._note}", _tile(np.stack(pairs), 2)[None], description=shown
            )
        self._writer.flush()


def _tile(images: np.ndarray, columns: int) -> np.ndarray:
    """Arrange images (N, S, S, C) in a grid; unused cells are black."""
    num, size, _, channels = images.shape
    rows = -(-num // columns)
    grid = np.zeros((rows * columns, size, size, channels), images.dtype)
    grid[:num] = images
    grid = grid.reshape(rows, columns, size, size, channels).swapaxes(1, 2)
    return grid.reshape(rows * size, columns * size, channels)


def _flatten(content: dict, place: str = "") -> dict[str, str | float | bool]:
    """Flatten settings to full keys, for TensorBoard's table of runs."""
    flat = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{place}{key}.")
        elif value is not None and value != []:
            flat[f"{place}{key}"] = value if isinstance(value, (bool, int, float, str)) else str(value)
    return flat
