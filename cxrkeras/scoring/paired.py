"""Paired differences between runs on the same test images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cxrkeras.errors import InputError
from cxrkeras.scoring.evaluation import MEAN
from cxrkeras.scoring.intervals import (
    REPLICATES,
    Interval,
    adjust_p_values,
    average_replicates,
    bootstrap_scores,
    compute_interval,
    compute_p_value,
)
from cxrkeras.scoring.run import Run
from cxrkeras.scoring.run_files import TEST_SET, VALIDATION
from cxrkeras.scoring.run_scores import stack_aucs
from cxrkeras.text import num_of

_MEANING = ("blank", "readers")  # settings of a source that decide what its labels mean
_SAME = ("records_fingerprint", "folds", "labels")  # in all folds of a run


def check_folds(run: Run) -> None:
    """Check that the folds of a run can be averaged. Raises InputError if data, splits, labels or test sets differ."""
    first = run.folds[0]
    for fold in run.folds[1:]:
        if fold.metrics.split_name != first.metrics.split_name:
            splits = sorted({fold.metrics.split_name, first.metrics.split_name})
            raise InputError(
                f"the folds of {run.name} are on two splits, {' and '.join(splits)}: they cannot be averaged"
            )
        if any(getattr(fold.config, key) != getattr(first.config, key) for key in _SAME):
            raise InputError(
                f"{fold.folder} and {first.folder} were trained on other data, labels or folds: they cannot be averaged"
            )
        of_fold, of_first = fold.predictions[TEST_SET], first.predictions[TEST_SET]
        try:
            of_fold.align(of_first)
        except InputError as error:
            raise InputError(
                f"{fold.folder} and {first.folder} were scored on different test sets, {error}: delete the "
                "metrics.json of the wrong fold, and the same `cxrkeras train` scores it again"
            ) from None


def check_comparable(runs: Sequence[Run]) -> None:
    """Check that runs were scored on the same images and labels. Raises InputError that says what differs."""
    first = runs[0]
    for other in runs[1:]:
        have_sources = other.folds[0].config.sources and first.folds[0].config.sources  # early runs have none
        if have_sources and (own := _list_readings(other)) != (wanted := _list_readings(first)):
            raise InputError(
                f"{first.name} and {other.name} were trained on data that were read in other ways, {wanted} and {own}: "
                "their labels do not mean the same and cannot stand in one table"
            )
        if other.split_name != first.split_name:
            raise InputError(
                f"{first.name} is on split {first.split_name} and {other.name} on {other.split_name}: their scores are "
                "on different patients and cannot stand in one table"
            )
        if other.labels.names != first.labels.names:
            is_same = set(other.labels) == set(first.labels)
            raise InputError(
                f"{first.name} has the labels {first.labels.describe()} and {other.name} {other.labels.describe()}: "
                f"compare runs of the same labels{' in the same order' if is_same else ''}"
            )
        if other.labels != first.labels:
            raise InputError(
                f"the label that means no finding is {first.labels.no_finding} for {first.name} and "
                f"{other.labels.no_finding} for {other.name}: compare runs whose findings are the same"
            )
        _check_test(first, other)
        _check_validation(first, other)


def _list_readings(run: Run) -> str:
    """How the labels of a run's data were read, as `chexpert blank=absent`; blank where the set leaves nothing open."""
    settings = [(source["kind"], source["settings"]) for source in run.folds[0].config.sources]
    return ", ".join(
        f"{kind} {key}={value}" for kind, of_kind in settings for key, value in of_kind.items() if key in _MEANING
    )


def _check_test(first: Run, other: Run) -> None:
    of_first, of_other = first.folds[0].predictions[TEST_SET], other.folds[0].predictions[TEST_SET]
    try:
        of_first.align(of_other)
    except InputError as error:
        raise InputError(
            f"{first.name} and {other.name} were scored on different test sets of split {first.split_name}, {error}: "
            "train both on the same records"
        ) from None


def _check_validation(first: Run, other: Run) -> None:
    own, wanted = other.folds[0].division, first.folds[0].division
    if (own.count, own.seed) != (wanted.count, wanted.seed):
        raise InputError(
            f"{first.name} and {other.name} have other folds ({wanted.count} with seed {wanted.seed}, and "
            f"{own.count} with seed {own.seed}): their validation patients differ, and ranking needs the same"
        )
    held_out = [_list_held_out(run) for run in (first, other)]
    if held_out[0] != held_out[1]:
        folds = [", ".join(str(fold.metrics.fold) for fold in run.folds) for run in (first, other)]
        raise InputError(
            f"{first.name} was validated on {num_of(len(held_out[0]), 'image')} (fold {folds[0]}) and {other.name} on "
            f"{len(held_out[1]):,} others (fold {folds[1]}): ranking needs the same; name the folds that both have, as "
            f"{first.name.partition('/')[0]}/fold0, or train the missing folds with `cxrkeras cv`"
        )


def _list_held_out(run: Run) -> set[str]:
    return {image for fold in run.folds for image in fold.predictions[VALIDATION].image_ids}


def sample_replicates(run: Run, replicates: int = REPLICATES, seed: int = 0) -> np.ndarray:
    """Compute AUCs on bootstrap replicates of the test images, (R, L), averaged over folds; paired between runs."""
    replicas = []
    for fold in run.folds:
        test = fold.predictions[TEST_SET].flatten()
        test = test.take(np.argsort(test.image_ids))
        replicas.append(
            bootstrap_scores(test.truth, test.logits, test.patient_ids, replicates=replicates, seed=seed).auc
        )
    mean: np.ndarray = np.mean(replicas, axis=0)
    return mean


def average_folds(run: Run) -> np.ndarray:
    """Compute the mean test AUC of each label over folds, (L,); NaN where it is undefined in a fold."""
    mean: np.ndarray = stack_aucs(run, TEST_SET).mean(axis=0)
    return mean


def tabulate_differences(best: Run, other: Run, of_best: np.ndarray, of_other: np.ndarray) -> pd.DataFrame:
    """Tabulate the differences in test AUC, `other` minus `best`, each averaged over its folds.

    of_best, of_other: their `sample_replicates`. Returns one row per label, the mean of findings first: difference,
    low, high (95 % bootstrap interval), p_value.
    """
    differences, point = of_other - of_best, average_folds(other) - average_folds(best)
    columns = best.labels.finding_columns
    defined = np.isfinite(point[columns])
    mean = average_replicates(differences[:, columns], point[columns])
    entries = [(MEAN, point[columns][defined].mean() if defined.any() else np.nan, mean)]
    entries += [(label, point[k], differences[:, k]) for k, label in enumerate(best.labels)]
    rows = []
    for label, value, replicas in entries:
        interval = compute_interval(replicas) if np.isfinite(value) else Interval(np.nan, np.nan, 0)
        p_value = compute_p_value(replicas) if np.isfinite(value) else np.nan
        rows.append(
            {"label": label, "difference": value, "low": interval.low, "high": interval.high, "p_value": p_value}
        )
    test = best.folds[0].predictions[TEST_SET]
    facts = {"split_name": best.split_name, "images": len(test), "patients": test.num_patients}
    return pd.DataFrame(rows).assign(run=other.name, compared_with=best.name, **facts)


def compare_with_best(runs: Sequence[Run], replicates: dict[str, np.ndarray]) -> pd.DataFrame:
    """Tabulate the differences of each run from the first; p-values are adjusted for the number of runs (Holm)."""
    first, *others = runs
    tables = [tabulate_differences(first, run, replicates[first.name], replicates[run.name]) for run in others]
    table = pd.concat(tables, ignore_index=True)
    for label in table["label"].unique():
        rows = table["label"] == label
        table.loc[rows, "p_value_adjusted"] = adjust_p_values(table.loc[rows, "p_value"].to_numpy())
    return table


def find_best(runs: Sequence[Run], replicates: dict[str, np.ndarray]) -> dict[str, str]:
    """Find, for each label and the mean of the findings, the run that is significantly better on test than all others.

    The 95 % interval of each paired difference excludes zero. Labels without such a run are left out.
    """
    labels = runs[0].labels
    points = {run.name: average_folds(run) for run in runs}
    defined = np.isfinite(np.stack(list(points.values()))).all(axis=0)
    entries = [(MEAN, [k for k in labels.finding_columns if defined[k]]), *((n, [k]) for k, n in enumerate(labels))]
    found = {}
    for label, places in entries:
        if not places or not defined[places].all():
            continue
        best = max(points, key=lambda name: points[name][places].mean())
        differences = (
            average_replicates(
                replicates[best][:, places] - replicates[other][:, places],
                points[best][places] - points[other][places],
            )
            for other in points
            if other != best
        )
        if all(compute_interval(replicas).low > 0 for replicas in differences):
            found[label] = best
    return found
