"""More epochs of a run that is done: its state is where a longer run goes on."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from cxrkeras.config import CONFIG, Experiment
from cxrkeras.errors import InputError
from cxrkeras.files import load_json, replacing
from cxrkeras.records.manifest import Manifest
from cxrkeras.scoring.find_runs import HISTORY, METRICS, MODEL
from cxrkeras.training.backup import find_backup, read_progress
from cxrkeras.training.resolve import name_run

_BY_LENGTH = ("cosine",)  # schedules whose rates depend on how long a phase is


def find_shorter(folder: Path, resolved: Experiment, manifest: Manifest) -> Path | None:
    """A finished run, of this fold, whose settings differ from those of `folder` in fewer epochs alone.

    The longest with its state, or else the longest.
    """
    found = []
    for other in folder.parents[1].glob(f"*/{folder.name}/{METRICS}"):
        with suppress(InputError, KeyError, TypeError):  # a damaged run is none to start from
            epochs = int(load_json(other.with_name(CONFIG))["experiment"]["training"]["epochs"])
            for shorter in _shorten(resolved, epochs):
                if name_run("x", shorter, manifest)[-8:] == other.parents[1].name[-8:]:
                    found.append((find_backup(other.parent).exists(), epochs, other.parent))
    return max(found)[-1] if found else None


def _shorten(resolved: Experiment, epochs: int) -> Iterator[Experiment]:
    """The experiment with so many epochs in all, if these are fewer and leave some to the last phase."""
    training = resolved.training
    missing = training.epochs - epochs
    if missing <= 0:
        return
    changes = {"epochs": epochs}
    if training.phases:
        *first, last = training.phases
        if last.epochs <= missing:
            return
        changes["phases"] = [*first, last.model_copy(update={"epochs": last.epochs - missing})]
    yield resolved.model_copy(update={"training": training.model_copy(update=changes)})


def continue_shorter(folder: Path, resolved: Experiment, manifest: Manifest, say: Callable[[str], None]) -> None:
    """Copy state, curves and best network of a shorter run into `folder`, if there is one with its state; says so."""
    if find_backup(folder).exists():
        return
    shorter = find_shorter(folder, resolved, manifest)
    if shorter is None:
        return
    name = f"{shorter.parent.name}/{shorter.name}"
    if resolved.schedule.name in _BY_LENGTH:
        reason = f"the {resolved.schedule.name} schedule depends on their number"
    elif not find_backup(shorter).exists():
        reason = "its state was not kept (training.keep_state = true)"
    else:
        _copy_state(shorter, folder)
        say(f"resuming from {name} after epoch {read_progress(folder).epochs_done}")
        return
    say(f"{name} has the same settings and fewer epochs, but {reason}: starting at epoch 1")


def explain_longer(resolved: Experiment) -> str:
    """How a run like this one gets more epochs."""
    setting = "the epochs of the last phase" if resolved.training.phases else "training.epochs"
    start = "resumes from this one's last state if it was kept with training.keep_state = true"
    if resolved.schedule.name in _BY_LENGTH:
        start = f"starts at epoch 1, as the {resolved.schedule.name} schedule depends on their number"
    return f"For more epochs raise {setting}: that is a run of its own, which {start}"


def _copy_state(shorter: Path, folder: Path) -> None:
    for source, target in (
        (shorter / MODEL, folder / MODEL),
        (shorter / HISTORY, folder / HISTORY),
        (find_backup(shorter), find_backup(folder)),  # last: it is what a resumed training looks for
    ):
        if not source.is_file():
            raise InputError(f"{source} is gone: delete {find_backup(shorter)} to start at epoch 1")
        target.parent.mkdir(exist_ok=True)
        with replacing(target) as draft:
            shutil.copyfile(source, draft)
