"""Measure whether calibration and thresholds of ensembles hold: `python -m benchmarks.ensembles`, two minutes.

The truth of fifteen labels is drawn from known probabilities, and networks see these through noise, some of it common
to all of them, some their own. Five networks of one fold, and one of each of five folds, become ensembles as runs do.
The threshold of each label keeps a sensitivity of 0.9 on validation. The table is saved in `benchmarks/README.md`. With
`--run <run folder>` the same is measured on the test set of a run whose folds are trained, in a copy.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.special import expit

from benchmarks.table import Tables
from cxrkeras.config import CONFIG, dump_experiment, load_experiment
from cxrkeras.labels import NIH
from cxrkeras.scoring.calibration import calibration_error, least_calibration_error
from cxrkeras.scoring.ensemble import average_logits, build_ensemble
from cxrkeras.scoring.operating_points import OperatingPoints, build_origin, fit_operating_points, refit
from cxrkeras.scoring.predictions import Predictions, save_predictions
from cxrkeras.scoring.run import Fold, open_run
from cxrkeras.scoring.run_files import METRICS, TEST_SET, VALIDATION, predictions_file
from cxrkeras.scoring.scores import describe_scores

MEMBERS, IMAGES, DRAWS, SENSITIVITY = 5, 4000, 4, 0.9
NOISES = {"alike": (1.0, 0.4), "different": (0.7, 1.2)}  # SD in logits: common to all networks, and each network's own
SCALE, OFFSET = 1.7, 0.8  # of all networks' logits, which are overconfident and too high


class Images:
    """Images of a set: truth drawn from known probabilities, and what networks see of them."""

    def __init__(self, prefix: str, rng: np.random.Generator, noise: tuple[float, float]):
        self.ids = np.array([f"{prefix}{number}" for number in range(IMAGES)])
        state = rng.normal(-1.5, 1.5, (IMAGES, len(NIH)))
        self.values = (rng.random(state.shape) < expit(state)).astype(np.int8)
        self.seen = state + rng.normal(0, noise[0], state.shape)
        self.rng, self.own = rng, noise[1]

    def predict(self) -> Predictions:
        """The predictions of another network, with one patient per image."""
        logits = SCALE * (self.seen + self.rng.normal(0, self.own, self.seen.shape)) + OFFSET
        return Predictions(self.ids, self.ids, self.values, logits, NIH)


def write_fold(folder: Path, number: int, sets: dict[str, Predictions]) -> Fold:
    """Write the files of a fold that ensembles read, as training does, and open it."""
    folder.mkdir(parents=True)
    facts = {"split_name": "simulated", "is_synthetic": True}
    metrics = facts | {"run": folder.parent.name, "fold": number, "best_epoch": 1, "records": "none"}
    metrics["is_partial"] = False
    config = facts | {
        "name": "simulated",
        "experiment": dump_experiment(load_experiment(settings={"model": {"name": "resnet18"}})),
        "records_fingerprint": "simulated",
        "folds": {"count": MEMBERS, "seed": 0},
        "labels": NIH.names,
        "no_finding": NIH.no_finding,
        "versions": {},
        "parts": {},
    }
    for name, predictions in sets.items():
        metrics[name] = describe_scores(save_predictions(folder / predictions_file(name), predictions))
        config["parts"][name] = {"images": len(predictions), "patients": predictions.num_patients}
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / METRICS).write_text(json.dumps(metrics))
    fold = Fold(folder)
    refit(fold, sensitivity=SENSITIVITY)
    return fold


def judge(predictions: Predictions, points: OperatingPoints) -> np.ndarray:
    """Sensitivity, calibration error and the least possible error of each label, (3, L); NaN without a threshold."""
    truth, names = predictions.truth, predictions.labels.names
    probs, thresholds = points.calibration.apply(predictions.logits, names), points.thresholds.array(names)
    found, positive = probs >= thresholds, truth == 1
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = (found & positive).sum(axis=0) / positive.sum(axis=0)
    sensitivity[~np.isfinite(thresholds)] = np.nan
    return np.stack([sensitivity, calibration_error(truth, probs), least_calibration_error(truth, probs)])


def judge_fold(fold: Fold) -> np.ndarray:
    return judge(fold.predictions[TEST_SET], fold.operating_points)


def judge_pooled(folds: list[Fold]) -> np.ndarray:
    """Mean logits of all folds, calibrated by a fit to the pooled validation logits of single networks.

    That is what the package does not do: no image was held out by all the networks whose mean is calibrated.
    """
    held_out = [fold.predictions[VALIDATION] for fold in folds]
    columns = ("image_ids", "patient_ids", "values", "logits")
    pooled = Predictions(
        *(np.concatenate([getattr(predictions, column) for predictions in held_out]) for column in columns),
        folds[0].labels,
    )
    test = folds[0].predictions[TEST_SET]
    mean = average_logits([fold.predictions[TEST_SET].align(test).logits for fold in folds], "logits")
    fitted_on = build_origin(pooled, folds[0].metrics.split_name, None)
    points = fit_operating_points(pooled, fitted_on, sensitivity=SENSITIVITY)
    return judge(replace(test, logits=mean), points)


def measure_folds(folds: list[Fold], root: Path) -> dict[str, np.ndarray]:
    """What single networks of all folds, their ensemble, and their mean with pooled fits achieve."""
    for fold in folds:
        refit(fold, sensitivity=SENSITIVITY)
    return {
        "one network": np.mean([judge_fold(fold) for fold in folds], axis=0),
        "ensemble over folds": judge_fold(build_ensemble(folds, root=root)),
        "mean over folds, fitted to its members": judge_pooled(folds),
    }


def simulate(noise: tuple[float, float], seed: int, root: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    test, *held_out = (Images(f"{name}-", rng, noise) for name in (TEST_SET, *range(MEMBERS)))
    shared = [
        write_fold(root / f"run{number}/fold0", 0, {VALIDATION: held_out[0].predict(), TEST_SET: test.predict()})
        for number in range(MEMBERS)
    ]
    folds = [
        write_fold(root / f"cv/fold{number}", number, {VALIDATION: images.predict(), TEST_SET: test.predict()})
        for number, images in enumerate(held_out)
    ]
    ensemble = build_ensemble(shared, root=root)
    refit(ensemble, sensitivity=SENSITIVITY)
    measured = measure_folds(folds, root)
    return {"one network": measured.pop("one network"), "ensemble of one fold": judge_fold(ensemble)} | measured


def tabulate(kind: str, draws: list[dict[str, np.ndarray]]) -> list[tuple[str, ...]]:
    rows = []
    for name in draws[0]:
        sensitivity, error, least = np.concatenate([draw[name] for draw in draws], axis=1)
        counted = sensitivity[np.isfinite(sensitivity)]
        standard_error = counted.std(ddof=1) / np.sqrt(len(counted))
        reached = f"{counted.mean():.3f} ({standard_error:.3f})"
        rows.append(
            (kind, name, reached, f"{error.mean():.4f}", f"{least.mean():.4f}", f"{(error / least).mean():.1f}")
        )
    return rows


COLUMNS = ["networks", "scored", "sensitivity (standard error)", "calibration error", "error if exact", "ratio"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="a run with all its folds, instead of the simulation")
    arguments = parser.parse_args()
    of_run = arguments.run is not None
    tables = Tables(
        "Ensembles of trained networks" if of_run else "Ensembles",
        "python -m benchmarks.ensembles" + " --run <run folder>" * of_run,
    )
    with tempfile.TemporaryDirectory() as folder:
        if of_run:
            run = open_run(arguments.run)
            copies = [Path(folder) / "run" / fold.folder.name for fold in run.folds]
            folds = [Fold(shutil.copytree(fold.folder, copy)) for fold, copy in zip(run.folds, copies, strict=True)]
            rows = tabulate(run.name, [measure_folds(folds, Path(folder))])
            config = folds[0].config
            model, counts = folds[0].experiment.model, config.parts
            data = "synthetic phantoms" if config.is_synthetic else f"split {config.split_name}"
            title = (
                f"{len(folds)} folds of {model.name} at {model.size} px, {data}: each trained on about "
                f"{counts['training'].images:,} images, validated on {counts[VALIDATION].images:,} and tested on "
                f"{counts[TEST_SET].images:,}, a sensitivity of {SENSITIVITY} wanted"
            )
        else:
            rows = []
            for kind, noise in NOISES.items():
                draws = [simulate(noise, seed, Path(folder) / f"{kind}{seed}") for seed in range(DRAWS)]
                rows += tabulate(kind, draws)
            title = (
                f"{MEMBERS} simulated networks, {IMAGES:,} images each in the validation and the test set, {len(NIH)} "
                f"labels, {DRAWS} draws, a sensitivity of {SENSITIVITY} wanted"
            )
    tables.add(title, COLUMNS, rows)
    tables.save()


if __name__ == "__main__":
    main()
