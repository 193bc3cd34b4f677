"""Checks that start weights were not trained on patients who are held out now."""

from pathlib import Path

from cxrkeras.data.dataset import TEST, TRAIN_VAL
from cxrkeras.errors import InputError
from cxrkeras.models.past import NOBODY, UNKNOWN, Past, Patients, read_past
from cxrkeras.progress import Progress
from cxrkeras.records.folder import Records
from cxrkeras.text import num_of
from cxrkeras.training.resolve import Setup


def check_start(setup: Setup, progress: Progress) -> Past:
    """Read the past of the start weights, and check that they were not trained on patients who are held out now.

    Reports if this cannot be checked. Raises InputError with the numbers of patients.
    """
    weights, records = setup.experiment.model.weights, setup.records
    if weights in ("none", "imagenet"):
        return NOBODY
    past = read_past(Path(weights))
    refuse_shared(past, weights, setup.fold, records)
    if past.is_known and records.manifest.namespace:
        return past
    if records.manifest.namespace:
        reason = f"{weights} does not record the patients it was trained on"
    else:
        reason = f"{records.folder} does not record hashes of its patients"
    progress.say(f"{reason}: whether {weights} was trained on patients held out now cannot be checked")
    return past.join(UNKNOWN)


def refuse_shared(past: Past, network: str, fold: int, records: Records) -> None:
    """Raise InputError if the named network was trained on patients of the held-out fold or of the test set."""
    if not (past.patients and records.manifest.namespace):
        return
    counts = {}
    for name, rows in (
        (f"held out in fold {fold}", records.rows(TRAIN_VAL, fold)),
        ("in the test set", records.rows(TEST)),
    ):
        patients = rows["patient_id"].unique()
        counts[name] = len(past.find(patients, records.hash_patients)), len(patients)
    if any(shared for shared, _ in counts.values()):
        numbers = " and ".join(
            f"{shared:,} of the {num_of(count, 'patient')} {name}" for name, (shared, count) in counts.items()
        )
        raise InputError(
            f"{network} was trained on {numbers}: its scores would be biased. Start from a network that was not "
            "trained on them, such as one of the same fold or of other patients"
        )


def describe_patients(fold: int, records: Records) -> Past:
    """Describe the past of a network trained only on records, with one fold held out."""
    manifest = records.manifest
    if not manifest.namespace:
        return UNKNOWN
    patients = records.training_rows(fold)["patient_id"].unique()
    salt, rounds = bytes.fromhex(manifest.patient_salt), manifest.patient_rounds
    return Past(True, (Patients(salt, rounds, records.hash_patients(patients, salt, rounds)),)).join()
