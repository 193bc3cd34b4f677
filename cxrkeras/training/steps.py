"""What happens between the steps of an epoch."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from cxrkeras.errors import InputError

SAVE_SECONDS = 600  # the most work that a kill can cost


class Interruption:
    """Set by SIGINT or SIGTERM, so that a training can finish its step and save; the second signal ends at once."""

    is_wanted = False

    @contextmanager
    def watch(self, say: Callable[[str], None]) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def note(number, frame):
            if self.is_wanted:
                raise KeyboardInterrupt
            self.is_wanted = True
            say("stopping after this step")

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class Steps(keras.callbacks.Callback):
    """Sets the rate before each step; counts, averages and saves after it.

    `rate` is a function of the steps done in this epoch, `save` writes the state. Ends the epoch early when an
    interruption is wanted; raises InputError for a loss that is not finite.
    """

    async_safe = True  # Keras calls on_train_batch_end in another thread, so that a GPU need not wait for the loss

    def __init__(self, *, first: int, rate: Callable, save: Callable, interruption: Interruption, average, advance):
        super().__init__()
        self.first = self.done = first
        self.rate, self.save, self.interruption, self.average, self.advance = rate, save, interruption, average, advance
        self._saved_at = time.monotonic()

    def on_train_batch_begin(self, batch, logs=None):
        if batch:
            self._end_step()
            if time.monotonic() - self._saved_at > SAVE_SECONDS:
                self.save()
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
        self.advance(1)
        if self.interruption.is_wanted:
            self.model.stop_training = True


def time_waiting(batches: tf.data.Dataset) -> tuple[tf.data.Dataset, tf.Variable]:
    """The same batches, and a variable that sums up the seconds for which they were waited for."""
    with tf.device("CPU"):
        waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
    asked = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

    def note(asked, batch):
        with tf.control_dependencies([waited.assign_add(tf.timestamp() - asked)]):
            return tf.nest.map_structure(tf.identity, batch)

    timed = tf.data.Dataset.zip(asked, batches).map(note)
    return timed.apply(tf.data.experimental.assert_cardinality(len(batches))), waited
