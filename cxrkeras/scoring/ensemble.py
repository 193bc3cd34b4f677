"""Ensembles: the mean of several networks, stored like any other run."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import log_expit

from cxrkeras.config import CONFIG
from cxrkeras.data.identity import hash_patients
from cxrkeras.errors import InputError
from cxrkeras.files import write_json
from cxrkeras.models.past import Past, save_past
from cxrkeras.progress import SILENT, Progress
from cxrkeras.scoring.calibration import MEMBERS, Calibration, Curve
from cxrkeras.scoring.notes import UNVERIFIED
from cxrkeras.scoring.operating_points import (
    OperatingPoints,
    build_origin,
    fit_operating_points,
    save_operating_points,
)
from cxrkeras.scoring.predictions import Predictions, save_predictions
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import (
    ENSEMBLE,
    METRICS,
    RUNS_ROOT,
    TEST_SET,
    TRAINED_ON,
    VALIDATION,
    Origin,
    predictions_file,
)
from cxrkeras.scoring.scores import describe_scores, mean_auc
from cxrkeras.scoring.thresholds import MIXED_RULES, Thresholds
from cxrkeras.text import num_of

AVERAGES = ("logits", "probabilities")
OF_MEMBERS = "the mean of the members' own scores"
_SAME = ("split_name", "records_fingerprint", "folds", "is_synthetic")


def average_logits(members: list[np.ndarray], average: str) -> np.ndarray:
    """Compute the mean of the members' logits (N, L), or the logits of their mean probabilities."""
    logits = np.asarray(members, np.float64)
    if average == "logits":
        mean: np.ndarray = logits.mean(axis=0)
        return mean
    # Sums of p and of 1 - p in logarithms, because probabilities that round to 0 or 1 would lose their order.
    with np.errstate(invalid="ignore"):  # NaN stays NaN
        positive, negative = (np.logaddexp.reduce(log_expit(side), axis=0) for side in (logits, -logits))
        log_odds: np.ndarray = positive - negative
    return log_odds


def share_validation(members: list[Predictions]) -> bool:
    """Whether all members have the same validation images, so that none of them was trained on any."""
    held = [frozenset(member.image_ids) for member in members]
    return all(images == held[0] for images in held)


def combine_validation(members: list[Predictions], average: str) -> Predictions:
    """Average each validation image over the members that held it out; the others were trained on it."""
    held_out: dict[str, list[tuple[int, int]]] = {}
    for number, member in enumerate(members):
        for row, image in enumerate(member.image_ids):
            held_out.setdefault(image, []).append((number, row))
    rows = []
    for places in held_out.values():
        logits = average_logits([members[number].logits[row] for number, row in places], average)
        number, row = places[0]
        first = members[number]
        if any((members[other].values[place] != first.values[row]).any() for other, place in places):
            raise InputError(
                f"the members have different labels of {first.image_ids[row]}: choose runs on the same data"
            )
        rows.append((first.image_ids[row], first.patient_ids[row], first.values[row], logits))
    image_ids, patient_ids, values, averaged = (np.array(column) for column in zip(*rows, strict=True))
    return Predictions(image_ids, patient_ids, values, averaged, members[0].labels)


def combine_test(members: list[Predictions], average: str) -> Predictions:
    """Average all members on the images of the first. Raises InputError if they were scored on different images."""
    first = members[0]
    try:
        logits = [member.align(first).logits for member in members]
    except InputError as error:
        raise InputError(
            f"the members were scored on different test sets, {error}: choose runs on the same records"
        ) from None
    return replace(first, logits=average_logits(logits, average))


def calibrate_member(predictions: Predictions, calibration: Calibration) -> Predictions:
    """Replace the logits of a member by those of its calibrated probabilities."""
    columns = [
        calibration.curves[name].compute_log_odds(column)
        for name, column in zip(predictions.labels, predictions.logits.T, strict=True)
    ]
    return replace(predictions, logits=np.stack(columns, axis=1))


def build_ensemble(
    members: list[Fold],
    *,
    average: str | None = None,
    root: Path = RUNS_ROOT,
    progress: Progress = SILENT,
) -> Fold:
    """Average finished folds, write `<root>/ensemble-<8 hex digits>/fold.../` and open it.

    Members that hold out the same validation images (runs of one fold) are averaged there and on the test set, as
    logits or probabilities, and calibration and thresholds are fitted to their mean on validation. Members of different
    folds have no held-out image in common, so that nothing can be fitted to their mean: their calibrated probabilities
    are averaged, the thresholds are the means of theirs, and the files mark both as not verified (a mean of calibrated
    members is underconfident: Ranjan and Gneiting, Journal of the Royal Statistical Society B 72, 2010). The folder has
    the files of any run except a network. Raises InputError for members with different data, labels, splits or folds,
    and for members that were trained on patients of the test set.
    """
    if average not in (None, *AVERAGES):
        raise InputError(f"the average of an ensemble must be {' or '.join(AVERAGES)}; got {average!r}")
    members = list({member.folder.resolve(): member for member in members}.values())
    if len(members) < 2:
        names = ", ".join(member.name for member in members)
        raise InputError(f"an ensemble needs two members or more; got {len(members)}: {names}")
    _check_members(members)
    advance, predictions = progress.start("averaging", len(members)), []
    for member in members:
        predictions.append(member.predictions)
        advance()
    is_shared = share_validation([sets[VALIDATION] for sets in predictions])
    if not is_shared and average == "logits":
        raise InputError(
            "members of different folds are averaged as calibrated probabilities, each calibrated on its own fold, "
            "because their mean cannot be calibrated: leave out the average, or choose runs of one fold"
        )
    average = average or ("logits" if is_shared else "probabilities")
    past = _check_past(members)
    if not is_shared:
        predictions = [
            {name: calibrate_member(logits, member.operating_points.calibration) for name, logits in sets.items()}
            for member, sets in zip(members, predictions, strict=True)
        ]
    averaged = {
        VALIDATION: combine_validation([sets[VALIDATION] for sets in predictions], average),
        TEST_SET: combine_test([sets[TEST_SET] for sets in predictions], average),
    }
    return _write_ensemble(members, averaged, average, is_shared, past, root)


def _write_ensemble(
    members: list[Fold], averaged: dict[str, Predictions], average: str, is_shared: bool, past: Past, root: Path
) -> Fold:
    first, names = members[0], [member.name for member in members]
    held_out = sorted({member.metrics.fold for member in members})
    digest = hashlib.sha256(" ".join([average, *sorted(names)]).encode()).hexdigest()[:8]
    folder = root / f"ensemble-{digest}" / f"fold{'-'.join(map(str, held_out))}"
    folder.mkdir(parents=True, exist_ok=True)
    averaged = {name: save_predictions(folder / predictions_file(name), found) for name, found in averaged.items()}
    metrics: dict[str, Any] = {
        "run": folder.parent.name,
        "fold": held_out[0] if len(held_out) == 1 else ", ".join(map(str, held_out)),
        "best_epoch": None,
        **first.metrics.model_dump(include={"records", "split_name", "is_partial", "is_synthetic"}),
        **{name: describe_scores(predictions) for name, predictions in averaged.items()},
    }
    fitted_on = build_origin(averaged[VALIDATION], metrics["split_name"], metrics["fold"])
    if is_shared:
        points = fit_operating_points(averaged[VALIDATION], fitted_on)
    else:
        metrics[VALIDATION] = _average_scores(metrics[VALIDATION], members)
        points = _average_operating_points(members, fitted_on.model_copy(update={"is_verified": False}))
    kept = {*_SAME, "labels", "no_finding", "preparation", "versions", "namespace", "sources"}
    counts = {name: {"images": len(found), "patients": found.num_patients} for name, found in averaged.items()}
    config = first.config.model_dump(mode="json", include=kept) | {
        "name": "ensemble",
        "members": names,
        "average": average,
        "shares_validation": is_shared,
        "is_past_known": past.is_known,
        "parts": counts,
    }
    write_json(folder / CONFIG, config)
    save_past(folder / TRAINED_ON, past)
    save_operating_points(folder, points)
    write_json(folder / METRICS, metrics)
    return Fold(folder)


def _check_members(members: list[Fold]) -> None:
    if nested := [member.name for member in members if member.kind == ENSEMBLE]:
        raise InputError(f"{nested[0]} is an ensemble itself: name its members instead")
    first = members[0]
    for member in members:
        for key in (*_SAME, "labels"):
            if (own := getattr(member.config, key)) != (of_first := getattr(first.config, key)):
                raise InputError(
                    f"{member.name} has {key.replace('_', ' ')} {own} and {first.name} {of_first}: the members of an "
                    "ensemble must have the same records, labels and folds"
                )


def _check_past(members: list[Fold]) -> Past:
    """Join the pasts of the members. Raises InputError if they were trained on patients of the test set."""
    if namespace := members[0].config.namespace:
        _check_test_patients(members, namespace)
    first, *others = (member.past for member in members)
    return first.join(*others)


def _check_test_patients(members: list[Fold], namespace: str) -> None:
    hashed: dict[tuple[bytes, int], np.ndarray] = {}

    def hash_ids(ids: list[str], salt: bytes, rounds: int) -> np.ndarray:
        if (salt, rounds) not in hashed:  # members trained on the same records share a salt
            hashed[salt, rounds] = hash_patients(namespace, ids, salt, rounds)
        return hashed[salt, rounds]

    test = members[0].predictions[TEST_SET]
    for member in members:
        if known := member.past.find(test.patient_ids, hash_ids):
            raise InputError(
                f"{member.name} was trained on {len(known):,} of the {num_of(test.num_patients, 'patient')} in the "
                "test set: its scores would be too good"
            )


def _average_scores(scores: dict[str, Any], members: list[Fold]) -> dict[str, Any]:
    """Replace each AUC on validation by the mean of the members' AUCs, as each member has validation images of its own.

    The mean AUC is over the findings that are defined in all members.
    """
    own = [{row.label: row for row in member.metrics.validation.labels} for member in members]
    rows = []
    for row in scores["labels"]:
        means = {}
        for score in ("auc", "average_precision"):
            values = [getattr(by_label[row["label"]], score) for by_label in own]
            means[score] = None if any(value is None for value in values) else float(np.mean(values))
        rows.append(row | means | {"note": row["note"] if means["auc"] is None else OF_MEMBERS})
    mean, count = mean_auc(pd.DataFrame(rows).set_index("label").astype({"auc": float}), members[0].labels)
    return scores | {
        "labels": rows,
        "mean_auc": mean if count else None,
        "mean_auc_findings": count,
        "collapsed": sorted({name for member in members for name in member.metrics.validation.collapsed}),
        "note": f"validation: {OF_MEMBERS}, as no image was held out by all of them; {UNVERIFIED}",
    }


def _average_operating_points(members: list[Fold], fitted_on: Origin) -> OperatingPoints:
    """Return the mean thresholds, and the identity as calibration, as the logits are already calibrated."""
    note = "the mean of the members' calibrated probabilities, not verified"
    calibration = Calibration(MEMBERS, fitted_on, {name: Curve(note=note) for name in members[0].labels})
    of_members = [member.operating_points.thresholds for member in members]
    values: dict[str, float | None] = {}
    notes = {}
    for name in members[0].labels:
        found = [value for thresholds in of_members if (value := thresholds.values[name]) is not None]
        if len(found) == len(members):
            values[name], notes[name] = float(np.mean(found)), "the mean of the members' thresholds, not verified"
        else:
            values[name], notes[name] = None, "no threshold in some member"
    rules = {thresholds.rule for thresholds in of_members}
    rule = rules.pop() if len(rules) == 1 else MIXED_RULES
    return OperatingPoints(calibration, Thresholds(rule, fitted_on, values, notes))
