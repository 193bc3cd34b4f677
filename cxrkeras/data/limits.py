"""How large an image may be, and how many are decoded at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cxrkeras.errors import InputError

MAX_PIXELS = 80_000_000  # larger ones are bombs: a few kilobytes that unpack to gigabytes
MAX_RATIO = 10  # of the sides


def check_size(width: int, height: int, max_pixels: int) -> None:
    """InputError for an image that is not a radiograph by its size alone, before it is decoded."""
    if width * height > max_pixels:
        raise InputError(f"{width} x {height}: more pixels than the limit of {max_pixels:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InputError(f"{width} x {height}: over {MAX_RATIO} times as long as wide, which no radiograph is")


class PixelGate:
    """Lets threads decode images whose pixels together are at most `budget`; others wait, the first come first.

    An image of more pixels than that goes alone.
    """

    def __init__(self, budget: int):
        self._budget = self._free = budget
        self._turn = threading.Lock()
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        wanted = min(pixels, self._budget)
        with self._turn, self._changed:  # whoever waits keeps its turn, so that small images do not starve a large one
            self._changed.wait_for(lambda: self._free >= wanted)
            self._free -= wanted
        try:
            yield
        finally:
            with self._changed:
                self._free += wanted
                self._changed.notify_all()


# Of all threads of the process, in server, shell and records alike: the largest image takes up to 700 MB while it is
# decoded, and smaller ones together take no more.
DECODING = PixelGate(MAX_PIXELS)
