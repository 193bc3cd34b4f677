"""Measure how far off an ensemble over folds is: `python -m benchmarks.ensembles`, five minutes on two cores.

First on simulated labels whose true probability is known, then, where the demo's experiment was trained on all folds
(`make demo`, then `make cv EXPERIMENT=phantom RECORDS=demo`), on phantoms of another seed, which no member has seen.
Beside an ensemble over folds stand its members alone, and on simulated labels an ensemble that shares its validation
images. Every member aims at a sensitivity of 0.9. Nothing of the images that are scored here goes into a rule. The
tables stand in `benchmarks/README.md` afterwards.
"""

import argparse
import os
import tempfile
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from benchmarks.calibration import predict_new
from benchmarks.table import Tables
from cxrkeras.explain.gradcam import load_network
from cxrkeras.runs import MODEL, RUNS_ROOT, find_folds, predictions_file
from cxrkeras.scoring.calibration import calibration_error, least_calibration_error
from cxrkeras.scoring.ensemble import average_logits, calibrate_member, combine_test, combine_validation
from cxrkeras.scoring.operating import fit_operating_points
from cxrkeras.scoring.predictions import Predictions, load_predictions

SENSITIVITY, FOLDS, SIMULATIONS = 0.9, 5, 20
IMAGES = 10_000  # of the test set of a simulation; each fold has a fifth as many
COLUMNS = ("scored", "sensitivity, 0.9 wanted", "slope", "error", "error if exact")


def simulate(rng: np.random.Generator, num_images: int, spread: float, num_networks: int) -> list[Predictions]:
    """The same images seen by networks that each add noise of their own to what decides about the label."""
    state = rng.normal(-1.5, 1.5, num_images)
    truth = (rng.random(num_images) < expit(state)).astype(float)[:, None]
    ids = np.arange(num_images).astype(str)
    noise = rng.normal(0, spread, (num_networks, num_images, 1))
    return [Predictions(ids, ids, truth, 1.7 * (state[:, None] + one) + 0.8, ("label",)) for one in noise]


def judge(test: Predictions, probs: np.ndarray, thresholds: list[float | None]) -> np.ndarray:
    """Means over labels: sensitivity, slope of the truth over the logits, calibration error, error if exact.

    The slope is 1 for right probabilities, above 1 if they are less extreme than the observed shares (Cox, Biometrika
    45, 1958). Labels without a threshold or without both outcomes are left out of the first two.
    """
    reached, slopes = [], []
    for column, threshold in enumerate(thresholds):
        truth, own = test.truth[:, column], probs[:, column]
        if threshold is not None and 0 < truth.sum() < len(truth):
            reached.append((own[truth > 0] >= threshold).mean())
            logits = np.log(own / (1 - own))[:, None]
            slopes.append(LogisticRegression(C=np.inf).fit(logits, truth).coef_.item())
    errors = calibration_error(test.truth, probs), least_calibration_error(probs)
    return np.array([np.mean(reached), np.mean(slopes), *(one.mean() for one in errors)])


def judge_members(validation: list[Predictions], test: list[Predictions]) -> tuple[np.ndarray, np.ndarray]:
    """The mean over members alone, and the ensemble over folds: mean calibrated probabilities, mean thresholds."""
    alone, calibrated, cuts = [], [], []
    for own, new in zip(validation, test, strict=True):
        calibration, thresholds = fit_operating_points(own, {}, sensitivity=SENSITIVITY)
        calibrated.append(calibrate_member(new, calibration))
        cuts.append(list(thresholds.values.values()))
        alone.append(judge(new, expit(calibrated[-1].logits), cuts[-1]))
    means = [None if None in cut else np.mean(cut) for cut in zip(*cuts, strict=True)]
    mean = combine_test(calibrated, "probabilities")
    return np.mean(alone, axis=0), judge(mean, expit(mean.logits), means)


def judge_shared(validation: list[Predictions], test: list[Predictions]) -> np.ndarray:
    """An ensemble whose members share their validation images: calibrated and cut on their mean there."""
    own = combine_validation(validation, "logits")
    own = replace(own, names=validation[0].names)
    calibration, thresholds = fit_operating_points(own, {}, sensitivity=SENSITIVITY)
    mean = average_logits([one.logits for one in test], "logits")
    return judge(test[0], calibration.apply(mean, own.names), list(thresholds.values.values()))


def tabulate(rows: dict[str, np.ndarray]) -> list[tuple[str, ...]]:
    return [(name, f"{row[0]:.3f}", f"{row[1]:.2f}", f"{row[2]:.4f}", f"{row[3]:.4f}") for name, row in rows.items()]


def measure_simulations(spread: float) -> dict[str, np.ndarray]:
    found = []
    for seed in range(SIMULATIONS):
        rng = np.random.default_rng(seed)
        folds = [simulate(rng, IMAGES // FOLDS, spread, FOLDS) for _ in range(FOLDS)]
        test = simulate(rng, IMAGES, spread, FOLDS)
        own = [fold[number] for number, fold in enumerate(folds)]
        found.append([*judge_members(own, test), judge_shared(folds[0], test)])
    names = ("a member alone", "mean over folds", "mean on one fold, fitted there")
    return dict(zip(names, np.mean(found, axis=0), strict=True))


def measure_phantoms(folders: list[Path]) -> tuple[dict[str, np.ndarray], Predictions]:
    with tempfile.TemporaryDirectory() as scratch:
        test = [predict_new(load_network(folder / MODEL), Path(scratch) / "phantoms") for folder in folders]
    validation = [load_predictions(folder / predictions_file("validation")) for folder in folders]
    return dict(zip(("a member alone", "mean over folds"), judge_members(validation, test), strict=True)), test[0]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    tables = Tables("Ensembles over folds", "python -m benchmarks.ensembles")
    for spread in (0.5, 1.0, 2.0):
        title = (
            f"simulated labels, {FOLDS} members whose own noise has {spread:g} times the unit in which the label's "
            f"logit is drawn, {SIMULATIONS} test sets of {IMAGES:,} images"
        )
        tables.add(title, COLUMNS, tabulate(measure_simulations(spread)))
    runs = [run for run in sorted(RUNS_ROOT.glob("phantom-*")) if len(list(run.glob(f"fold*/{MODEL}"))) == FOLDS]
    if runs:
        rows, test = measure_phantoms(find_folds(runs[-1].name))
        title = (
            f"{FOLDS} folds of the demo's experiment, mean over labels, on {len(test.truth):,} phantoms of "
            f"{test.num_patients:,} patients that no member has seen"
        )
        tables.add(title, COLUMNS, tabulate(rows))
    tables.save()


if __name__ == "__main__":
    main()
