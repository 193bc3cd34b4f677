"""Many trainings, one after the other, each in a process of its own, and what came out of them side by side."""

import hashlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path

import pandas as pd

from cxrkeras import labels
from cxrkeras.config import Experiment
from cxrkeras.errors import InputError
from cxrkeras.files import load_json, write_text
from cxrkeras.scoring.find_runs import CROSSVAL, CROSSVAL_EPOCHS, HISTORY, METRICS, RUNS_ROOT
from cxrkeras.scoring.notes import COLLAPSED
from cxrkeras.tensorflow_import import import_tensorflow


@dataclass(frozen=True)
class Planned:
    """One fold of one experiment: where it will be, how many epochs it has, whether it is done."""

    name: str
    experiment: Experiment
    folder: Path
    epochs: int
    is_done: bool


def plan_sweep(experiments: dict[str, Experiment], root: Path = RUNS_ROOT) -> list[Planned]:
    """All folds of all experiments, by name, in the order they will be trained. Raises InputError as training would.

    Experiments on different data, splits or folds cannot be compared and are refused.
    """
    from cxrkeras.training.resolve import name_run, resolve_experiment

    planned, first = [], None
    for name, experiment in experiments.items():
        resolved, records, manifest = resolve_experiment(experiment)
        cut = (manifest.split_name, manifest.num_folds, manifest.fold_seed)
        first = first or (name, records, cut)
        if cut != first[2]:
            raise InputError(
                f"{name} is on {records}, split {cut[0]} with {cut[1]} folds of seed {cut[2]}, and {first[0]} on "
                f"{first[1]}, split {first[2][0]} with {first[2][1]} folds of seed {first[2][2]}: their scores cannot "
                "be compared"
            )
        run = root / name_run(name, resolved, manifest)
        for fold in range(manifest.num_folds):
            data = resolved.data.model_copy(update={"fold": fold})
            folder = run / f"fold{fold}"
            one = resolved.model_copy(update={"data": data})
            planned.append(Planned(name, one, folder, resolved.training.epochs, (folder / METRICS).is_file()))
    return planned


def in_process(function: Callable, *arguments, tell: Callable[[tuple], None] = lambda message: None):
    """Call a function of a module in a fresh process and return its result; what it tells arrives as tuples.

    `function` gets `arguments` and a function that tells. An InputError or KeyboardInterrupt there is raised here,
    and memory is given back whole. Raises InputError if the process is killed.
    """
    context = multiprocessing.get_context("spawn")
    messages = context.SimpleQueue()
    process = context.Process(target=_work, args=(function, arguments, messages), daemon=True)
    process.start()
    is_interrupted = False
    while True:
        try:
            wait([messages._reader, process.sentinel])
            if messages.empty():
                process.join()
                code = process.exitcode
                if is_interrupted:
                    raise KeyboardInterrupt
                raise InputError(
                    f"the training process ended with {code}"
                    + (": killed, probably for want of memory; try a smaller training.batch_size" if code == -9 else "")
                )
            kind, content = messages.get()
            if kind == "told":
                tell(content)
                continue
        except KeyboardInterrupt:
            if is_interrupted:
                raise
            is_interrupted = True  # the process saves, and says that it is done
            process.terminate()
            continue
        process.join()
        if kind == "result":
            return content
        raise content


def _work(function: Callable, arguments: tuple, messages) -> None:
    os.setsid()  # Ctrl-C reaches the parent alone, which passes it on as one SIGTERM

    def follow_parent():
        wait([multiprocessing.parent_process().sentinel])
        os._exit(1)

    threading.Thread(target=follow_parent, daemon=True).start()
    try:
        import_tensorflow()
        messages.put(("result", function(*arguments, lambda *message: messages.put(("told", message)))))
    except (InputError, OSError, KeyboardInterrupt) as error:
        messages.put(("error", error))


def plan_here(experiments: dict[str, Experiment], root: Path, tell: Callable) -> list[Planned]:
    """`plan_sweep` for `in_process`."""
    return plan_sweep(experiments, root)


def train_here(planned: Planned, root: Path, tell: Callable) -> None:
    """Train one fold and tell its steps and sentences, for `in_process`."""
    from cxrkeras.training.fit import Monitor, train_fold

    told_at, untold = 0.0, 0

    def advance(count: int) -> None:
        nonlocal told_at, untold
        untold += count
        if time.monotonic() - told_at > 0.2:
            tell("advance", untold)
            told_at, untold = time.monotonic(), 0

    def start(phase: str, total: int) -> None:
        nonlocal untold
        untold = 0
        tell("start", phase, total)

    monitor = Monitor(start, advance, lambda sentence: tell("say", sentence), lambda done: tell("epoch", done))
    train_fold(planned.experiment, name=planned.name, root=root, monitor=monitor)


def run_sweep(
    planned: list[Planned], root: Path, tell: Callable[[tuple], None], finished: Callable[[Planned], None]
) -> None:
    """Train what is not done yet, each in a process of its own; `finished` is called after each."""
    for one in planned:
        if not one.is_done:
            tell(("next", f"{one.name}, fold {one.experiment.data.fold}"))
            in_process(train_here, one, root, tell=tell)
            finished(one)


def _read_aucs(folders: list[Path]) -> pd.DataFrame:
    """AUC by run, part, label and fold, NaN where it is not defined, and whether the network has collapsed there."""
    rows = []
    for folder in folders:
        metrics = load_json(folder / METRICS, ("validation", "test"))
        for part in ("validation", "test"):
            for row in metrics[part]["labels"]:
                has_collapsed = row["note"] == COLLAPSED
                rows.append((folder.parent.name, part, row["label"], folder.name, row["auc"], has_collapsed))
    return pd.DataFrame(rows, columns=["run", "part", "label", "fold", "auc", "collapsed"]).astype({"auc": float})


def _count_images(folders: list[Path]) -> pd.DataFrame:
    """By part the split's name and how many images and patients: of validation those of all folds together."""
    metrics = [load_json(folder / METRICS, ("validation", "test", "split_name")) for folder in folders]
    counts = {"validation": metrics, "test": metrics[:1]}
    rows = {
        part: {name: sum(one[part][name] for one in counted) for name in ("images", "patients")}
        for part, counted in counts.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index").assign(split_name=metrics[0]["split_name"])


def _average_findings(aucs: pd.DataFrame) -> pd.DataFrame:
    """Mean AUC by run, part and fold, over those findings that are defined in all of them; how many, and collapsed."""
    aucs = aucs[aucs["label"].isin(labels.FINDINGS)]
    is_whole = aucs.groupby(["part", "label"])["auc"].transform(lambda column: column.notna().all())
    grouped = aucs[is_whole].groupby(["run", "part", "fold"], sort=False)
    averages = {"auc": ("auc", "mean"), "findings": ("auc", "count"), "collapsed": ("collapsed", "sum")}
    return grouped.agg(**averages).reset_index()


def summarise_folds(run: Path) -> pd.DataFrame:
    """Write what the finished folds of a run have in common, and return it: mean and deviation over folds.

    `crossval.csv` has a row for each part and label, of the kept epochs, with the mean over those findings that are
    defined in every fold first; `crossval_epochs.csv` one for each epoch and column of the history. The deviation is
    that of a sample; of a single fold it is empty. `collapsed` counts the AUCs that are 0.5 as a network has collapsed.
    """
    folders = sorted(path.parent for path in run.glob(f"fold*/{METRICS}"))
    aucs = _read_aucs(folders)
    means = _average_findings(aucs).assign(label="mean of findings")
    summary = pd.concat([means, aucs]).groupby(["part", "label"], sort=False)
    scores = {f"auc_{name}": ("auc", name) for name in ("mean", "std")}
    summary = summary.agg(**scores, folds=("auc", "count"), collapsed=("collapsed", "sum")).reset_index()
    summary = summary.join(_count_images(folders), on="part")
    write_text(run / CROSSVAL, summary.to_csv(index=False))
    histories = pd.concat([pd.read_csv(folder / HISTORY) for folder in folders])
    epochs = histories.melt("epoch", var_name="column").groupby(["epoch", "column"], sort=False)["value"]
    epochs = epochs.agg(["mean", "std", "count"]).reset_index().rename(columns={"count": "folds"})
    write_text(run / CROSSVAL_EPOCHS, epochs.to_csv(index=False))
    return summary


def rank_runs(planned: list[Planned]) -> pd.DataFrame:
    """A row for each run with a finished fold, the best mean validation AUC first, whatever test says.

    Columns: experiment, run, folds (finished), of (planned); then of validation and test the mean AUC and its
    deviation over folds, over the `findings` that are defined in all folds of all runs; images_per_second of the
    median epoch; peak_memory_mb, the most of any fold.
    """
    done = {one.folder: one for one in planned if (one.folder / METRICS).is_file()}
    means = _average_findings(_read_aucs(list(done)))
    rows = []
    for run in dict.fromkeys(folder.parent.name for folder in done):
        mine = means[means["run"] == run]
        folders = [folder for folder in done if folder.parent.name == run]
        row = {"experiment": done[folders[0]].name, "run": run, "folds": len(folders)}
        row["of"] = sum(one.folder.parent.name == run for one in planned)
        for part in ("validation", "test"):
            of_part = mine[mine["part"] == part]
            row |= {f"{part}_auc": of_part["auc"].mean(), f"{part}_auc_std": of_part["auc"].std()}
            row[f"{part}_findings"] = of_part["findings"].max()
        rates = [pd.read_csv(folder / HISTORY)["images per second"].median() for folder in folders]
        row |= {f"test_{name}": value for name, value in _count_images(folders).loc["test"].items()}
        scored = [load_json(folder / METRICS) for folder in folders]
        row["collapsed"] = len({name for one in scored for part in ("validation", "test")
                                for name in one[part].get("collapsed", ())})  # fmt: skip
        row["images_per_second"] = sum(rates) / len(rates)
        memories = [load_json(folder / METRICS).get("peak_memory_mb") for folder in folders]
        row["peak_memory_mb"] = max(filter(None, memories), default=None)
        rows.append(row)
    return pd.DataFrame(rows).sort_values("validation_auc", ascending=False, ignore_index=True)


def save_ranking(planned: list[Planned], root: Path) -> tuple[pd.DataFrame, Path]:
    """Rank the runs and write `<root>/sweep-<8 hex digits of their names>.csv`; the table and its path."""
    ranked = rank_runs(planned)
    names = sorted({one.folder.parent.name for one in planned})
    path = root / f"sweep-{hashlib.sha256(' '.join(names).encode()).hexdigest()[:8]}.csv"
    write_text(path, ranked.to_csv(index=False))
    return ranked, path
