"""Limits on the size of images, and on how much is decoded at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cxrkeras.errors import InputError

MAX_PIXELS = 80_000_000  # larger images may be decompression bombs: kilobytes that decode to gigabytes
MAX_RATIO = 10  # of the sides
MAX_BYTES = 8 * MAX_PIXELS  # of a file: four channels of 16 bits


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise InputError, before decoding, if an image cannot be a radiograph by its size."""
    if width * height > max_pixels:
        raise InputError(f"{width} x {height}: more pixels than the limit of {max_pixels:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InputError(f"{width} x {height}: more than {MAX_RATIO} times as long as wide, unlike any radiograph")


class Gate:
    """Shares a budget between threads; requests that exceed what is free wait, first come, first served.

    A request above the whole budget counts as the whole: a very large image is decoded alone.
    """

    def __init__(self, budget: int):
        self._budget = self._free = budget
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Reserve an amount of the budget until the block ends."""
        amount = min(amount, self._budget)
        with self._turn, self._changed:  # a waiting thread keeps its turn, so that small requests cannot starve it
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


# Shared by all threads of the process. Decoding takes 3 to 16 bytes per pixel (`images.Header`), so that one image of
# the largest size, 30 uncompressed radiographs of 8 megapixels, or 6 in JPEG 2000, are decoded at once: what a machine
# with a loaded network can spare. To avoid deadlocks, reserve READING before DECODING, never the other way round.
DECODING = Gate(800_000_000)  # bytes
READING = Gate(256 * 2**20)  # bytes of files: one uncompressed image of the largest size, or many typical ones
