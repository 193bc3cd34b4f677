"""Learning rates, as functions of time and of what was scored before, so that a run can be taken up anywhere."""

import math

from cxrkeras.config import Schedule

_NOTABLE = 1e-4  # share by which a validation loss must fall to count as better


def learning_rate(
    schedule: Schedule, initial: float, time: float, epochs: int, losses: list[float], step: float = 0.0
) -> float:
    """The learning rate of the step that begins `time` epochs after a phase of `epochs` began, and takes `step` epochs.

    `losses` are the validation losses of its epochs so far. constant: `initial`; step: times gamma every `step`
    epochs, as PyTorch's StepLR; exponential: times gamma every epoch, as its ExponentialLR; plateau: times gamma
    whenever the validation loss was not better for more than `patience` epochs, as its ReduceLROnPlateau; cosine: rises
    for `warm_up` epochs, its first step at one step's share of them, and falls to 0 along half a wave, step by step
    (Loshchilov and Hutter, ICLR 2017, arXiv 1608.03983).
    """
    if schedule.name == "step":
        return initial * schedule.gamma ** (int(time) // schedule.step)
    if schedule.name == "exponential":
        return initial * schedule.gamma ** int(time)
    if schedule.name == "plateau":
        return initial * schedule.gamma ** _count_plateaus(losses, schedule.patience)
    if schedule.name == "cosine":
        if time < schedule.warm_up:
            return initial * min((time + step) / schedule.warm_up, 1)
        part = (time - schedule.warm_up) / max(epochs - schedule.warm_up, 1e-9)
        return initial * (1 + math.cos(math.pi * min(part, 1))) / 2
    return initial


def _count_plateaus(losses: list[float], patience: int) -> int:
    count, waited, best = 0, 0, math.inf
    for loss in losses:
        if loss < best * (1 - _NOTABLE):
            best, waited = loss, 0
        else:
            waited += 1
        if waited > patience:
            count, waited = count + 1, 0
    return count
