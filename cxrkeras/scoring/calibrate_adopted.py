"""Calibration of an adopted network, which has no validation images of its own, on records of the user."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.data.preparation import check_preparation
from cxrkeras.errors import InputError
from cxrkeras.models.past import Past, Patients, save_past
from cxrkeras.progress import SILENT, Progress
from cxrkeras.records.manifest import NO_FOLD
from cxrkeras.scoring.calibration import PLATT, UNCALIBRATED, Curve
from cxrkeras.scoring.external_validation import predict_records
from cxrkeras.scoring.operating_points import OperatingPoints, fit_operating_points, save_operating_points
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import ADOPTED, CALIBRATED_ON, RECALIBRATION, Origin
from cxrkeras.scoring.second_truth import share_labels
from cxrkeras.text import num_of

if TYPE_CHECKING:
    from cxrkeras.records.folder import Records

NOT_FITTED = "not calibrated: the records do not have this label"


def calibrate_on(
    fold: Fold,
    records: Records,
    *,
    method: str = PLATT,
    sensitivity: float | None = None,
    progress: Progress = SILENT,
) -> tuple[OperatingPoints, list[str]]:
    """Fit calibration and thresholds of an adopted network on all images of the records outside of their test set.

    Labels that the records lack keep the sigmoid and the threshold that they have. The patients are saved as salted
    hashes, so that `evaluate` does not score it on them. Returns what was fitted, and notes on the labels. Raises
    InputError for a run that was trained here, and for records of another size or preparation.
    """
    if fold.kind != ADOPTED:
        raise InputError(
            f"{fold.name} was trained here and is calibrated on its own validation images: leave records out, or use "
            "`cxrkeras evaluate --recalibrate`, which fits on other data and leaves the run as it is",
            option="records",
        )
    notes: list[str] = []
    labels = share_labels(fold.labels, records.labels, str(records.folder), notes)
    check_preparation(records.manifest.preparation, fold.config.preparation, str(records.folder), fold.name)
    records.verify(progress)
    rows = records.index[records.index["split"] == TRAIN_VAL]
    if not len(rows):
        raise InputError(f"{records.folder} has only a test set, which must stay unseen: choose other records")
    parts = [(TRAIN_VAL, number) for number in sorted(set(rows["fold"]) - {NO_FOLD})]
    predictions, _ = predict_records(fold, records, parts, labels, progress)
    fitted_on = Origin(
        part=RECALIBRATION,
        fold=None,
        split_name=records.manifest.split_name,
        images=len(predictions),
        patients=predictions.num_patients,
    )
    fitted = fit_operating_points(predictions, fitted_on, method=method, sensitivity=sensitivity)
    points = _keep_others(fold, fitted)
    patients = list(dict.fromkeys(rows["patient_id"]))
    manifest = records.manifest
    hashes: tuple[Patients, ...] = ()
    if manifest.namespace:
        salt, rounds = bytes.fromhex(manifest.patient_salt), manifest.patient_rounds
        hashes = (Patients(salt, rounds, records.hash_patients(patients, salt, rounds)),)
    save_past(fold.folder / CALIBRATED_ON, Past(bool(hashes), hashes).join())
    save_operating_points(fold.folder, points)
    if (records.index["split"] == TEST).any():
        notes.append(f"the {num_of(len(records.rows(TEST)), 'image')} of the test set were left out")
    return points, notes


def _keep_others(fold: Fold, fitted: OperatingPoints) -> OperatingPoints:
    """Add what the network has for labels that nothing was fitted for."""
    before, others = fold.operating_points, [label for label in fold.labels if label not in fitted.calibration.curves]
    curves = {label: Curve(note=NOT_FITTED) for label in others}
    is_published = before.calibration.method == UNCALIBRATED
    values = {label: before.thresholds.values[label] if is_published else None for label in others}
    notes = {label: "published, of the sigmoid" if values[label] is not None else "no threshold" for label in others}
    return OperatingPoints(
        replace(fitted.calibration, curves=fitted.calibration.curves | curves),
        replace(fitted.thresholds, values=fitted.thresholds.values | values, notes=fitted.thresholds.notes | notes),
    )
