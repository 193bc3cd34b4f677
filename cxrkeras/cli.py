"""The commands. Each parses its options and calls one function of the package."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Optional

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from cxrkeras import __version__
from cxrkeras.errors import InputError
from cxrkeras.quiet import import_tensorflow
from cxrkeras.runs import (
    MODEL,
    RECORDS_ROOT,
    RUNS_ROOT,
    SKIPPED,
    TENSORBOARD,
    find_fold,
    find_records,
    predictions_file,
)
from cxrkeras.tables import print_examination, print_folds, print_networks, print_ranking, print_scores

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown"
)
console = Console(highlight=False, soft_wrap=True, markup=False)  # paths may have brackets

DEMO_DATA = Path("data/phantom-demo")
DEMO_RECORDS = "phantom-demo-128"
DEMO_IMAGES, DEMO_PIXELS, DEMO_SIZE = 2400, 256, 128


def main() -> None:
    """Run the command line: what a person can mend is one sentence and exit code 2, never a traceback."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    except InputError as error:
        _print_error(str(error))
        sys.exit(2)
    except OSError as error:  # a full disk, a folder without permission
        _print_error(f"{error}: nothing that was finished is lost")
        sys.exit(2)


def _print_error(text: str) -> None:
    console.print(Text.assemble(("error: ", "bold red"), text))


@contextmanager
def _bar() -> Iterator[Progress]:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def _load_tensorflow() -> None:
    with console.status("loading TensorFlow"):
        import_tensorflow()


@contextmanager
def _resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        console.print("interrupted: the same command goes on from what is saved")
        raise typer.Exit(130) from None


@contextmanager
def _counter(description: str) -> Iterator:
    with _bar() as progress:
        task = progress.add_task(description, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _version(wanted: bool) -> None:
    if wanted:
        console.print(__version__)
        raise typer.Exit


@app.callback()
def _root(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    """Train, compare and explain multi-label chest X-ray classifiers.

    The way of the data: `phantom` or your own images, `records`, `train`, `gradcam`. Each step leaves files that the
    next one reads. `demo` goes the whole way.
    """


Seed = Annotated[int, typer.Option(min=0, max=2**31 - 1, help="The same seed gives the same result.")]
Model = Annotated[Optional[str], typer.Option(help="A network; `cxrkeras models` lists them.")]
ExperimentFile = Annotated[Optional[str], typer.Option(help="A file under experiments/, without .toml, or a path.")]
Records = Annotated[Optional[str], typer.Option(help="A folder under records/ or a path; by default the newest.")]
Weights = Annotated[
    Optional[str], typer.Option(help="imagenet, none, or a .keras, .weights.h5 or .safetensors file to start from.")
]
Settings = Annotated[str, typer.Option("--set", help="Settings as section.key=value, separated by spaces.")]


@app.command()
def phantom(
    data: Annotated[Path, typer.Option(help="The folder to write.")] = Path("data/phantom"),
    n: Annotated[int, typer.Option("--n", help="How many images.")] = 1200,
    size: Annotated[int, typer.Option(help="Side of the images in pixels.")] = 256,
    prevalence: Annotated[
        str, typer.Option(help="balanced: 15 % of each finding; nih: as rare as in the NIH release.")
    ] = "balanced",
    seed: Seed = 0,
) -> None:
    """Draw synthetic chest radiographs in the layout of the NIH release, and a contact sheet of them."""
    from cxrkeras.data.contact import plot_contact_sheet
    from cxrkeras.data.phantom import write_phantoms
    from cxrkeras.data.release import read_release

    with _counter("drawing phantoms") as progress:
        is_new = write_phantoms(data, num_images=n, size=size, prevalence=prevalence, seed=seed, progress=progress)
    sheet = data / "contact_sheet.png"
    if is_new:
        plot_contact_sheet(read_release(data)).savefig(sheet)
    console.print(f"{'drew' if is_new else 'already there:'} {n:,} synthetic phantoms in {data}")
    console.print(f"to look at: {sheet}")
    console.print(f"next: make records DATA={data} SIZE=128")


@app.command()
def data(
    data: Annotated[Path, typer.Option(help="The folder to fill.")] = Path("data/nih"),
    parts: Annotated[str, typer.Option(help="Which of the twelve archives: 1, 1,3 or 1..12.")] = "1",
    parallel: Annotated[int, typer.Option(min=1, max=12, help="Archives fetched at a time.")] = 1,
) -> None:
    """Fetch the NIH ChestX-ray14 release: labels, split lists and archives. Goes on where it was interrupted.

    The first of the twelve archives is 2 GB with 4,999 images, enough to try everything; all are about 42 GB.
    """
    from rich.progress import DownloadColumn, TransferSpeedColumn

    from cxrkeras.data.nih import fetch_release, parse_parts

    wanted = parse_parts(parts)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with _resumable(), Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        tasks = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name)
            bar.update(tasks[name], completed=done, total=total or None)

        fetch_release(data, wanted, parallel=parallel, progress=show, say=lambda text: bar.console.print(text))
    console.print(f"{data} has parts {parts}; next: make records DATA={data}")


@app.command()
def doctor(
    data: Annotated[Path, typer.Argument(help="A data folder, as for `records`.")] = Path("data/nih"),
    open_images: Annotated[bool, typer.Option("--open", help="Decode every image: odd ones, duplicates.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> None:
    """Say what a data folder is. Exit code 1 only for what would make a result wrong."""
    import json

    from cxrkeras.data.doctor import examine_folder

    with _counter("opening images") as progress:
        found = examine_folder(data, is_opening=open_images, progress=progress)
    if as_json:
        print(json.dumps(found, indent=1))
    else:
        print_examination(console, found)
    if found["errors"]:
        raise typer.Exit(1)


@app.command()
def records(
    data: Annotated[
        Path, typer.Option(help="The NIH release, or a folder with a CSV of image, patient and labels.")
    ] = Path("data/nih"),
    name: Annotated[
        Optional[str], typer.Option(help="Folder under records/; by default DATA-SIZE, as in nih-224.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side of the stored images in pixels.")] = 224,
    folds: Annotated[int, typer.Option(help="Cross-validation folds, cut by patient.")] = 5,
    seed: Seed = 0,
    max_skipped: Annotated[
        float, typer.Option(min=0, max=1, help="Share of unreadable images that is not an error yet.")
    ] = 0.01,
) -> None:
    """Convert images to TFRecords, once. An interrupted conversion goes on where it was."""
    _make_records(data, name, size, folds, seed, max_skipped)


def _make_records(
    data: Path, name: str | None, size: int, folds: int, seed: int = 0, max_skipped: float = 0.01
) -> Path:
    from cxrkeras.data.release import read_release

    if name is not None and (name in ("", ".", "..") or "/" in name):
        raise InputError(f"NAME is that of a folder under {RECORDS_ROOT}, without slashes; got {name!r}")
    release = read_release(data, split_seed=seed)
    counts = release.table["split"].value_counts()
    console.print(
        f"{data}: {len(release.table):,} images of {release.table['patient_id'].nunique():,} patients, labels from "
        f"{release.label_file}, split {release.split_name} ({counts['train_val']:,} train_val, {counts['test']:,} test)"
        f"{', synthetic phantoms' if release.is_synthetic else ''}"
    )
    for note in release.notes:
        console.print(f"note: {note}")
    _load_tensorflow()
    from cxrkeras.records.write import write_records

    folder = RECORDS_ROOT / (name or f"{data.resolve().name}-{size}")
    with _resumable(), _counter("converting") as progress:
        summary = write_records(
            release, folder, size=size, num_folds=folds, seed=seed, max_skipped=max_skipped, progress=progress
        )
    console.print(
        f"{'wrote' if summary.is_new else 'already there:'} {summary.num_images:,} records of {size} px in {folder}"
    )
    if len(summary.skipped):
        console.print(f"skipped {len(summary.skipped):,} images that cannot be read, listed in {folder / SKIPPED}:")
        for row in summary.skipped.head(5).itertuples():
            console.print(f"  {row.path}: {row.reason}")
    return folder


@app.command()
def verify(
    name: Annotated[
        Optional[str], typer.Argument(help="A folder under records/ or a path; by default the newest.")
    ] = None,
    data: Annotated[
        Optional[Path], typer.Option(help="The data folder they were made of: compare its fingerprint too.")
    ] = None,
) -> None:
    """Check records against their manifest: checksums, counts, labels, patients and folds. Names what is wrong."""
    from cxrkeras.data.release import read_release

    folder = find_records(name)
    release = read_release(data) if data else None
    _load_tensorflow()
    from cxrkeras.records.verify import verify_records

    with _counter("verifying") as progress:
        manifest = verify_records(folder, progress, release=release)
    count = sum(shard.count for shard in manifest.shards)
    source = f", made of {data} as it is now" if data else ""
    console.print(
        f"{folder} is sound: {count:,} records in {len(manifest.shards)} shards, split {manifest.split_name}{source}"
    )


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
    _train(resolved, name)


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
    from cxrkeras.runs import CROSSVAL
    from cxrkeras.training.crossval import in_process, plan_here, run_sweep, save_ranking, summarise_folds

    with console.status("loading TensorFlow, reading the records"):
        planned = in_process(plan_here, chosen, RUNS_ROOT)
    runs = list(dict.fromkeys(one.folder.parent for one in planned))
    num_done = sum(one.is_done for one in planned)
    console.print(f"{len(planned)} trainings, {num_done} of them done, in {', '.join(str(run) for run in runs)}")
    with _resumable(), _bar() as progress:
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
    if len(runs) == 1:
        print_folds(console, summarise_folds(runs[0]), runs[0].name)
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

    if not name:
        raise InputError("which experiment? Give EXPERIMENT=<a file under experiments/, without .toml>")
    print(format_experiment(load_experiment(name, overrides=set_)), end="")


@app.command()
def augmentation(
    experiment: ExperimentFile = None,
    records: Records = None,
    set_: Settings = "",
    out: Annotated[Path, typer.Option(help="The picture to write.")] = Path("augmentation.png"),
) -> None:
    """Draw training images before and after augmentation, eight ways each, to look at."""
    from cxrkeras.config import load_experiment

    # The network does not matter here, but the settings have one.
    settings = {"model": {} if experiment else {"name": "resnet18"}}
    resolved = load_experiment(experiment, settings=settings, overrides=set_)
    folder = find_records(records or resolved.data.records)
    _load_tensorflow()
    from cxrkeras.training.examples import plot_augmentation

    plot_augmentation(resolved, folder).savefig(out)
    console.print(f"saved {out}")


def _train(resolved, name: str) -> Path:
    _load_tensorflow()
    from cxrkeras.training.fit import Monitor, train_fold

    with _resumable(), _bar() as progress:
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
def gradcam(
    images: Annotated[Optional[list[Path]], typer.Argument(help="PNG or JPEG files of any size.")] = None,
    run: Annotated[
        Optional[str], typer.Option(help="A run or one of its folds; by default the newest finished.")
    ] = None,
    label: Annotated[Optional[str], typer.Option(help="One of the 15 labels, or all; by default the top four.")] = None,
) -> None:
    """Show where the network looked: heat maps over an X-ray, saved as PNG in the run folder."""
    if not images:
        raise InputError("which image? Give IMG=<a PNG or JPEG file>")
    folder = find_fold(run)
    _load_tensorflow()
    from cxrkeras.explain.sheet import build_sheets, check_label

    check_label(label)
    console.print(f"explaining with {folder}")
    draw = build_sheets(folder)
    skipped = []
    for path in images:
        try:
            sheet = draw(path, label)
        except InputError as error:
            skipped.append(str(error))
            continue
        console.print(f"{path}: {', '.join(f'{name} {sheet.probs[name]:.2f}' for name in sheet.shown)}")
        for warning in sheet.warnings:
            console.print(f"  {warning}")
        console.print(f"  saved {sheet.path}")
    if len(skipped) == len(images):
        raise InputError("; ".join(skipped))
    for reason in skipped:
        console.print(f"skipped {reason}")


@app.command()
def demo() -> None:
    """Go the whole way on synthetic phantoms: draw, convert, train, score, explain. Under ten minutes on two cores."""
    from cxrkeras.config import load_experiment
    from cxrkeras.data.phantom import write_phantoms

    console.rule("1 of 4: synthetic phantoms")
    with _counter("drawing phantoms") as progress:
        write_phantoms(DEMO_DATA, num_images=DEMO_IMAGES, size=DEMO_PIXELS, progress=progress)
    console.rule("2 of 4: records")
    _make_records(DEMO_DATA, DEMO_RECORDS, DEMO_SIZE, folds=5)
    console.rule("3 of 4: training resnet18")
    folder = _train(load_experiment("phantom", settings={"data": {"records": DEMO_RECORDS}}), "phantom")
    console.rule("4 of 4: Grad-CAM")
    import pandas as pd

    from cxrkeras.explain.sheet import build_sheets
    from cxrkeras.labels import FINDINGS

    test = pd.read_csv(folder / predictions_file("test"), dtype={"image_id": str})
    truth = test[list(FINDINGS)].to_numpy()
    logits = test[[f"logit_{label}" for label in FINDINGS]].to_numpy()
    # Of the test images with two findings, the one whose less certain finding the network is surest of.
    sureness = (logits + 1e9 * (1 - truth)).min(axis=1) - 1e9 * (truth.sum(axis=1) != 2)
    chosen = sureness.argmax()
    image = DEMO_DATA / "images" / test["image_id"][chosen]
    true = [label for label in FINDINGS if test[label][chosen]]
    sheet = build_sheets(folder)(image)
    console.print(f"{image} was drawn with {' and '.join(true)};")
    console.print("of the test images with two findings it is the one on which the network is surest of both")
    console.print(f"saved {sheet.path}")
    console.rule("done")
    console.print(
        f"images       {DEMO_DATA}\n"
        f"records      {RECORDS_ROOT / DEMO_RECORDS}\n"
        f"network      {folder / MODEL}\n"
        f"predictions  {folder / predictions_file('test')}\n"
        f"curves       {folder / TENSORBOARD}\n"
        f"heat maps    {sheet.path}\n\n"
        "All of it is made of synthetic phantoms: this network knows nothing about patients. Next:\n"
        f"  make gradcam IMG={image} LABEL=all\n"
        "  make tensorboard\n"
        "  make records DATA=<folder of the NIH release>"
    )


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


if __name__ == "__main__":
    main()
