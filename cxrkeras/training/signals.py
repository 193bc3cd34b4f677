"""Signals that end a training once its step is done."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


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
