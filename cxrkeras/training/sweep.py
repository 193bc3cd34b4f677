"""Trains all folds of several experiments, one after another."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from cxrkeras.config import Experiment
from cxrkeras.errors import InputError
from cxrkeras.files import write_text
from cxrkeras.progress import SILENT, Progress
from cxrkeras.scoring.run import Fold, Run
from cxrkeras.scoring.run_files import METRICS, RUNS_ROOT
from cxrkeras.scoring.run_scores import tabulate_ranking
from cxrkeras.training.worker import call_in_process


@dataclass(frozen=True)
class PlannedFold:
    """A fold of an experiment: its folder, its number of epochs, and whether it was already done."""

    name: str
    experiment: Experiment
    folder: Path
    epochs: int
    is_done: bool

    @cached_property
    def fold(self) -> Fold:
        """The finished fold, opened once."""
        return Fold(self.folder)


def plan_sweep(experiments: dict[str, Experiment], root: Path = RUNS_ROOT) -> list[PlannedFold]:
    """List all folds of all experiments, by name, in training order. Raises InputError as training would.

    Experiments on different data, splits, folds or labels cannot be compared and raise InputError.
    """
    from cxrkeras.training.resolve import resolve_experiment

    planned, first = [], None
    for name, experiment in experiments.items():
        setup = resolve_experiment(experiment)
        manifest, resolved = setup.records.manifest, setup.experiment
        division = f"split {manifest.split_name} with {manifest.num_folds} folds of seed {manifest.fold_seed}"
        described = f"{division}, for {setup.labels.describe()}"
        first = first or (name, setup.records.folder, described)
        if described != first[2]:
            raise InputError(
                f"{name} uses {setup.records.folder}, {described}, but {first[0]} uses {first[1]}, {first[2]}: their "
                "scores cannot be compared"
            )
        run = root / setup.name_run(name)
        for fold in range(manifest.num_folds):
            folder, data = run / f"fold{fold}", resolved.data.model_copy(update={"fold": fold})
            of_fold = resolved.model_copy(update={"data": data})
            is_done = (folder / METRICS).is_file()
            planned.append(PlannedFold(name, of_fold, folder, resolved.training.resolved_epochs, is_done))
    return planned


def plan_in_worker(experiments: dict[str, Experiment], root: Path, progress: Progress) -> list[PlannedFold]:
    """`plan_sweep` for `call_in_process`."""
    return plan_sweep(experiments, root)


def train_in_worker(planned: PlannedFold, root: Path, progress: Progress) -> None:
    """Train one fold, for `call_in_process`."""
    from cxrkeras.training.fit import train_fold

    train_fold(planned.experiment, name=planned.name, root=root, progress=progress)


def run_sweep(
    planned: list[PlannedFold],
    root: Path = RUNS_ROOT,
    *,
    progress: Progress = SILENT,
    finished: Callable[[PlannedFold], None] = lambda fold: None,
) -> None:
    """Train the folds that are not done yet, each in its own process; `finished` is called after each."""
    for fold in planned:
        if not fold.is_done:
            progress.say(f"{fold.name}, fold {fold.experiment.data.fold}")
            call_in_process(train_in_worker, fold, root, progress=progress)
            finished(fold)


def find_finished(planned: list[PlannedFold]) -> list[Run]:
    """Find the runs that have finished folds, with those folds."""
    by_run: dict[Path, list[Fold]] = {}
    for fold in planned:
        if (fold.folder / METRICS).is_file():
            by_run.setdefault(fold.folder.parent, []).append(fold.fold)
    return [Run(folder, folds) for folder, folds in by_run.items()]


def rank_sweep(planned: list[PlannedFold]) -> pd.DataFrame:
    """Rank the runs of a sweep by `tabulate_ranking`, with `experiment`, and `of`, the number of planned folds."""
    names = {fold.folder.parent.name: fold.name for fold in planned}
    table = tabulate_ranking(find_finished(planned))
    table.insert(0, "experiment", table["run"].map(names))
    table.insert(3, "of", [sum(fold.folder.parent.name == run for fold in planned) for run in table["run"]])
    return table


def save_ranking(planned: list[PlannedFold], root: Path = RUNS_ROOT) -> tuple[pd.DataFrame, Path]:
    """Rank the runs and write `<root>/sweep-<8 hex digits>.csv`; return the table and its path."""
    ranked = rank_sweep(planned)
    names = sorted({fold.folder.parent.name for fold in planned})
    path = root / f"sweep-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:8]}.csv"
    write_text(path, ranked.to_csv(index=False))
    return ranked, path
