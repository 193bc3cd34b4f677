"""The calibration and thresholds of a fold, fitted on its validation set only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cxrkeras.errors import InputError
from cxrkeras.scoring.calibration import (
    ISOTONIC,
    PLATT,
    TEMPERATURE,
    Calibration,
    fit_calibration,
    load_calibration,
    save_calibration,
)
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.scoring.run_files import ADOPTED, CALIBRATION, THRESHOLDS, VALIDATION, Config, Origin
from cxrkeras.scoring.thresholds import YOUDEN, Thresholds, fit_thresholds, load_thresholds, save_thresholds

if TYPE_CHECKING:
    from cxrkeras.scoring.run import Fold


class OperatingPoints(NamedTuple):
    """What turns logits into decisions."""

    calibration: Calibration
    thresholds: Thresholds


def build_origin(predictions: Predictions, split_name: str, fold: int | str | None) -> Origin:
    """Build the record of the predictions on validation that something is fitted on, as stored in its file."""
    counts = {"images": len(predictions), "patients": predictions.num_patients}
    return Origin(part=VALIDATION, fold=fold, split_name=split_name, **counts)


def fit_operating_points(
    validation: Predictions,
    fitted_on: Origin,
    *,
    method: str = PLATT,
    sensitivity: float | None = None,
    unseen: Collection[str] = (),
) -> OperatingPoints:
    """Fit a calibration, then thresholds on the calibrated probabilities, both on validation.

    Labels that are `unseen`, without positives in training, get no threshold.
    """
    truth, names = validation.truth, validation.labels.names
    calibration = fit_calibration(truth, validation.logits, names, fitted_on=fitted_on, method=method)
    probs = calibration.apply(validation.logits, names)
    thresholds = fit_thresholds(truth, probs, names, fitted_on=fitted_on, sensitivity=sensitivity, unseen=unseen)
    return OperatingPoints(calibration, thresholds)


def save_operating_points(folder: Path, points: OperatingPoints) -> None:
    save_calibration(folder, points.calibration)
    save_thresholds(folder, points.thresholds)


def refit(fold: Fold, *, method: str = PLATT, sensitivity: float | None = None) -> OperatingPoints:
    """Refit calibration and thresholds of a finished fold and save them in its folder.

    Raises InputError for an ensemble over folds, whose members have no held-out image in common, and for a temperature
    after a training that shifts the mean of the probabilities, which a temperature cannot correct.
    """
    if fold.kind == ADOPTED:
        raise InputError(
            f"{fold.name} is an adopted network without validation images: name records of images of your own, on "
            "which it is to be calibrated",
            option="records",
        )
    if not fold.shares_validation:
        raise InputError(
            f"{fold.folder} is an ensemble over folds: no image was held out by all its members, so that nothing can "
            "be fitted on its mean; calibrate the members and rebuild it"
        )
    if method == TEMPERATURE and (moved := _name_moved_mean(fold.config)):
        raise InputError(
            f"{fold.folder} was trained with {moved}, which shifts the mean of the probabilities away from the "
            f"prevalence, and a temperature cannot correct this: use {PLATT} or {ISOTONIC}"
        )
    validation = fold.predictions[VALIDATION]
    fitted_on = build_origin(validation, fold.metrics.split_name, fold.metrics.fold)
    fitted = fit_operating_points(validation, fitted_on, method=method, sensitivity=sensitivity, unseen=fold.unseen)
    save_operating_points(fold.folder, fitted)
    return fitted


def _name_moved_mean(config: Config) -> str:
    """Name the settings of the training that shift mean probabilities away from the prevalence; empty if none do."""
    if (experiment := config.experiment) is None:
        return ""
    loss, is_balanced = experiment.loss.name, experiment.sampling.name == "balanced"
    moving = [] if loss == "bce" else [f"the loss {loss}"]
    return " and ".join(moving + ["balanced sampling"] * is_balanced)


def load_operating_points(folder: Path, config: Config) -> OperatingPoints:
    """Load calibration and thresholds of a fold. Raises InputError if either is missing or damaged."""
    if missing := [name for name in (CALIBRATION, THRESHOLDS) if not (folder / name).is_file()]:
        raise InputError(f"{folder} has no {' and no '.join(missing)}: `{_name_command(folder, config)}` fits it again")
    return OperatingPoints(load_calibration(folder, config.label_set), load_thresholds(folder, config.label_set))


def _name_command(folder: Path, config: Config) -> str:
    """Return the command that refits what is missing, with the options that the existing file was fitted with."""
    if not config.shares_validation:
        return f"cxrkeras ensemble {' '.join(config.members or [])}"
    command, labels = f"cxrkeras calibrate --run {folder}", config.label_set
    if (folder / CALIBRATION).is_file() and (method := load_calibration(folder, labels).method) != PLATT:
        command += f" --method {method}"
    if (folder / THRESHOLDS).is_file() and (rule := load_thresholds(folder, labels).rule) != YOUDEN:
        command += f" --sensitivity {rule.rpartition('=')[2]}"
    return command
