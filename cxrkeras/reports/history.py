"""The curves of a training, as they were written epoch by epoch."""

from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.errors import InputError
from cxrkeras.scoring.find_runs import HISTORY


def load_history(folder: Path, columns: tuple[str, ...]) -> pd.DataFrame:
    """Read `columns` of history.csv, and `epoch`; InputError if it is gone, lacks one or holds what is no number."""
    path = folder / HISTORY
    if not path.is_file():
        raise InputError(f"{path} is gone")
    try:
        history = pd.read_csv(path)
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error})") from None
    wanted = ["epoch", *columns]
    if missing := [name for name in wanted if name not in history.columns]:
        raise InputError(f"{path} lacks {missing[0]}")
    history = history[wanted].apply(pd.to_numeric, errors="coerce").astype(float)
    if not len(history) or not np.isfinite(history["epoch"]).all():
        raise InputError(f"{path} has no epochs, or some that are no numbers")
    return history
