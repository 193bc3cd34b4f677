"""Handles signals that end a training after its current step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Interruption:
    """Set by SIGINT or SIGTERM, so that a training can finish its step and save; a second signal interrupts at once."""

    is_wanted = False

    @contextmanager
    def watch(self, say: Callable[[str], None]) -> Iterator[None]:
        """Handle signals until the block ends; without effect outside the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def handle(number, frame):
            if self.is_wanted:
                raise KeyboardInterrupt
            self.is_wanted = True
            say("stopping after this step")

        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
