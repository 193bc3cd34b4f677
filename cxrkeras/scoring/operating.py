"""The calibration and the thresholds of a fold: fitted on its validation part, and on nothing else."""

from pathlib import Path

from cxrkeras.runs import CALIBRATION, METRICS, THRESHOLDS, Metrics, load_shaped
from cxrkeras.scoring.calibration import PLATT, Calibration, fit_calibration, load_calibration, save_calibration
from cxrkeras.scoring.predictions import Predictions, load_parts
from cxrkeras.scoring.thresholds import Thresholds, fit_thresholds, load_thresholds, save_thresholds

VALIDATION = "validation"


def describe_part(predictions: Predictions, metrics: dict, part: str) -> dict:
    """What a fitted file says of its origin."""
    return {
        "part": part,
        "fold": metrics["fold"],
        "split_name": metrics["split_name"],
        "images": len(predictions.truth),
        "patients": predictions.num_patients,
    }


def fit_operating_points(
    validation: Predictions, fitted_on: dict, *, method: str = PLATT, sensitivity: float | None = None
) -> tuple[Calibration, Thresholds]:
    """Fit a calibration, then thresholds on the probabilities it gives, both on validation."""
    names = validation.names
    calibration = fit_calibration(validation.truth, validation.logits, fitted_on=fitted_on, method=method, names=names)
    probs = calibration.apply(validation.logits, names)
    return calibration, fit_thresholds(
        validation.truth, probs, fitted_on=fitted_on, sensitivity=sensitivity, names=names
    )


def save_operating_points(folder: Path, calibration: Calibration, thresholds: Thresholds) -> None:
    save_calibration(folder, calibration)
    save_thresholds(folder, thresholds)


def refit(folder: Path, *, method: str = PLATT, sensitivity: float | None = None) -> tuple[Calibration, Thresholds]:
    """Fit calibration and thresholds of a finished fold anew and save them in its folder."""
    metrics = load_shaped(folder / METRICS, Metrics)
    validation = load_parts(folder)[VALIDATION]
    fitted_on = describe_part(validation, metrics, VALIDATION)
    fitted = fit_operating_points(validation, fitted_on, method=method, sensitivity=sensitivity)
    save_operating_points(folder, *fitted)
    return fitted


def load_or_fit(folder: Path) -> tuple[Calibration, Thresholds]:
    """Those of the fold's folder; where one is missing both are fitted and saved.

    Raises InputError where one is damaged, and where there are no validation predictions to fit them on.
    """
    if (folder / CALIBRATION).is_file() and (folder / THRESHOLDS).is_file():
        return load_calibration(folder), load_thresholds(folder)
    return refit(folder)
