"""Learning rates as functions of time and of earlier validation losses, so that a run can resume at any step."""

import math

from cxrkeras.config import Schedule

_MIN_IMPROVEMENT = 1e-4  # relative decrease of the validation loss that counts as better


def learning_rate(
    schedule: Schedule, initial: float, time: float, epochs: int, losses: list[float], step: float = 0.0
) -> float:
    """Compute the learning rate of a step of `step` epochs that begins `time` epochs into a phase of `epochs`.

    `losses` are the validation losses of the phase so far.

    - constant: `initial`.
    - step: multiplied by gamma every `schedule.step` epochs, as PyTorch's StepLR.
    - exponential: multiplied by gamma every epoch, as PyTorch's ExponentialLR.
    - plateau: multiplied by gamma if the validation loss has not improved for more than `patience` epochs, as
      PyTorch's ReduceLROnPlateau.
    - cosine: linear warm-up over `warm_up` epochs, then half a cosine to 0, updated every step (Loshchilov and Hutter,
      ICLR 2017, arXiv 1608.03983).
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
        progress = (time - schedule.warm_up) / max(epochs - schedule.warm_up, 1e-9)
        return initial * (1 + math.cos(math.pi * min(progress, 1))) / 2
    return initial


def _count_plateaus(losses: list[float], patience: int) -> int:
    count, waited, best = 0, 0, math.inf
    for loss in losses:
        if loss < best * (1 - _MIN_IMPROVEMENT):
            best, waited = loss, 0
        else:
            waited += 1
        if waited > patience:
            count, waited = count + 1, 0
    return count
