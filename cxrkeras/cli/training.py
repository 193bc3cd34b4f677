"""Commands that train."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from cxrkeras.cli.shell import (
    BarProgress,
    ExperimentFile,
    Model,
    Records,
    Settings,
    Weights,
    app,
    console,
    hint_resume_on_interrupt,
    load_tensorflow,
    show_progress,
)
from cxrkeras.cli.tables import print_folds, print_networks, print_ranking, print_scores
from cxrkeras.errors import InputError
from cxrkeras.files import make_folder, write_text
from cxrkeras.scoring.run_files import RUNS_ROOT, TENSORBOARD

if TYPE_CHECKING:  # commands that train nothing should not wait for them
    from rich.progress import Progress as Bars

    from cxrkeras.config import Experiment
    from cxrkeras.scoring.run import Fold

PICTURES = (".png", ".pdf", ".svg", ".jpg")


@app.command()
def models() -> None:
    """List the networks: size, cost, source of their ImageNet weights, resolution of their Grad-CAM."""
    from cxrkeras.models.registry import NETWORKS

    print_networks(console, NETWORKS)


@app.command()
def train(
    model: Model = None,
    experiment: ExperimentFile = None,
    records: Records = None,
    fold: Annotated[Optional[int], typer.Option(help="The fold held out for validation.")] = None,
    weights: Weights = None,
    set_: Settings = "",
) -> None:
    """Train one fold, score it on validation and test. The same command again resumes an unfinished run.

    For example `train --model efficientnetb0 --set "training.epochs=2 optimiser.learning_rate=3e-4"`.
    """
    name, chosen = _choose_experiment(model, experiment, records, weights, set_, fold)
    train_and_print(chosen, name)


def _choose_experiment(
    model: str | None,
    experiment: str | None,
    records: str | None,
    weights: str | None,
    overrides: str,
    fold: int | None = None,
) -> tuple[str, Experiment]:
    """The name and settings of a training; for a network alone, those of its best recipe."""
    from cxrkeras.config import find_experiment, load_experiment
    from cxrkeras.models.registry import find_network

    name = experiment or model
    if not name:
        raise InputError(
            "which network? Give --model resnet18 (or another) or --experiment <a file under experiments/>; with make "
            "MODEL= or EXPERIMENT="
        )
    recipe = experiment
    if not experiment:
        recipe = find_network(name).recipe
        if recipe:
            console.print(f"recipe: {find_experiment(recipe)}, the best known for {model}")
    data = {key: value for key, value in {"records": records, "fold": fold}.items() if value is not None}
    network = {key: value for key, value in {"name": model, "weights": weights}.items() if value is not None}
    chosen = load_experiment(recipe, settings={"data": data, "model": network}, overrides=overrides)
    find_network(chosen.model.name)  # before the seconds that TensorFlow takes
    return Path(name).stem, chosen


@app.command()
def cv(
    model: Model = None,
    experiment: ExperimentFile = None,
    records: Records = None,
    weights: Weights = None,
    set_: Settings = "",
) -> None:
    """Train all folds of an experiment, one after the other; mean and standard deviation of the AUCs at the end.

    Folds that are done are skipped, an unfinished one is resumed: after an interruption give the same command.
    """
    _sweep(dict([_choose_experiment(model, experiment, records, weights, set_)]))


@app.command()
def sweep(
    experiments: Annotated[
        Optional[list[str]], typer.Argument(help="Files under experiments/, without .toml, or paths.")
    ] = None,
    records: Records = None,
    weights: Weights = None,
    set_: Settings = "",
) -> None:
    """Train all folds of many experiments and rank them on validation. The same command again resumes.

    The table grows with each fold; it is kept as `sweep-<8 hex digits>.csv` next to the runs.
    """
    if not experiments:
        raise InputError(
            'which experiments? Name files under experiments/ without .toml; with make EXPERIMENTS="a b c"'
        )
    chosen = {}
    for experiment in experiments:
        name, settings = _choose_experiment(None, experiment, records, weights, set_)
        if chosen.setdefault(name, settings) != settings:
            raise InputError(f"two of the experiments are called {name}: rename one of the files")
    _sweep(chosen)


class _SweepProgress(BarProgress):
    """The bar of a training, and above it one for the epochs of all trainings."""

    def __init__(self, bars: Bars, num_epochs: int):
        super().__init__(bars)
        self.whole = bars.add_task("epochs of all trainings", total=num_epochs)
        self.epochs_before = 0

    def end_epoch(self, done: int) -> None:
        self.bars.update(self.whole, completed=self.epochs_before + done)

    def end_training(self, epochs: int) -> None:
        """Count a finished training, of which some epochs may have been left out."""
        self.epochs_before += epochs
        self.end_epoch(0)


def _sweep(chosen: dict[str, Experiment]) -> None:
    from cxrkeras.scoring.run_files import CROSSVAL
    from cxrkeras.scoring.run_scores import save_summary
    from cxrkeras.training.sweep import PlannedFold, find_finished, plan_in_worker, run_sweep, save_ranking
    from cxrkeras.training.worker import call_in_process

    with console.status("loading TensorFlow, reading the records"):
        planned = call_in_process(plan_in_worker, chosen, RUNS_ROOT)
    folders = list(dict.fromkeys(fold.folder.parent for fold in planned))
    num_done = sum(fold.is_done for fold in planned)
    console.print(f"{len(planned)} trainings, {num_done} of them done, in {', '.join(map(str, folders))}")
    num_epochs = sum(fold.epochs for fold in planned if not fold.is_done)
    with hint_resume_on_interrupt(), show_progress() as shown:
        progress = _SweepProgress(shown.bars, num_epochs)

        def finished(fold: PlannedFold) -> None:
            progress.end_training(fold.epochs)
            print_ranking(progress.bars.console, save_ranking(planned)[0])

        run_sweep(planned, progress=progress, finished=finished)
    ranked, path = save_ranking(planned)
    runs = find_finished(planned)
    summaries = [save_summary(run) for run in runs]
    if len(runs) == 1:
        print_folds(console, summaries[0], runs[0].name)
    else:
        if num_done == len(planned):
            print_ranking(console, ranked)
        console.print(f"this table: {path}")
    for run in runs:
        console.print(f"labels over folds: {run.folder / CROSSVAL}")


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="A file under experiments/, without .toml, or a path.")] = "",
    set_: Settings = "",
    is_saved: Annotated[
        bool, typer.Option("--save", help="Write it to experiments/NAME.toml instead, to be changed there.")
    ] = False,
) -> None:
    """Print all settings of an experiment, as a TOML file that could stand under experiments/.

    Those that come with cxrkeras are found from any folder; a file under experiments/ of the same name wins.
    """
    from cxrkeras.config import EXPERIMENTS_ROOT, format_experiment, list_experiments, load_experiment
    from cxrkeras.models.registry import find_network

    if not name:
        raise InputError(f"which experiment? There are {', '.join(sorted(list_experiments()))}; with make EXPERIMENT=")
    chosen = load_experiment(name, overrides=set_)
    find_network(chosen.model.name)
    if not is_saved:
        print(format_experiment(chosen), end="")
        return
    path = EXPERIMENTS_ROOT / f"{Path(name).stem}.toml"
    if path.exists():
        raise InputError(f"{path} is there already: change it, or remove it first")
    make_folder(path.parent)
    write_text(path, format_experiment(chosen))
    console.print(f"saved {path}; next: cxrkeras train --experiment {path.stem}")


@app.command()
def augmentation(
    experiment: ExperimentFile = None,
    records: Records = None,
    set_: Settings = "",
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("experiments/augmentation.png"),
) -> None:
    """Draw training images before and after augmentation, several variants of each, to look at."""
    from cxrkeras.config import load_experiment
    from cxrkeras.records.folder import open_records

    # The network does not matter here, but the settings have one.
    settings = {"model": {} if experiment else {"name": "resnet18"}}
    chosen = load_experiment(experiment, settings=settings, overrides=set_)
    opened = open_records(records or chosen.data.records)
    if out.is_dir() or out.suffix.lower() not in PICTURES:
        raise InputError(f"--out is a file that ends in {', '.join(PICTURES)}; got {out}")
    load_tensorflow()
    from cxrkeras.training.augmentation_preview import plot_augmentation

    make_folder(out.parent)
    plot_augmentation(chosen, opened).savefig(out)
    console.print(f"saved {out}")


def train_and_print(experiment: Experiment, name: str) -> Fold:
    """Train a fold with a bar, and print its scores."""
    load_tensorflow()
    from cxrkeras.training.fit import train_fold

    with hint_resume_on_interrupt(), show_progress() as progress:
        result = train_fold(experiment, name=name, progress=progress)
    print_scores(console, result.fold)
    console.print(f"run folder: {result.fold.folder}")
    return result.fold


@app.command()
def tensorboard(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 6006) -> None:
    """Open the curves of all runs in TensorBoard."""
    if not list(RUNS_ROOT.glob(f"*/*/{TENSORBOARD}")):
        raise InputError(f"no run in {RUNS_ROOT} yet: start one with `cxrkeras demo` or `cxrkeras train --model ...`")
    console.print(f"TensorBoard of {RUNS_ROOT} on http://127.0.0.1:{port}, Ctrl-C stops it")
    command = [
        sys.executable,
        "-m",
        "tensorboard.main",
        "--logdir",
        str(RUNS_ROOT),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    os.execv(sys.executable, command)
