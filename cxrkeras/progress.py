"""Progress of long-running work: phases with their units, and messages."""

from collections.abc import Callable

Advance = Callable[..., None]  # takes the number of units done since the last call, by default 1


class Progress:
    """Reports nothing. Subclasses show a bar, print a line or send a message to another process."""

    def start(self, phase: str, total: int = 0) -> Advance:
        """Start a phase of `total` units, 0 if unknown; call the returned function after each unit."""
        return lambda count=1: None

    def say(self, sentence: str) -> None:
        """Show a message to the user."""

    def end_epoch(self, done: int) -> None:
        """Report how many epochs of a training are done."""


SILENT = Progress()
