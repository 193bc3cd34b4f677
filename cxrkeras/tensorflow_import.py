"""Imports TensorFlow without its startup output."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cxrkeras.errors import InputError

BACKEND = "KERAS_BACKEND"  # environment variable


@contextmanager
def _silence() -> Iterator[None]:
    stderr = os.dup(2)
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def import_tensorflow() -> None:
    """Import TensorFlow, which takes seconds, without the lines it prints before its log level applies."""
    if (backend := _find_backend()) != "tensorflow":
        raise InputError(
            f"the Keras backend is set to {backend!r} by {BACKEND} or keras.json, and cxrkeras needs tensorflow: "
            "unset it"
        )
    with _silence():
        try:
            import keras
            import tensorflow  # noqa: F401
        except ImportError as error:
            raise InputError(f"{error}: install TensorFlow with `pip install cxrkeras[cpu]`") from None
    if keras.backend.backend() != "tensorflow":  # Keras was imported earlier
        raise InputError(f"Keras runs on {keras.backend.backend()}; cxrkeras needs tensorflow: unset {BACKEND}")


def _find_backend() -> str:
    """Find the backend that Keras would use, from its environment variable or its configuration file."""
    if backend := os.environ.get(BACKEND):
        return backend
    file = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "keras.json"
    try:
        return json.loads(file.read_text("utf-8")).get("backend", "tensorflow")
    except (OSError, ValueError, AttributeError):
        return "tensorflow"
