"""Whom a training must not have met: patients held out now who have trained its start weights."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from cxrkeras.config import Experiment
from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.errors import InputError
from cxrkeras.models.past import NOBODY, UNKNOWN, Past, Patients, read_past
from cxrkeras.records.manifest import Manifest, build_hasher
from cxrkeras.text import num_of


def check_start(
    resolved: Experiment,
    records: Path,
    manifest: Manifest,
    index: pd.DataFrame,
    say: Callable[[str], None] = lambda sentence: None,
) -> Past:
    """The past of the start weights; refuses those that have seen a patient who is held out now.

    Says so where it cannot be checked. Raises InputError with the numbers of patients.
    """
    weights = resolved.model.weights
    if weights in ("none", "imagenet"):
        return NOBODY
    past = read_past(Path(weights))
    refuse_shared(past, weights, resolved.data.fold, records, manifest, index)
    if not (past.is_known and manifest.namespace):
        say(
            f"{weights} does not say which patients trained it: whether some of them are held out now cannot be checked"
            if manifest.namespace
            else f"{records} were written before patients were hashed: whom {weights} was trained on cannot be checked"
        )
        return past.join(UNKNOWN)
    return past


def refuse_shared(past: Past, network: str, fold: int, records: Path, manifest: Manifest, index: pd.DataFrame) -> None:
    """InputError if patients of the fold held out, or of the test set, have trained the network that is called so."""
    if not (past.patients and manifest.namespace):
        return
    hash_ids = build_hasher(records, manifest)
    counts = {}
    for name, rows in (
        (f"held out in fold {fold}", index[(index["split"] == TRAIN_VAL) & (index["fold"] == fold)]),
        ("in the test set", index[index["split"] == TEST]),
    ):
        patients = rows["patient_id"].unique()
        counts[name] = len(past.find(patients, hash_ids)), len(patients)
    if any(shared for shared, _ in counts.values()):
        each = (f"{shared:,} of the {num_of(count, 'patient')} {name}" for name, (shared, count) in counts.items())
        numbers = " and ".join(each)
        raise InputError(
            f"{network} was trained on {numbers}: its scores would be too good. Start from a network that has not seen "
            "them, as one of the same fold, or of other patients"
        )


def describe_patients(fold: int, records: Path, manifest: Manifest, index: pd.DataFrame) -> Past:
    """The past of a network that is trained with a fold of records held out, and on nothing else."""
    if not manifest.namespace:
        return UNKNOWN
    training = index[(index["split"] == TRAIN_VAL) & (index["fold"] != fold)]["patient_id"].unique()
    salt, rounds = bytes.fromhex(manifest.patient_salt), manifest.patient_rounds
    return Past(True, (Patients(salt, rounds, build_hasher(records, manifest)(list(training), salt, rounds)),)).join()
