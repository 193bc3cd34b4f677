"""Keeps the warnings of libraries that read image files off the screen: they quote the files."""

import re
import threading
import warnings

_MODULES = "pydicom|PIL"
_FILTER = ("ignore", None, Warning, re.compile(_MODULES), 0)
_lock = threading.Lock()


def ignore_decoders() -> None:
    """Ignore warnings that come from inside of Pillow and pydicom, in the whole process, from now on.

    `warnings.catch_warnings` around each decode would restore, from one thread, the filters that another one has set
    meanwhile. Does nothing where the filter is in place already.
    """
    if _FILTER not in warnings.filters:
        with _lock:
            if _FILTER not in warnings.filters:
                warnings.filterwarnings("ignore", module=_MODULES)
