"""External validation: a trained run on records that it was not trained on, with its own calibration and thresholds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.data.folds import parse_split_name
from cxrkeras.data.identity import JOINED, draw_shares, name_patient
from cxrkeras.data.preparation import check_preparation
from cxrkeras.data.readers import read_labels
from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet
from cxrkeras.models.classifier import LOGITS
from cxrkeras.models.compiled import compile_network, load_network
from cxrkeras.models.past import load_past
from cxrkeras.progress import SILENT, Progress
from cxrkeras.records.manifest import NO_FOLD
from cxrkeras.scoring.calibration import calibration_error
from cxrkeras.scoring.ensemble import calibrate_member, combine_test
from cxrkeras.scoring.intervals import bootstrap_mean, compute_interval
from cxrkeras.scoring.ood_check import load_ood_check
from cxrkeras.scoring.operating_points import OperatingPoints, fit_operating_points
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.scoring.run import Fold, open_fold
from cxrkeras.scoring.run_files import (
    ADOPTED,
    CALIBRATED_ON,
    ENSEMBLE,
    EVALUATIONS,
    MODEL,
    OOD_CHECK,
    RECALIBRATION,
    TEST_SET,
    VALIDATION,
    Origin,
)
from cxrkeras.scoring.scores import score_predictions
from cxrkeras.scoring.second_truth import match_truth, share_labels
from cxrkeras.scoring.thresholds import score_decisions
from cxrkeras.text import num_of

if TYPE_CHECKING:
    from cxrkeras.records.folder import Records

ALL = "all"
SPLITS = (ALL, TEST, TRAIN_VAL)
UNKNOWN_PATIENTS = "unknown-patients"
BATCH = 32


@dataclass(frozen=True)
class Choice:
    """What is evaluated: a split of the records, a file with another truth for the same images, a share of patients
    that calibration and thresholds are fitted on instead of being scored, and whether the training patients may be
    unknown.

    Raises InputError for a value that is not allowed.
    """

    split: str | None = None
    truth: Path | None = None
    recalibrate: float = 0.0
    allow: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split is not None and self.split not in SPLITS:
            raise InputError(f"split must be {', '.join(SPLITS)}; got {self.split!r}", option="split")
        if not 0 <= self.recalibrate < 1:
            raise InputError(
                f"recalibrate must be a share of the patients from 0 to below 1; got {self.recalibrate}",
                option="recalibrate",
            )
        if self.allow not in (None, UNKNOWN_PATIENTS):
            raise InputError(f"allow must be {UNKNOWN_PATIENTS}; got {self.allow!r}", option="allow")


@dataclass(frozen=True)
class Validated:
    """The predictions of a run for records of others, the operating points applied to them, and what was found.

    folder: where results belong; config: plain values for its config.json; groups: age, sex, view and source by image
    id; warnings: reasons by image id why images look out of distribution, None without a check; truths: predictions
    with another truth for the same images, by its name.
    """

    folder: Path
    config: dict[str, Any]
    predictions: Predictions
    points: OperatingPoints
    groups: pd.DataFrame
    warnings: dict[str, list[str]] | None
    truths: dict[str, Predictions] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def validate_run(fold: Fold, records: Records, choice: Choice, progress: Progress = SILENT) -> Validated:
    """Apply a run, or the members of an ensemble, to records.

    Raises InputError for records of another size or preparation, without a label in common, or with patients that the
    run was trained, calibrated or chosen on, and where this cannot be checked.
    """
    members = _open_members(fold)
    truth = read_labels(choice.truth) if choice.truth else None  # a file that cannot be read is reported first
    notes: list[str] = []
    labels = share_labels(fold.labels, records.labels, str(records.folder), notes)
    check_preparation(records.manifest.preparation, fold.config.preparation, str(records.folder), fold.name)
    split = choice.split or (ALL if parse_split_name(records.manifest.split_name) else TEST)
    rows = records.index if split == ALL else records.index[records.index["split"] == split]
    if not len(rows):
        raise InputError(f"{records.folder} has no images in {split}", option="split")
    progress.start("comparing patients with those of the training")
    _check_patients(fold, records, rows, choice.allow, notes)
    records.verify(progress)
    if records.manifest.is_partial:
        notes.append(
            f"the records hold {records.manifest.num_records:,} of the {records.manifest.num_listed:,} images that "
            "its label files list: not comparable with scores on all of them"
        )
    parts = [(TRAIN_VAL, number) for number in sorted(set(rows["fold"]) - {NO_FOLD})]
    parts += [(TEST, NO_FOLD)] if (rows["split"] == TEST).any() else []
    predictions, warnings = _predict_members(fold, members, records, parts, labels, progress)
    points, predictions = _recalibrate(fold, records, predictions, choice, notes)
    truths = {}
    if choice.truth and truth:
        is_joined = records.manifest.namespace == JOINED
        truths[choice.truth.name] = match_truth(truth, choice.truth, predictions, notes, is_joined=is_joined)
    config = _describe(fold, records, labels, split, choice, rows)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    return Validated(
        fold.folder / EVALUATIONS / f"{records.name}-{digest}",
        config | {"versions": {name: version(name) for name in ("cxrkeras", "keras", "numpy")}},
        predictions,
        points,
        rows.set_index("image_id")[["age", "sex", "view", "source"]].loc[predictions.image_ids],
        None if warnings is None else {image: warnings[image] for image in predictions.image_ids},
        truths,
        notes,
    )


def _check_patients(fold: Fold, records: Records, rows: pd.DataFrame, allow: str | None, notes: list[str]) -> None:
    """Refuse records with patients of a run's training or validation, and what cannot be checked, unless allowed."""
    patients = list(dict.fromkeys(rows["patient_id"]))
    has_hashes = bool(records.manifest.namespace)
    chosen = _find_chosen(fold, records, patients) if has_hashes else set()
    trained = fold.past.find(patients, records.hash_patients) if has_hashes else set()
    if fold.kind == ADOPTED and chosen:
        raise InputError(
            f"{fold.name} was calibrated on images of {len(chosen):,} of the {num_of(len(patients), 'patient')}: its "
            "scores would be biased; evaluate on others, such as a test set",
            option="split",
        )
    if (fold.past.is_known and has_hashes) or trained or chosen:
        if trained or chosen:
            raise InputError(
                f"{fold.name} knows {len(trained | chosen):,} of the {num_of(len(patients), 'patient')}: it was "
                f"trained on {len(trained):,}, and its epoch, calibration and thresholds were chosen on "
                f"{len(chosen):,}; its scores would be biased: evaluate on patients that it does not know",
                option="split",
            )
        notes.append(
            f"by set and id, none of the {num_of(len(patients), 'patient')} was in its training or validation set"
        )
        return
    who = f"{fold.name} does not record whom it was" if not fold.past.is_known else f"{records.folder} does not record"
    reason = f"{who} trained on" if not fold.past.is_known else f"{who} hashes of its patients"
    if fold.config.adopted and not fold.past.is_known:
        reason = f"it is not known whom {fold.name} was trained on ({fold.config.adopted.split})"
    if allow != UNKNOWN_PATIENTS:
        raise InputError(
            f"{reason}, so that patients of its training may be among these: if you know that they are not, or accept "
            f"it, say allow={UNKNOWN_PATIENTS}",
            option="allow",
        )
    notes.append(f"{reason}: patients of its training may be among these, and the scores biased")


def _find_chosen(fold: Fold, records: Records, patients: list[str]) -> set[str]:
    """Find the patients on whose images a run's epoch, calibration and thresholds were chosen."""
    if fold.kind == ADOPTED:
        return load_past(fold.folder / CALIBRATED_ON).find(patients, records.hash_patients)
    if not fold.past.is_known:
        return set()
    held_out = fold.load_predictions(VALIDATION).patient_ids
    chosen_on = {name_patient(fold.config.namespace or "", patient) for patient in held_out}
    return {patient for patient in patients if name_patient(records.manifest.namespace, patient) in chosen_on}


def _open_members(fold: Fold) -> list[Fold]:
    """Open the folds with the networks of a run, itself or the members of an ensemble. Raises InputError."""
    members = [fold]
    if fold.kind == ENSEMBLE:
        root = fold.folder.resolve().parents[1]
        members = [open_fold(root / name) for name in fold.config.members or []]
    for member in members:
        member.require(MODEL)
    return members


def _predict_members(
    fold: Fold,
    members: list[Fold],
    records: Records,
    parts: list[tuple[str, int]],
    labels: LabelSet,
    progress: Progress,
) -> tuple[Predictions, dict[str, list[str]] | None]:
    """Predict with a network, or average those of an ensemble as it does; an ensemble does not judge the images."""
    found = [predict_records(member, records, parts, labels, progress) for member in members]
    if fold.kind != ENSEMBLE:
        return found[0]
    predictions = [of_member for of_member, _ in found]
    if not fold.shares_validation:
        predictions = [calibrate_member(of_member, member.operating_points.calibration)
                       for of_member, member in zip(predictions, members, strict=True)]  # fmt: skip
    return combine_test(predictions, fold.config.average or "logits"), None


def predict_records(
    fold: Fold, records: Records, parts: list[tuple[str, int]], labels: LabelSet, progress: Progress
) -> tuple[Predictions, dict[str, list[str]] | None]:
    """Predict images of the records, and judge them by the run's out-of-distribution check, if it has one."""
    network = load_network(fold.folder / MODEL, fold.labels)
    if network.input_shape[1] != records.manifest.size:
        raise InputError(
            f"{fold.name} takes images of {network.input_shape[1]} px, and {records.folder} has "
            f"{records.manifest.size}: `cxrkeras records --like {fold.name}` makes the right ones"
        )
    columns = [fold.labels.index(label) for label in labels]
    of_truth = LabelSet(tuple(records.labels.require(label) for label in labels))
    check = load_ood_check(fold.folder / OOD_CHECK) if (fold.folder / OOD_CHECK).is_file() else None
    both = compile_network(keras.Model(network.input, [network.output, network.get_layer(LOGITS).input]))
    batches = [records.evaluation_batches(split, fold=number, batch_size=BATCH, labels=of_truth)
               for split, number in parts]  # fmt: skip
    advance = progress.start(f"predicting with {fold.name}", sum(map(len, batches)))
    found: dict[str, list[np.ndarray]] = {name: [] for name in ("image_ids", "patient_ids", "values", "logits")}
    warnings: dict[str, list[str]] = {}
    for of_part in batches:
        for images, values, image_ids, patient_ids in of_part:
            logits, features = (output.numpy() for output in both(images))
            names = np.char.decode(image_ids.numpy().astype(bytes), "utf-8")
            found["image_ids"].append(names)
            found["patient_ids"].append(np.char.decode(patient_ids.numpy().astype(bytes), "utf-8"))
            found["values"].append(values.numpy())
            found["logits"].append(logits[:, columns])
            if check:
                warnings |= zip(names, check.judge(images.numpy(), features.astype(np.float64)), strict=True)
            advance()
    image_ids, patient_ids, values, logits = (np.concatenate(blocks) for blocks in found.values())
    return Predictions(image_ids, patient_ids, values, logits, labels), warnings if check else None


def _recalibrate(
    fold: Fold, records: Records, predictions: Predictions, choice: Choice, notes: list[str]
) -> tuple[OperatingPoints, Predictions]:
    """Return the operating points, of the run or fitted on a share of the patients, and the images to be scored."""
    if not choice.recalibrate:
        return fold.operating_points, predictions
    patients, of_image = np.unique(predictions.patient_ids, return_inverse=True)
    shares = draw_shares(records.manifest.namespace, map(str, patients), choice.seed, RECALIBRATION)
    is_fitted = (shares < choice.recalibrate)[of_image]
    if is_fitted.all() or not is_fitted.any():
        raise InputError(
            f"{choice.recalibrate:g} of {num_of(len(patients), 'patient')} leaves none to fit on or none to score",
            option="recalibrate",
        )
    fitting = predictions.take(is_fitted)
    origin = Origin(
        part=RECALIBRATION,
        fold=None,
        split_name=records.manifest.split_name,
        images=len(fitting),
        patients=fitting.num_patients,
    )
    notes.append(
        f"calibration and thresholds were fitted again, on {fitting.counts} ({choice.recalibrate:.0%} of the patients, "
        "chosen by a hash of their ids), which are not scored"
    )
    return fit_operating_points(fitting, origin), predictions.take(~is_fitted)


def _describe(
    fold: Fold, records: Records, labels: LabelSet, split: str, choice: Choice, rows: pd.DataFrame
) -> dict[str, Any]:
    truth = choice.truth
    return {
        "run": fold.name,
        "records": records.name,
        "records_fingerprint": records.manifest.fingerprint,
        "size": records.manifest.size,
        "split": split,
        "split_name": records.manifest.split_name,
        "sources": [source.model_dump() for source in records.manifest.sources],
        "is_synthetic": records.manifest.is_synthetic or fold.config.is_synthetic,
        "truth": {"file": truth.name, "sha256": hashlib.sha256(truth.read_bytes()).hexdigest()} if truth else None,
        "labels": list(labels),
        "views": {str(view) or "unknown": int(count) for view, count in rows["view"].value_counts().items()},
        "recalibrate": choice.recalibrate,
        "seed": choice.seed if choice.recalibrate else None,
        "allow": choice.allow,
        "device": tf.config.list_physical_devices()[-1].device_type,
    }


def tabulate_drift(fold: Fold, validated: Validated, *, seed: int = 0) -> pd.DataFrame:
    """Compare a run on other records with itself on its own sets; one row per label.

    For each of `validation` and `test`, which adopted networks lack, and `here`: positives, known, prevalence, mean
    probability, calibration_error, auc, sensitivity and specificity at the thresholds, as columns `<name>_<set>`.
    `bias` is the mean probability less the prevalence here, with its 95 % interval over patients, `bias_low` and
    `bias_high`.
    """
    points, labels = validated.points, validated.predictions.labels
    sets = {} if fold.kind == ADOPTED else fold.predictions
    own = {name: found.choose(labels) for name, found in sets.items() if name == TEST_SET or
           fold.shares_validation}  # fmt: skip
    columns: dict[str, np.ndarray] = {}
    for name, found, of_set in [
        *((name, found, fold.operating_points) for name, found in own.items()),
        ("here", validated.predictions, points),
    ]:
        truth, probs = found.truth, of_set.calibration.apply(found.logits, labels)
        scores = score_predictions(found)
        decisions = score_decisions(truth, probs, of_set.thresholds.array(labels), labels.names)
        known = np.isfinite(truth)
        values = {
            "positives": scores["positives"],
            "known": scores["known"],
            "prevalence": scores["prevalence"],
            "mean_probability": _mean_known(probs, known),
            "calibration_error": calibration_error(truth, probs),
            "auc": scores["auc"],
            "sensitivity": decisions["sensitivity"],
            "specificity": decisions["specificity"],
        }
        columns |= {f"{key}_{name}": np.asarray(value, float) for key, value in values.items()}
    here = validated.predictions
    probs = points.calibration.apply(here.logits, labels)
    columns["bias"] = columns["mean_probability_here"] - columns["prevalence_here"]
    if here.has_patients:
        drawn = bootstrap_mean(probs - here.truth, here.patient_ids, seed=seed)
        intervals = [compute_interval(column) for column in drawn.T]
        columns["bias_low"] = np.array([interval.low for interval in intervals])
        columns["bias_high"] = np.array([interval.high for interval in intervals])
    return pd.DataFrame(columns, index=pd.Index(labels.names, name="label"))


def _mean_known(probs: np.ndarray, is_known: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        means: np.ndarray = np.where(is_known, probs, 0).sum(axis=0) / is_known.sum(axis=0)
    return means
