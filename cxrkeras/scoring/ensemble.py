"""An ensemble: the mean of several networks, kept as a run like any other."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import log_expit

from cxrkeras.config import CONFIG
from cxrkeras.data.identity import hash_patients
from cxrkeras.errors import InputError
from cxrkeras.files import load_shaped, write_json
from cxrkeras.models.past import Past, load_past, save_past
from cxrkeras.scoring.calibration import MEMBERS, Calibration, Curve
from cxrkeras.scoring.find_runs import METRICS, RUNS_ROOT, TRAINED_ON, Config, Metrics, predictions_file
from cxrkeras.scoring.notes import UNVERIFIED
from cxrkeras.scoring.operating_points import (
    describe_part,
    fit_operating_points,
    load_operating_points,
    save_operating_points,
)
from cxrkeras.scoring.predictions import Predictions, load_parts, save_predictions
from cxrkeras.scoring.scores import describe_scores, mean_auc
from cxrkeras.scoring.thresholds import MIXED_RULES, Thresholds
from cxrkeras.text import num_of

AVERAGES = ("logits", "probabilities")
OF_MEMBERS = "the mean of the members' own scores"
_SAME = ("split_name", "records_fingerprint", "folds", "is_synthetic")


def average_logits(members: list[np.ndarray], average: str) -> np.ndarray:
    """The mean logits (N, L) of members' logits, or the logits of their mean probabilities."""
    logits = np.asarray(members, np.float64)
    if average == "logits":
        return logits.mean(axis=0)
    # Sums of p and of 1 - p, in logarithms: a probability that rounds to 0 or 1 would lose its rank.
    with np.errstate(invalid="ignore"):  # what is not a number stays so
        return np.logaddexp.reduce(log_expit(logits), axis=0) - np.logaddexp.reduce(log_expit(-logits), axis=0)


def share_validation(members: list[Predictions]) -> bool:
    """Whether the members have the very same validation images, which none of them was trained on."""
    held = [frozenset(member.image_ids) for member in members]
    return all(images == held[0] for images in held)


def combine_validation(members: list[Predictions], average: str) -> Predictions:
    """Each validation image by those members that had held it out, and by no other: the rest was trained on it."""
    held: dict[str, list[tuple[int, int]]] = {}
    for number, member in enumerate(members):
        for row, image in enumerate(member.image_ids):
            held.setdefault(image, []).append((number, row))
    parts = []
    for places in held.values():
        logits = average_logits([members[number].logits[row] for number, row in places], average)
        number, row = places[0]
        first = members[number]
        if any((members[other].truth[place] != first.truth[row]).any() for other, place in places):
            raise InputError(f"the members have different labels of {first.image_ids[row]}: take runs on the same data")
        parts.append((first.image_ids[row], first.patient_ids[row], first.truth[row], logits))
    return Predictions(*(np.array(column) for column in zip(*parts, strict=True)))


def combine_test(members: list[Predictions], average: str) -> Predictions:
    """All members on the images of the first one. Raises InputError if they were scored on others."""
    first = members[0]
    try:
        logits = [member.align(first).logits for member in members]
    except InputError as error:
        raise InputError(
            f"the members were scored on different test sets, {error}: take runs on the same records"
        ) from None
    return Predictions(first.image_ids, first.patient_ids, first.truth, average_logits(logits, average))


def calibrate_member(predictions: Predictions, calibration: Calibration) -> Predictions:
    """The same with logits of the member's calibrated probabilities."""
    columns = [
        calibration.curves[name].compute_log_odds(column)
        for name, column in zip(predictions.names, predictions.logits.T, strict=True)
    ]
    return replace(predictions, logits=np.stack(columns, axis=1))


def build_ensemble(
    folders: list[Path],
    *,
    average: str | None = None,
    root: Path = RUNS_ROOT,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Path, dict]:
    """Average finished folds, write `<root>/ensemble-<8 hex digits>/fold.../` and return it with its metrics.

    Members that hold out the same validation images (runs of one fold) are averaged there and on test, as logits or
    probabilities, and calibration and thresholds are fitted to their mean on validation. Of members of different folds
    no image was held out by all, so that nothing can be fitted to their mean: their calibrated probabilities are
    averaged, its thresholds are the means of theirs, and the files say that neither is verified (a mean of calibrated
    members is underconfident: Ranjan and Gneiting, Journal of the Royal Statistical Society B 72, 2010). The folder
    has the files of any run but no network. Raises InputError for members on other data, splits or folds, and for
    members that have learned from its test patients.
    """
    if average not in (None, *AVERAGES):
        raise InputError(f"an ensemble averages {' or '.join(AVERAGES)}; got {average!r}")
    folders = list(dict.fromkeys(folder.resolve() for folder in folders))
    if len(folders) < 2:
        raise InputError(f"an ensemble has two members or more; got {len(folders)}: {', '.join(map(str, folders))}")
    configs = [load_shaped(folder / CONFIG, Config) for folder in folders]
    metrics = [load_shaped(folder / METRICS, Metrics) for folder in folders]
    names = [f"{folder.parent.name}/{folder.name}" for folder in folders]
    _check_members(names, configs)
    members = []
    for number, folder in enumerate(folders):
        members.append(load_parts(folder))
        progress(number + 1, len(folders))
    is_shared = share_validation([member["validation"] for member in members])
    if not is_shared and average == "logits":
        raise InputError(
            "members of different folds are averaged as calibrated probabilities, each by its own fold's calibration, "
            "as their mean cannot be calibrated: leave the kind of average out, or take runs of one fold"
        )
    average = average or ("logits" if is_shared else "probabilities")
    past = _check_past(folders, names, configs[0], members[0]["test"])
    operating = None
    if not is_shared:
        operating = [load_operating_points(folder) for folder in folders]
        members = [
            {part: calibrate_member(one, calibration) for part, one in member.items()}
            for member, (calibration, _) in zip(members, operating, strict=True)
        ]
    parts = {
        "validation": combine_validation([member["validation"] for member in members], average),
        "test": combine_test([member["test"] for member in members], average),
    }
    held_out = sorted({one["fold"] for one in metrics})
    digest = hashlib.sha256(" ".join([average, *sorted(names)]).encode()).hexdigest()[:8]
    folder = root / f"ensemble-{digest}" / f"fold{'-'.join(map(str, held_out))}"
    folder.mkdir(parents=True, exist_ok=True)
    parts = {part: save_predictions(folder / predictions_file(part), one) for part, one in parts.items()}
    content = {
        "run": folder.parent.name,
        "fold": held_out[0] if len(held_out) == 1 else ", ".join(map(str, held_out)),
        "best_epoch": None,
        **{key: metrics[0][key] for key in ("records", "split_name", "is_partial", "is_synthetic")},
        **{part: describe_scores(predictions) for part, predictions in parts.items()},
    }
    fitted_on = describe_part(parts["validation"], content, "validation")
    if operating is None:
        points = fit_operating_points(parts["validation"], fitted_on)
    else:
        content["validation"] = _average_scores(content["validation"], [one["validation"] for one in metrics])
        points = _average_operating_points(operating, fitted_on | {"is_verified": False})
    config = {key: configs[0].get(key) for key in (*_SAME, "labels", "versions", "namespace")} | {
        "name": "ensemble",
        "members": names,
        "average": average,
        "shares_validation": is_shared,
        "is_past_known": past.is_known,
        "parts": {part: {"images": len(one.truth), "patients": one.num_patients} for part, one in parts.items()},
    }
    write_json(folder / CONFIG, config)
    save_past(folder / TRAINED_ON, past)
    save_operating_points(folder, *points)
    write_json(folder / METRICS, content)
    return folder, content


def _check_members(names: list[str], configs: list[dict]) -> None:
    if nested := [name for name, config in zip(names, configs, strict=True) if "members" in config]:
        raise InputError(f"{nested[0]} is an ensemble itself: name its members")
    for name, config in zip(names, configs, strict=True):
        for key in _SAME:
            if config[key] != configs[0][key]:
                raise InputError(
                    f"{name} has {key.replace('_', ' ')} {config[key]} and {names[0]} {configs[0][key]}: an ensemble "
                    "is of runs on the same records and folds"
                )


def _check_past(folders: list[Path], names: list[str], config: dict, test: Predictions) -> Past:
    """Who trained the members together; InputError if patients of the test set are among them."""
    pasts = [load_past(folder / TRAINED_ON) for folder in folders]
    namespace, hashed = config.get("namespace"), {}

    def hash_ids(ids: list[str], salt: bytes, rounds: int) -> np.ndarray:
        if (salt, rounds) not in hashed:  # members of one data set have one salt
            hashed[salt, rounds] = hash_patients(namespace, ids, salt, rounds)
        return hashed[salt, rounds]

    for name, past in zip(names, pasts, strict=True):
        if namespace and (known := past.find(test.patient_ids, hash_ids)):
            raise InputError(
                f"{name} was trained on {len(known):,} of the {num_of(test.num_patients, 'patient')} in the "
                "test set: its "
                "scores would be too good"
            )
    return pasts[0].join(*pasts[1:])


def _average_scores(scores: dict, members: list[dict]) -> dict:
    """Validation scores in which each AUC is the mean of the members' own: they are of different networks' images.

    The mean AUC is over the findings that are defined in all members.
    """
    tables = [pd.DataFrame(member["labels"]).set_index("label") for member in members]
    rows = []
    for row in scores["labels"]:
        means = {}
        for score in ("auc", "average_precision"):
            values = [table.loc[row["label"], score] for table in tables]
            means[score] = None if any(pd.isna(value) for value in values) else float(np.mean(values))
        rows.append(row | means | {"note": row["note"] if means["auc"] is None else OF_MEMBERS})
    mean, count = mean_auc(pd.DataFrame(rows).set_index("label").astype({"auc": float}))
    return scores | {
        "labels": rows,
        "mean_auc": mean if count else None,
        "mean_auc_findings": count,
        "collapsed": sorted({name for member in members for name in member.get("collapsed", ())}),
        "note": f"validation: {OF_MEMBERS}, as no image was held out by all of them; {UNVERIFIED}",
    }


def _average_operating_points(
    members: list[tuple[Calibration, Thresholds]], fitted_on: dict
) -> tuple[Calibration, Thresholds]:
    """The identity as calibration, as the logits are those of calibrated probabilities; the mean thresholds."""
    names = list(members[0][0].curves)
    note = "the mean of the members' calibrated probabilities, not verified"
    calibration = Calibration(MEMBERS, fitted_on, {name: Curve(note=note) for name in names})
    values, notes = {}, {}
    for name in names:
        own = [thresholds.values[name] for _, thresholds in members]
        is_whole = all(value is not None for value in own)
        values[name] = float(np.mean(own)) if is_whole else None
        notes[name] = "the mean of the members' thresholds, not verified" if is_whole else "no threshold in some member"
    rules = {thresholds.rule for _, thresholds in members}
    return calibration, Thresholds(rules.pop() if len(rules) == 1 else MIXED_RULES, fitted_on, values, notes)
