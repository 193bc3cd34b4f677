"""The calibration and the thresholds of a fold: fitted on its validation part, and on nothing else."""

from pathlib import Path

from cxrkeras.config import CONFIG
from cxrkeras.errors import InputError
from cxrkeras.files import load_shaped
from cxrkeras.scoring.calibration import (
    ISOTONIC,
    PLATT,
    TEMPERATURE,
    Calibration,
    fit_calibration,
    load_calibration,
    save_calibration,
)
from cxrkeras.scoring.find_runs import CALIBRATION, METRICS, THRESHOLDS, Config, Metrics
from cxrkeras.scoring.predictions import Predictions, load_parts
from cxrkeras.scoring.thresholds import YOUDEN, Thresholds, fit_thresholds, load_thresholds, save_thresholds

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
    """Fit calibration and thresholds of a finished fold again and save them in its folder.

    Raises InputError for an ensemble over folds, of which no image was held out by all members, and for a temperature
    after a training that moves the mean of the probabilities, which a temperature cannot move back.
    """
    metrics, config = load_shaped(folder / METRICS, Metrics), load_shaped(folder / CONFIG, Config)
    if not config.get("shares_validation", True):
        raise InputError(
            f"{folder} is an ensemble over folds: no image was held out by all its members, so that nothing can be "
            "fitted on its mean; calibrate the members and build it again"
        )
    if method == TEMPERATURE and (moved := _name_moved_mean(config)):
        raise InputError(
            f"{folder} was trained with {moved}, which moves the mean of the probabilities away from the prevalence, "
            f"and a temperature cannot move it back: take {PLATT} or {ISOTONIC}"
        )
    validation = load_parts(folder)[VALIDATION]
    fitted_on = describe_part(validation, metrics, VALIDATION)
    fitted = fit_operating_points(validation, fitted_on, method=method, sensitivity=sensitivity)
    save_operating_points(folder, *fitted)
    return fitted


def _name_moved_mean(config: dict) -> str:
    """What of the training moves the mean probability of a label away from its prevalence; empty if nothing does."""
    settings = config.get("experiment") or {}
    loss, sampling = (settings.get(section, {}).get("name") for section in ("loss", "sampling"))
    moving = [f"the loss {loss}"] if loss in ("weighted_bce", "focal", "asymmetric") else []
    return " and ".join(moving + ["balanced sampling"] * (sampling == "balanced"))


def load_operating_points(folder: Path) -> tuple[Calibration, Thresholds]:
    """Those of the fold's folder, which is only read; InputError where one is missing or damaged."""
    if missing := [name for name in (CALIBRATION, THRESHOLDS) if not (folder / name).is_file()]:
        raise InputError(f"{folder} has no {' and no '.join(missing)}: `{_name_command(folder)}` fits it again")
    return load_calibration(folder), load_thresholds(folder)


def _name_command(folder: Path) -> str:
    """The command that fits again what is missing, as it was chosen, as far as the other file says."""
    config = load_shaped(folder / CONFIG, Config)
    if not config.get("shares_validation", True):
        return f'make ensemble RUNS="{" ".join(config["members"])}"'
    command = f"make calibrate RUN={folder}"
    if (folder / CALIBRATION).is_file() and (method := load_calibration(folder).method) != PLATT:
        command += f" METHOD={method}"
    if (folder / THRESHOLDS).is_file() and (rule := load_thresholds(folder).rule) != YOUDEN:
        command += f" SENSITIVITY={rule.rpartition('=')[2]}"
    return command
