"""Continues a finished run with more epochs: the longer run resumes from its state."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from cxrkeras.config import CONFIG, Experiment
from cxrkeras.errors import InputError
from cxrkeras.files import load_json, replacing
from cxrkeras.progress import Progress
from cxrkeras.scoring.run_files import HISTORY, METRICS, MODEL
from cxrkeras.training.backup import find_backup, read_position
from cxrkeras.training.resolve import Setup

_LENGTH_DEPENDENT = ("cosine",)  # schedules whose rates depend on the number of epochs of a phase


def find_shorter(folder: Path, setup: Setup) -> Path | None:
    """Find a finished run of this fold whose settings differ from those of `folder` only in fewer epochs.

    The longest with its state, else the longest.
    """
    found = []
    for other in folder.parents[1].glob(f"*/{folder.name}/{METRICS}"):
        with suppress(InputError, KeyError, TypeError):  # damaged runs are skipped
            epochs = int(load_json(other.with_name(CONFIG))["experiment"]["training"]["epochs"])
            for shorter in _shorten(setup.experiment, epochs):
                if replace(setup, experiment=shorter).name_run("x")[-8:] == other.parents[1].name[-8:]:
                    found.append((find_backup(other.parent).exists(), epochs, other.parent))
    return max(found)[-1] if found else None


def _shorten(experiment: Experiment, epochs: int) -> Iterator[Experiment]:
    """Yield the experiment with so many epochs in total, if these are fewer and the last phase keeps at least one."""
    training = experiment.training
    missing = training.resolved_epochs - epochs
    if missing <= 0:
        return
    changes: dict[str, object] = {"epochs": epochs}
    if training.phases:
        *first, last = training.phases
        if last.epochs <= missing:
            return
        changes["phases"] = [*first, last.model_copy(update={"epochs": last.epochs - missing})]
    yield experiment.model_copy(update={"training": training.model_copy(update=changes)})


def continue_shorter(folder: Path, setup: Setup, progress: Progress) -> None:
    """Copy state, history and best network of a shorter run, if there is one with its state, into `folder`."""
    if find_backup(folder).exists():
        return
    shorter = find_shorter(folder, setup)
    if shorter is None:
        return
    name = f"{shorter.parent.name}/{shorter.name}"
    schedule = setup.experiment.schedule.name
    if schedule in _LENGTH_DEPENDENT:
        reason = f"the {schedule} schedule depends on their number"
    elif not find_backup(shorter).exists():
        reason = "its state was not kept (training.keep_state = true)"
    else:
        _copy_state(shorter, folder)
        progress.say(f"resuming from {name} after epoch {read_position(folder).epochs_done}")
        return
    progress.say(f"{name} has the same settings and fewer epochs, but {reason}: starting at epoch 1")


def explain_longer(experiment: Experiment) -> str:
    """Explain how to train a run like this one for more epochs."""
    setting = "the epochs of the last phase" if experiment.training.phases else "training.epochs"
    start = "resumes from the last state of this run if it was kept with training.keep_state = true"
    if experiment.schedule.name in _LENGTH_DEPENDENT:
        start = f"starts at epoch 1, as the {experiment.schedule.name} schedule depends on their number"
    return f"For more epochs raise {setting}: this creates a new run, which {start}"


def _copy_state(shorter: Path, folder: Path) -> None:
    for source, target in (
        (shorter / MODEL, folder / MODEL),
        (shorter / HISTORY, folder / HISTORY),
        (find_backup(shorter), find_backup(folder)),  # last: a resumed training looks for it
    ):
        if not source.is_file():
            raise InputError(f"{source} is gone: delete {find_backup(shorter)} to start at epoch 1")
        target.parent.mkdir(exist_ok=True)
        with replacing(target) as draft:
            shutil.copyfile(source, draft)
