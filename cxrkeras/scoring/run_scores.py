"""Scores of runs over folds: mean and standard deviation (SD), the mean of the findings, the ranking."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxrkeras.files import write_text
from cxrkeras.scoring.evaluation import MEAN
from cxrkeras.scoring.run import Run
from cxrkeras.scoring.run_files import CROSSVAL, CROSSVAL_EPOCHS, SCORED_SETS, TEST_SET, VALIDATION


def stack_aucs(run: Run, set_name: str) -> np.ndarray:
    """Stack the AUCs of all folds and labels, float64 (F, L), NaN where undefined."""
    return np.stack([fold.aucs[set_name] for fold in run.folds])


def count_collapsed(run: Run, set_name: str) -> Counter[str]:
    """Count the folds in which the network has collapsed, by label; an ensemble over folds counts if a member has."""
    return Counter(label for fold in run.folds for label in fold.list_collapsed(set_name))


def average_findings(runs: Sequence[Run], set_name: str) -> tuple[list[np.ndarray], int]:
    """Average AUCs over the findings that are defined in all folds of all runs.

    Returns the mean AUC of each fold of each run, and the number of these findings.
    """
    aucs = [stack_aucs(run, set_name)[:, run.labels.finding_columns] for run in runs]
    common = np.isfinite(np.concatenate(aucs)).all(axis=0)
    means = [values[:, common].mean(axis=1) if common.any() else np.full(len(values), np.nan) for values in aucs]
    return means, int(common.sum())


def rank_runs(runs: Sequence[Run]) -> list[Run]:
    """Rank runs by their mean validation AUC, the best first; the test set plays no role."""
    means, _ = average_findings(runs, VALIDATION)
    order = sorted(range(len(runs)), key=lambda k: (np.isnan(means[k].mean()), -means[k].mean()))
    return [runs[k] for k in order]


def spread_of(values: np.ndarray) -> dict[str, Any]:
    """Compute mean and sample SD (NaN for a single value) of the defined values, and their number."""
    values = values[np.isfinite(values)]
    return {
        "mean": values.mean() if len(values) else np.nan,
        "std": values.std(ddof=1) if len(values) > 1 else np.nan,
        "folds": len(values),
    }


def count_images(run: Run, set_name: str) -> dict[str, int]:
    """Count the images and patients of a set; for validation, over all folds."""
    folds = run.folds if set_name == VALIDATION else run.folds[:1]
    return {name: sum(getattr(fold.metrics.sets[set_name], name) for fold in folds) for name in ("images", "patients")}


def tabulate_runs(runs: Sequence[Run]) -> pd.DataFrame:
    """Tabulate the AUCs of runs: one row per run, set and label, the mean of findings first.

    Columns: mean, std (sample SD), folds, findings; `collapsed` counts the AUCs set to 0.5 because a network collapsed.
    """
    rows = []
    for set_name in SCORED_SETS:
        means, num_findings = average_findings(runs, set_name)
        for run, mean in zip(runs, means, strict=True):
            facts = {"run": run.name, "part": set_name, "split_name": run.split_name, **count_images(run, set_name)}
            collapsed, aucs = count_collapsed(run, set_name), stack_aucs(run, set_name)
            of_findings = sum(collapsed[label] for label in run.labels.findings)
            rows.append(facts | {"label": MEAN, **spread_of(mean), "findings": num_findings, "collapsed": of_findings})
            for k, label in enumerate(run.labels):
                rows.append(facts | {"label": label, **spread_of(aucs[:, k]), "collapsed": collapsed[label]})
    return pd.DataFrame(rows)


def save_summary(run: Run) -> pd.DataFrame:
    """Write the scores over the finished folds of a run, and return them.

    `crossval.csv` has one row per set and label, for the kept epochs, with the mean over the findings that are defined
    in every fold first; `crossval_epochs.csv` one per epoch and column of the history. The standard deviation is the
    sample SD, blank for a single fold. `collapsed` counts the AUCs set to 0.5 because a network collapsed.
    """
    table = tabulate_runs([run]).rename(columns={"mean": "auc_mean", "std": "auc_std"})
    columns = ["part", "label", "auc_mean", "auc_std", "folds", "collapsed", "images", "patients", "split_name"]
    table = table[columns]
    write_text(run.folder / CROSSVAL, table.to_csv(index=False))
    histories = pd.concat([fold.load_history() for fold in run.folds]).astype({"epoch": int})
    epochs = histories.melt("epoch", var_name="column").groupby(["epoch", "column"], sort=False)["value"]
    epochs = epochs.agg(["mean", "std", "count"]).reset_index().rename(columns={"count": "folds"})
    write_text(run.folder / CROSSVAL_EPOCHS, epochs.to_csv(index=False))
    return table


def tabulate_ranking(runs: Sequence[Run]) -> pd.DataFrame:
    """Tabulate runs, one row per run in the order of `rank_runs`.

    Columns: run, folds; for validation and test the mean AUC and its SD over folds, over the `findings` that are
    defined in all folds of all runs, `of_findings`, `collapsed` labels; images, patients and split of test;
    images_per_second of the median epoch; peak_memory_mb, the maximum over folds.
    """
    runs = rank_runs(runs)
    averages = {set_name: average_findings(runs, set_name) for set_name in SCORED_SETS}
    rows = []
    for k, run in enumerate(runs):
        row = {"run": run.name, "folds": len(run.folds)}
        for set_name, (means, num_findings) in averages.items():
            spread = spread_of(means[k])
            row |= {f"{set_name}_auc": spread["mean"], f"{set_name}_auc_std": spread["std"]}
            row[f"{set_name}_findings"] = num_findings
        row["of_findings"] = len(run.labels.findings)
        row |= {f"test_{name}": count for name, count in count_images(run, TEST_SET).items()}
        row["test_split_name"] = run.split_name
        row["collapsed"] = len(count_collapsed(run, VALIDATION) | count_collapsed(run, TEST_SET))
        rates = [fold.load_history(["images per second"])["images per second"].median() for fold in run.folds]
        row["images_per_second"] = sum(rates) / len(rates)
        memories = [fold.metrics.peak_memory_mb for fold in run.folds]
        row["peak_memory_mb"] = max(filter(None, memories), default=None)
        rows.append(row)
    return pd.DataFrame(rows)
