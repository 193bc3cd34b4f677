"""The Keras callback around each training step."""

import time
from collections.abc import Callable

import keras
import numpy as np

from cxrkeras.errors import InputError
from cxrkeras.progress import Advance
from cxrkeras.training.averaging import Average
from cxrkeras.training.signals import Interruption

SAVE_SECONDS = 600  # between saves: the most work that a kill can lose


class StepCallback(keras.callbacks.Callback):
    """Sets the learning rate before each step; counts, averages and saves after it.

    `rate` and `save` are called with the number of steps done in the epoch. Ends the epoch early on an interruption.
    Raises InputError for a loss that is not finite.
    """

    async_safe = True  # Keras calls on_train_batch_end in another thread, so that the GPU does not wait for the loss

    def __init__(
        self,
        first: int,
        *,
        rate: Callable[[int], float],
        save: Callable[[int], None],
        interruption: Interruption,
        average: Average | None,
        advance: Advance,
    ):
        super().__init__()
        self.first = self.done = first
        self.rate, self.save, self.interruption, self.average, self.advance = rate, save, interruption, average, advance
        self._saved_at = time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        if batch:
            self._end_step()
            if time.monotonic() - self._saved_at > SAVE_SECONDS:
                self.save(self.done)
                self._saved_at = time.monotonic()
        self.model.optimizer.learning_rate = self.rate(self.done)

    def on_train_batch_end(self, batch, logs=None):
        if not np.isfinite(logs["loss"]):  # the mean since the first batch
            raise InputError(f"the loss is {logs['loss']} from batch {self.first + batch + 1} of the epoch on")

    def on_train_end(self, logs=None):
        self._end_step()

    def _end_step(self) -> None:
        self.done += 1
        if self.average:
            self.average.update()
        self.advance()
        if self.interruption.is_wanted:
            self.model.stop_training = True
