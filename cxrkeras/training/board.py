"""What TensorBoard is shown."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from cxrkeras.runs import TENSORBOARD

GRID = 4  # augmented images a side


class Board:
    """Writes the scalars of each epoch and one grid of augmented inputs."""

    def __init__(self, folder: Path, *, is_synthetic: bool):
        self._inputs = "augmented inputs" + (" (synthetic phantoms)" if is_synthetic else "")
        self._writer = tf.summary.create_file_writer(str(folder / TENSORBOARD))

    def write_epoch(self, epoch: int, row: dict[str, float]) -> None:
        """Write a row of the history, as `loss/train` and so on, at an epoch counted from 1."""
        with self._writer.as_default(step=epoch):
            for name, value in row.items():
                if name != "epoch" and np.isfinite(value):
                    tf.summary.scalar(name, value)
        self._writer.flush()

    def write_inputs(self, images: np.ndarray) -> None:
        """Write up to 16 augmented images, grey levels (N, S, S, 1), as one picture."""
        num = min(len(images), GRID * GRID)
        size = images.shape[1]
        grid = np.zeros((GRID * size, GRID * size), np.uint8)
        for i, image in enumerate(images[:num]):
            top, left = size * (i // GRID), size * (i % GRID)
            grid[top : top + size, left : left + size] = np.round(image[..., 0])
        with self._writer.as_default(step=0):
            tf.summary.image(self._inputs, grid[None, ..., None])
        self._writer.flush()
