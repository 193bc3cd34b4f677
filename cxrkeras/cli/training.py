"""Commands that train."""

import os
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from cxrkeras.cli.shell import (
    ExperimentFile,
    Model,
    Records,
    Settings,
    Weights,
    app,
    console,
    load_tensorflow,
    say_how_to_go_on,
    show_bar,
)
from cxrkeras.cli.tables import print_folds, print_networks, print_ranking, print_scores
from cxrkeras.errors import InputError
from cxrkeras.files import make_folder
from cxrkeras.records.find_records import find_records
from cxrkeras.scoring.find_runs import RUNS_ROOT, TENSORBOARD

PICTURES = (".png", ".pdf", ".svg", ".jpg")


@app.command()
def models() -> None:
    """List the networks: size, cost, where their ImageNet weights come from, how coarse their Grad-CAM is."""
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
    """Train one fold, score it on validation and test. The same command again goes on with an unfinished run.

    For example `train --model efficientnetb0 --set "training.epochs=2 optimiser.learning_rate=3e-4"`.
    """
    name, resolved = _choose_experiment(model, experiment, records, weights, set_, fold)
    train_one(resolved, name)


def _choose_experiment(model, experiment, records, weights, overrides, fold=None):
    """The name and settings of what is to be trained; of a network alone those of its best regime."""
    from cxrkeras.config import EXPERIMENTS_ROOT, load_experiment
    from cxrkeras.models.registry import find_network

    if not (model or experiment):
        raise InputError("which network? Give MODEL=resnet18 (or another), or EXPERIMENT=<a file under experiments/>")
    name, regime = experiment, experiment
    if not experiment:
        name, regime = model, find_network(model).regime
        if regime and not (EXPERIMENTS_ROOT / f"{regime}.toml").is_file():
            console.print(f"no {EXPERIMENTS_ROOT / regime}.toml here: taking the default regime")
            regime = None
        elif regime:
            console.print(f"regime: {EXPERIMENTS_ROOT / regime}.toml, the best that is known for {model}")
    data = {key: value for key, value in {"records": records, "fold": fold}.items() if value is not None}
    network = {key: value for key, value in {"name": model, "weights": weights}.items() if value is not None}
    resolved = load_experiment(regime, settings={"data": data, "model": network}, overrides=overrides)
    find_network(resolved.model.name)  # before the seconds that TensorFlow takes
    return Path(name).stem, resolved


@app.command()
def cv(
    model: Model = None,
    experiment: ExperimentFile = None,
    records: Records = None,
    weights: Weights = None,
    set_: Settings = "",
) -> None:
    """Train all folds of an experiment, one after the other; mean and deviation of the AUCs at the end.

    Folds that are done are skipped, an unfinished one is taken up: after an interruption give the same command.
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
    """Train all folds of many experiments and rank them on validation. The same command again goes on.

    The table grows with each fold; it is kept as `sweep-<8 hex digits>.csv` beside the runs.
    """
    if not experiments:
        raise InputError('which experiments? Give EXPERIMENTS="a b c", files under experiments/ without .toml')
    chosen = {}
    for experiment in experiments:
        name, resolved = _choose_experiment(None, experiment, records, weights, set_)
        if chosen.setdefault(name, resolved) != resolved:
            raise InputError(f"two of the experiments are called {name}: rename one of the files")
    _sweep(chosen)


def _sweep(chosen: dict) -> None:
    from cxrkeras.scoring.find_runs import CROSSVAL
    from cxrkeras.training.crossval import in_process, plan_here, run_sweep, save_ranking, summarise_folds

    with console.status("loading TensorFlow, reading the records"):
        planned = in_process(plan_here, chosen, RUNS_ROOT)
    runs = list(dict.fromkeys(one.folder.parent for one in planned))
    num_done = sum(one.is_done for one in planned)
    console.print(f"{len(planned)} trainings, {num_done} of them done, in {', '.join(str(run) for run in runs)}")
    with say_how_to_go_on(), show_bar() as progress:
        all_epochs = sum(one.epochs for one in planned if not one.is_done)
        whole = progress.add_task("epochs of all trainings", total=all_epochs)
        task = progress.add_task("starting", total=None)
        before = 0

        def tell(message: tuple) -> None:
            nonlocal before
            kind, *content = message
            if kind == "next":
                progress.console.print(content[0])
            elif kind == "start":
                progress.reset(task, description=content[0], total=content[1] or None)
            elif kind == "advance":
                progress.advance(task, content[0])
            elif kind == "say":
                progress.console.print(f"  {content[0]}")
            elif kind == "epoch":
                progress.update(whole, completed=before + content[0])

        def finished(one) -> None:
            nonlocal before
            before += one.epochs
            progress.update(whole, completed=before)
            print_ranking(progress.console, save_ranking(planned, RUNS_ROOT)[0])

        run_sweep(planned, RUNS_ROOT, tell, finished)
    ranked, path = save_ranking(planned, RUNS_ROOT)
    summaries = [summarise_folds(run) for run in runs]
    if len(runs) == 1:
        print_folds(console, summaries[0], runs[0].name)
    else:
        if num_done == len(planned):
            print_ranking(console, ranked)
        console.print(f"this table: {path}")
    for run in runs:
        console.print(f"labels over folds: {run / CROSSVAL}")


@app.command()
def experiment(
    name: Annotated[str, typer.Argument(help="A file under experiments/, without .toml, or a path.")] = "",
    set_: Settings = "",
) -> None:
    """Print all settings of an experiment, as a TOML file that could stand under experiments/."""
    from cxrkeras.config import format_experiment, load_experiment
    from cxrkeras.models.registry import find_network

    if not name:
        raise InputError("which experiment? Give EXPERIMENT=<a file under experiments/, without .toml>")
    resolved = load_experiment(name, overrides=set_)
    find_network(resolved.model.name)
    print(format_experiment(resolved), end="")


@app.command()
def augmentation(
    experiment: ExperimentFile = None,
    records: Records = None,
    set_: Settings = "",
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("experiments/augmentation.png"),
) -> None:
    """Draw training images before and after augmentation, eight ways each, to look at."""
    from cxrkeras.config import load_experiment

    # The network does not matter here, but the settings have one.
    settings = {"model": {} if experiment else {"name": "resnet18"}}
    resolved = load_experiment(experiment, settings=settings, overrides=set_)
    folder = find_records(records or resolved.data.records)
    if out.is_dir() or out.suffix.lower() not in PICTURES:
        raise InputError(f"--out is a file that ends in {', '.join(PICTURES)}; got {out}")
    load_tensorflow()
    from cxrkeras.training.augmentation_preview import plot_augmentation

    make_folder(out.parent)
    plot_augmentation(resolved, folder).savefig(out)
    console.print(f"saved {out}")


def train_one(resolved, name: str) -> Path:
    load_tensorflow()
    from cxrkeras.training.fit import Monitor, train_fold

    with say_how_to_go_on(), show_bar() as progress:
        task = progress.add_task("starting", total=None)
        monitor = Monitor(
            start=lambda phase, total: progress.reset(task, description=phase, total=total or None),
            advance=lambda count: progress.advance(task, count),
            say=lambda sentence: progress.console.print(sentence),
        )
        result = train_fold(resolved, name=name, monitor=monitor)
    print_scores(console, result.metrics)
    console.print(f"run folder: {result.folder}")
    return result.folder


@app.command()
def tensorboard(port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 6006) -> None:
    """Open the curves of all runs in TensorBoard."""
    if not list(RUNS_ROOT.glob(f"*/*/{TENSORBOARD}")):
        raise InputError(f"no run in {RUNS_ROOT} yet: start one with `make demo` or `make train MODEL=...`")
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
