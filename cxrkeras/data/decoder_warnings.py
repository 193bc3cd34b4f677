"""Silences the warnings of image decoding libraries, which quote the files."""

import re
import threading
import warnings

_MODULES = "pydicom|PIL"
_FILTER = ("ignore", None, Warning, re.compile(_MODULES), 0)
_lock = threading.Lock()


def ignore_decoders() -> None:
    """Ignore warnings from inside Pillow and pydicom for the rest of the process.

    `warnings.catch_warnings` around each decode is not thread-safe: one thread would restore filters that another has
    changed meanwhile. Does nothing if the filter is already in place.
    """
    if _FILTER not in warnings.filters:
        with _lock:
            if _FILTER not in warnings.filters:
                warnings.filterwarnings("ignore", module=_MODULES)
