"""Measure whether calibration and thresholds of ensembles hold: `python -m benchmarks.ensembles`, two minutes.

The truth of fifteen labels is drawn from known probabilities, and networks see these through noise: some of it common
to all of them, some their own. Five networks of one fold, and one of each of five folds, become ensembles as runs do.
The threshold of each label keeps a sensitivity of 0.9 on validation. The table stands in `benchmarks/README.md`
afterwards. With `--run <run folder>` the same is measured on the test set of a run whose folds are trained, in a copy.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

import numpy as np
from scipy.special import expit

from benchmarks.table import Tables
from cxrkeras.config import CONFIG, dump_experiment, load_experiment
from cxrkeras.files import load_json
from cxrkeras.labels import LABELS
from cxrkeras.scoring.calibration import calibration_error, least_calibration_error
from cxrkeras.scoring.ensemble import average_logits, build_ensemble
from cxrkeras.scoring.find_runs import METRICS, find_folds, predictions_file
from cxrkeras.scoring.operating_points import fit_operating_points, load_operating_points, refit
from cxrkeras.scoring.predictions import Predictions, load_parts, save_predictions
from cxrkeras.scoring.scores import describe_scores

MEMBERS, IMAGES, DRAWS, SENSITIVITY = 5, 4000, 4, 0.9
NOISES = {"alike": (1.0, 0.4), "different": (0.7, 1.2)}  # SD in logits: common to all networks, and each one's own
SCALE, OFFSET = 1.7, 0.8  # of all networks' logits, which are too sure and too high


class Images:
    """Images of a set: truth drawn from known probabilities, and what networks see of them."""

    def __init__(self, prefix: str, rng: np.random.Generator, noise: tuple[float, float]):
        self.ids = np.array([f"{prefix}{number}" for number in range(IMAGES)])
        state = rng.normal(-1.5, 1.5, (IMAGES, len(LABELS)))
        self.truth = (rng.random(state.shape) < expit(state)).astype(float)
        self.seen = state + rng.normal(0, noise[0], state.shape)
        self.rng, self.own = rng, noise[1]

    def predict(self) -> Predictions:
        """The predictions of another network, a patient for each image."""
        logits = SCALE * (self.seen + self.rng.normal(0, self.own, self.seen.shape)) + OFFSET
        return Predictions(self.ids, self.ids, self.truth, logits)


def write_fold(folder: Path, fold: int, parts: dict[str, Predictions]) -> Path:
    """The folder of a fold as training leaves it, as far as ensembles read it."""
    folder.mkdir(parents=True)
    facts = {"split_name": "simulated", "is_synthetic": True}
    metrics = facts | {"run": folder.parent.name, "fold": fold, "best_epoch": 1, "records": "none", "is_partial": False}
    config = facts | {
        "name": "simulated",
        "experiment": dump_experiment(load_experiment(settings={"model": {"name": "resnet18"}})),
        "records_fingerprint": "simulated",
        "folds": {"count": MEMBERS, "seed": 0},
        "labels": LABELS,
        "versions": {},
        "parts": {},
    }
    for part, predictions in parts.items():
        metrics[part] = describe_scores(save_predictions(folder / predictions_file(part), predictions))
        config["parts"][part] = {"images": len(predictions.truth), "patients": predictions.num_patients}
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / METRICS).write_text(json.dumps(metrics))
    refit(folder, sensitivity=SENSITIVITY)
    return folder


def judge(predictions: Predictions, points: tuple) -> np.ndarray:
    """Sensitivity, calibration error and the least possible one of each label, (3, L); NaN without a threshold."""
    calibration, thresholds = points
    probs = calibration.apply(predictions.logits)
    found, positive = probs >= thresholds.array(), predictions.truth > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity = (found & positive).sum(axis=0) / positive.sum(axis=0)
    sensitivity[~np.isfinite(thresholds.array())] = np.nan
    return np.stack([sensitivity, calibration_error(predictions.truth, probs), least_calibration_error(probs)])


def judge_folder(folder: Path) -> np.ndarray:
    return judge(load_parts(folder)["test"], load_operating_points(folder))


def judge_pooled(folders: list[Path]) -> np.ndarray:
    """Mean logits of all folds, with what was fitted to single networks, each on its own fold: what is not done."""
    parts = [load_parts(folder) for folder in folders]
    held_out = [part["validation"] for part in parts]
    pooled = Predictions(
        *(np.concatenate([getattr(one, name) for one in held_out])
          for name in ("image_ids", "patient_ids", "truth", "logits"))
    )  # fmt: skip
    test = parts[0]["test"]
    mean = average_logits([part["test"].align(test).logits for part in parts], "logits")
    together = Predictions(test.image_ids, test.patient_ids, test.truth, mean)
    return judge(together, fit_operating_points(pooled, {}, sensitivity=SENSITIVITY))


def measure_folds(folders: list[Path], root: Path) -> dict[str, np.ndarray]:
    """What single networks of all folds, their ensemble, and their mean with pooled fits come to."""
    for folder in folders:
        refit(folder, sensitivity=SENSITIVITY)
    return {
        "one network": np.mean([judge_folder(folder) for folder in folders], axis=0),
        "ensemble over folds": judge_folder(build_ensemble(folders, root=root)[0]),
        "mean over folds, fitted to its members": judge_pooled(folders),
    }


def simulate(noise: tuple[float, float], seed: int, root: Path) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    test, *held_out = (Images(f"{name}-", rng, noise) for name in ("test", *range(MEMBERS)))
    shared = [
        write_fold(root / f"run{number}/fold0", 0, {"validation": held_out[0].predict(), "test": test.predict()})
        for number in range(MEMBERS)
    ]
    folds = [
        write_fold(root / f"cv/fold{number}", number, {"validation": images.predict(), "test": test.predict()})
        for number, images in enumerate(held_out)
    ]
    ensemble, _ = build_ensemble(shared, root=root)
    refit(ensemble, sensitivity=SENSITIVITY)
    found = measure_folds(folds, root)
    return {"one network": found.pop("one network"), "ensemble of one fold": judge_folder(ensemble)} | found


def tabulate(kind: str, draws: list[dict[str, np.ndarray]]) -> list[tuple[str, ...]]:
    rows = []
    for name in draws[0]:
        sensitivity, error, least = np.concatenate([draw[name] for draw in draws], axis=1)
        counted = sensitivity[np.isfinite(sensitivity)]
        of_mean = counted.std(ddof=1) / np.sqrt(len(counted))
        reached = f"{counted.mean():.3f} ({of_mean:.3f})"
        rows.append(
            (kind, name, reached, f"{error.mean():.4f}", f"{least.mean():.4f}", f"{(error / least).mean():.1f}")
        )
    return rows


COLUMNS = ["networks", "scored", "sensitivity (standard error)", "calibration error", "if exact", "times"]


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
            folders = [shutil.copytree(fold, Path(folder) / "run" / fold.name) for fold in find_folds(arguments.run)]
            rows = tabulate(Path(arguments.run).name, [measure_folds(folders, Path(folder))])
            config = load_json(folders[0] / CONFIG)
            model, counts = config["experiment"]["model"], config["parts"]
            data = "synthetic phantoms" if config["is_synthetic"] else f"split {config['split_name']}"
            title = (
                f"{len(folders)} folds of {model['name']} at {model['size']} px, {data}: each trained on about "
                f"{counts['training']['images']:,} images, validated on {counts['validation']['images']:,} and tested "
                f"on {counts['test']['images']:,}, a sensitivity of {SENSITIVITY} wanted"
            )
        else:
            rows = []
            for kind, noise in NOISES.items():
                draws = [simulate(noise, seed, Path(folder) / f"{kind}{seed}") for seed in range(DRAWS)]
                rows += tabulate(kind, draws)
            title = (
                f"{MEMBERS} simulated networks, {IMAGES:,} images each of validation and test, {len(LABELS)} labels, "
                f"{DRAWS} draws, a sensitivity of {SENSITIVITY} wanted"
            )
    tables.add(title, COLUMNS, rows)
    tables.save()


if __name__ == "__main__":
    main()
