"""Saves the state of an unfinished training, from which the same command resumes."""

import json
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np

from cxrkeras.errors import InputError
from cxrkeras.files import replacing
from cxrkeras.scoring.run_files import BACKUP

_FILE = "state.npz"


@dataclass
class Position:
    """The progress of a training."""

    epochs_done: int = 0
    best_quality: float = -np.inf  # mean validation AUC (if undefined, minus the loss) of the epoch in model.keras
    best_epoch: int = 0  # counted from 1
    history: list[dict] = field(default_factory=list)
    phase: int = 0  # the current one, counted from 0
    phase_began: int = 0  # epochs done when it began
    phase_quality: float = -np.inf  # the best of its epochs so far
    phase_best_epoch: int = 0  # counted from 1 over all phases; phase_began if there is none
    stopped: list[dict] = field(default_factory=list)  # phases that ended early: phase and epoch, counted from 1
    steps_done: int = 0  # of the current epoch, with their mean loss and time
    loss: float = 0.0
    seconds: float = 0.0

    def is_phase_over(self, epochs: int, patience: int) -> bool:
        """Whether the phase has had all its `epochs`, or `patience` of them without improvement."""
        is_stopped = patience > 0 and self.epochs_done - self.phase_best_epoch >= patience
        return self.epochs_done - self.phase_began >= epochs or is_stopped

    def note_epoch(self, quality: float) -> bool:
        """Count an epoch of this quality; return whether it is the best so far."""
        self.epochs_done += 1
        if quality > self.phase_quality:
            self.phase_quality, self.phase_best_epoch = quality, self.epochs_done
        is_best = quality > self.best_quality
        if is_best:
            self.best_quality, self.best_epoch = quality, self.epochs_done
        return is_best

    def end_phase(self, epochs: int) -> bool:
        """Proceed to the next phase; return whether this one of `epochs` ended early."""
        is_early = self.epochs_done - self.phase_began < epochs
        if is_early:
            self.stopped.append({"phase": self.phase + 1, "epoch": self.epochs_done})
        self.phase, self.phase_began, self.phase_best_epoch = self.phase + 1, self.epochs_done, self.epochs_done
        self.phase_quality = -np.inf
        return is_early


def find_backup(folder: Path) -> Path:
    """Return the path of the training state in a folder."""
    return folder / BACKUP / _FILE


def save_backup(folder: Path, variables: list[keras.Variable], position: Position) -> None:
    """Write all variables of a training and its position atomically to one file."""
    path = find_backup(folder)
    path.parent.mkdir(exist_ok=True)
    arrays = {f"v{i}": np.asarray(variable) for i, variable in enumerate(variables)}
    with replacing(path) as draft:
        np.savez(draft, progress=json.dumps(asdict(position)), **arrays)  # type: ignore[arg-type]  # NumPy's hints


def read_position(folder: Path) -> Position:
    """Read the position of the backup; without one, the start."""
    return load_backup(folder, []) if find_backup(folder).exists() else Position()


def load_backup(folder: Path, variables: list[keras.Variable]) -> Position:
    """Restore the variables of the backup and return its position."""
    path = find_backup(folder)
    try:
        with path.open("rb") as file, np.load(file) as saved:
            for i, variable in enumerate(variables):
                variable.assign(saved[f"v{i}"])
            return _parse_position(json.loads(str(saved["progress"])))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}): delete {path.parent} and train again") from error


def _parse_position(content: dict) -> Position:
    """Parse a saved position; in backups from before phases were counted, the phase is that of the last epoch."""
    position = Position(**content)
    if "phase" not in content and position.history:
        phases = [row.get("phase", 1) for row in position.history]
        position.phase = int(phases[-1]) - 1
        position.phase_began = phases.index(phases[-1])
        # The best epoch of the phase is known only if it is the best of all.
        is_in_phase = position.best_epoch > position.phase_began
        position.phase_best_epoch = position.best_epoch if is_in_phase else position.phase_began
        position.phase_quality = position.best_quality if is_in_phase else -np.inf
    return position
