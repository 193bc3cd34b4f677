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


# All threads of the process share these. Decoding takes 1 to 8 bytes per pixel besides the file (1 for DICOM, 5 for
# colour; `python -m benchmarks.decoding`), so one image of the largest size, or a dozen usual radiographs of 8
# megapixels, are decoded at once, in at most 0.8 GB. A block that holds bytes of files may ask for pixels, never the
# other way round.
PIXELS = Gate(100_000_000)
BYTES = Gate(256 * 2**20)  # of files read from disk: one uncompressed image of the largest size, or many usual ones
