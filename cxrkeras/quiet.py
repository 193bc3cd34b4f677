"""TensorFlow without its chatter."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from cxrkeras.errors import InputError


@contextmanager
def _silence() -> Iterator[None]:
    stderr = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def import_tensorflow() -> None:
    """Import TensorFlow, which takes seconds, without the lines it prints before its log level counts."""
    with _silence():
        try:
            import keras
            import tensorflow  # noqa: F401
        except ImportError as error:
            raise InputError(f"{error}: install TensorFlow with `make setup`, or `pip install cxrkeras[cpu]`") from None
    if keras.backend.backend() != "tensorflow":
        raise InputError(f"Keras runs on {keras.backend.backend()}; wanted tensorflow: unset KERAS_BACKEND")
