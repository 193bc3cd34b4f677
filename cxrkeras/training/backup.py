"""The state of an unfinished training, so that the same command can go on from its last whole epoch."""

import json
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np

from cxrkeras.errors import InputError
from cxrkeras.files import replacing
from cxrkeras.scoring.find_runs import BACKUP

_FILE = "state.npz"


@dataclass
class Progress:
    """How far a training is."""

    epochs_done: int = 0
    best_quality: float = -np.inf  # mean validation AUC (without any, minus the loss) of the epoch in model.keras
    best_epoch: int = 0  # counted from 1
    history: list[dict] = field(default_factory=list)
    phase: int = 0  # that of the state, counted from 0
    phase_began: int = 0  # epochs that were done then
    phase_quality: float = -np.inf  # the best of its epochs
    phase_best_epoch: int = 0  # counted from 1 over all phases; without any, as phase_began
    stopped: list[dict] = field(default_factory=list)  # phases that ended early: phase and epoch, counted from 1
    steps_done: int = 0  # of the epoch after those, with their mean loss and time
    loss: float = 0.0
    seconds: float = 0.0

    def is_phase_over(self, epochs: int, patience: int) -> bool:
        """Whether the phase has had its `epochs`, or `patience` of them without a better one than its best."""
        is_stopped = patience > 0 and self.epochs_done - self.phase_best_epoch >= patience
        return self.epochs_done - self.phase_began >= epochs or is_stopped

    def note_epoch(self, quality: float) -> bool:
        """Count an epoch of this quality; whether it is the best of all."""
        self.epochs_done += 1
        if quality > self.phase_quality:
            self.phase_quality, self.phase_best_epoch = quality, self.epochs_done
        is_best = quality > self.best_quality
        if is_best:
            self.best_quality, self.best_epoch = quality, self.epochs_done
        return is_best

    def end_phase(self, epochs: int) -> bool:
        """Go on to the next phase; whether this one of `epochs` ended early."""
        is_early = self.epochs_done - self.phase_began < epochs
        if is_early:
            self.stopped.append({"phase": self.phase + 1, "epoch": self.epochs_done})
        self.phase, self.phase_began, self.phase_best_epoch = self.phase + 1, self.epochs_done, self.epochs_done
        self.phase_quality = -np.inf
        return is_early


def find_backup(folder: Path) -> Path:
    """Where the state of a training lies in its folder."""
    return folder / BACKUP / _FILE


def save_backup(folder: Path, variables: list[keras.Variable], progress: Progress) -> None:
    """Write all variables of a training with its progress as one file that is whole or not there."""
    path = find_backup(folder)
    path.parent.mkdir(exist_ok=True)
    arrays = {f"v{i}": np.asarray(variable) for i, variable in enumerate(variables)}
    with replacing(path) as draft:
        np.savez(draft, progress=json.dumps(asdict(progress)), **arrays)


def read_progress(folder: Path) -> Progress:
    """How far the backup is; without one, at the start."""
    return load_backup(folder, []) if find_backup(folder).exists() else Progress()


def load_backup(folder: Path, variables: list[keras.Variable]) -> Progress:
    """Set the variables to those of the backup and return its progress."""
    path = find_backup(folder)
    try:
        with path.open("rb") as file, np.load(file) as saved:
            for i, variable in enumerate(variables):
                variable.assign(saved[f"v{i}"])
            return _read_progress(json.loads(str(saved["progress"])))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}): delete {path.parent} and train again") from error


def _read_progress(content: dict) -> Progress:
    """Progress as it was saved; before phases were counted, the state was that of the last epoch's phase."""
    progress = Progress(**content)
    if "phase" not in content and progress.history:
        phases = [row.get("phase", 1) for row in progress.history]
        progress.phase = int(phases[-1]) - 1
        progress.phase_began = phases.index(phases[-1])
        # The best of all, if it is of this phase: what is known of its quality
        is_own = progress.best_epoch > progress.phase_began
        progress.phase_best_epoch = progress.best_epoch if is_own else progress.phase_began
        progress.phase_quality = progress.best_quality if is_own else -np.inf
    return progress
