"""The state of an unfinished training, so that the same command can go on from its last whole epoch."""

import json
import zipfile
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np

from cxrkeras.errors import InputError
from cxrkeras.runs import BACKUP, replacing

_FILE = "state.npz"


@dataclass
class Progress:
    """How far a training is."""

    epochs_done: int = 0
    best_quality: float = -np.inf  # mean validation AUC (without any, minus the loss) of the epoch in model.keras
    best_epoch: int = 0  # counted from 1
    history: list[dict] = field(default_factory=list)
    steps_done: int = 0  # of the epoch after those, with their mean loss and time
    loss: float = 0.0
    seconds: float = 0.0


def save_backup(folder: Path, variables: list[keras.Variable], progress: Progress) -> None:
    """Write all variables of a training with its progress as one file that is whole or not there."""
    path = folder / BACKUP / _FILE
    path.parent.mkdir(exist_ok=True)
    arrays = {f"v{i}": np.asarray(variable) for i, variable in enumerate(variables)}
    with replacing(path) as draft:
        np.savez(draft, progress=json.dumps(asdict(progress)), **arrays)


def read_progress(folder: Path) -> Progress:
    """How far the backup is; without one, at the start."""
    return load_backup(folder, []) if (folder / BACKUP / _FILE).exists() else Progress()


def load_backup(folder: Path, variables: list[keras.Variable]) -> Progress:
    """Set the variables to those of the backup and return its progress."""
    path = folder / BACKUP / _FILE
    try:
        with path.open("rb") as file, np.load(file) as saved:
            for i, variable in enumerate(variables):
                variable.assign(saved[f"v{i}"])
            return Progress(**json.loads(str(saved["progress"])))
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path} is damaged ({error}): delete {path.parent} and train anew") from error
