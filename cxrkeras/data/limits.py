"""What an image may measure, and how much of it is decoded at once."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cxrkeras.errors import InputError

MAX_PIXELS = 80_000_000  # larger ones are bombs: a few kilobytes that unpack to gigabytes
MAX_RATIO = 10  # of the sides
MAX_BYTES = 8 * MAX_PIXELS  # of a file that is read from disk: four channels of 16 bits


def check_size(width: int, height: int, max_pixels: int) -> None:
    """InputError for an image that cannot be a radiograph by its size alone, before it is decoded."""
    if width * height > max_pixels:
        raise InputError(f"{width} x {height}: more pixels than the limit of {max_pixels:,}")
    if max(width, height) > MAX_RATIO * min(width, height):
        raise InputError(f"{width} x {height}: over {MAX_RATIO} times as long as wide, which no radiograph is")


class Gate:
    """Lets threads use a budget together; who does not fit waits, in the order of asking.

    More than the whole budget counts as the whole of it: a very large image is decoded alone.
    """

    def __init__(self, budget: int):
        self._budget = self._free = budget
        self._turn, self._changed = threading.Lock(), threading.Condition()

    @contextmanager
    def hold(self, amount: int) -> Iterator[None]:
        """Take an amount of the budget until the block ends."""
        amount = min(amount, self._budget)
        with self._turn, self._changed:  # the turn is kept while waiting, so that small ones do not overtake for ever
            self._changed.wait_for(lambda: self._free >= amount)
            self._free -= amount
        try:
            yield
        finally:
            with self._changed:
                self._free += amount
                self._changed.notify_all()


# All threads of the process share these. Decoding takes 3 to 16 bytes per pixel (`images.Header`), so one image of the
# largest size, or 30 uncompressed radiographs of 8 megapixels, or 6 in JPEG 2000, are decoded at once: what a machine
# that holds a network has to spare. A block that holds bytes of files may ask for memory, never the other way round.
DECODING = Gate(800_000_000)  # bytes
READING = Gate(256 * 2**20)  # bytes of files: one uncompressed image of the largest size, or many usual ones
