"""Learning rates, epoch by epoch."""

from cxrkeras.config import Schedule


def learning_rate(schedule: Schedule, initial: float, epoch: int) -> float:
    """The learning rate of an epoch, counted from 0: constant, or initial * gamma ** epoch."""
    return initial * schedule.gamma**epoch if schedule.name == "exponential" else initial
