"""Splits by patient: folds for cross-validation, and a test set where a data set has none."""

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from cxrkeras.data.identity import draw_shares
from cxrkeras.errors import InputError
from cxrkeras.text import num_of

TEST_SHARE = 0.2
# How patients are assigned: each by a hash of its own id, so that nobody moves when the data grow, or shuffled, so
# that the parts are as equal as can be.
HASHED, GROUPED = SPLIT_RULES = ("hashed", "grouped")


def check_split_rule(rule: str) -> None:
    if rule not in SPLIT_RULES:
        raise InputError(f"the split rule is {' or '.join(SPLIT_RULES)}; got {rule!r}")


def parse_split_name(name: str) -> tuple[str, int] | None:
    """Rule and seed of a split that was chosen here, as `hashed-20-0`; None for one that a data set brings."""
    rule, _, numbers = name.partition("-")
    share, _, seed = numbers.partition("-")
    return (rule, int(seed)) if rule in SPLIT_RULES and share.isdigit() and seed.isdigit() else None


def assign_folds(
    patient_ids: np.ndarray, num_folds: int, seed: int, *, rule: str = GROUPED, namespace: str = ""
) -> np.ndarray:
    """Give every image the fold of its patient; int64 (N,) of 0 to num_folds - 1.

    grouped: patients are shuffled by the seed and folds have as equal a number of them as can be (GroupKFold of
    scikit-learn); hashed: the fold of a patient depends on its id, the namespace, the seed and the number of folds
    alone, but where a fold would be empty the patient nearest to it goes there. Raises InputError with fewer patients
    than folds, or fewer than two folds.
    """
    patients, of_image = np.unique(patient_ids, return_inverse=True)
    if not 2 <= num_folds <= len(patients):
        raise InputError(
            f"the folds must be 2 to the {num_of(len(patients), 'patient')} outside the test set; got {num_folds}"
        )
    if rule == HASHED:
        shares = draw_shares(namespace, map(str, patients), seed, "fold")
        return _fill_empty(shares, num_folds)[of_image]
    folds = np.empty(len(patient_ids), np.int64)
    splitter = GroupKFold(num_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(patient_ids, groups=patient_ids)):
        folds[held_out] = fold
    return folds


def _fill_empty(shares: np.ndarray, num_folds: int) -> np.ndarray:
    """Folds of patients with shares (P,) from 0 to 1: equal intervals, none without a patient."""
    folds = np.minimum((shares * num_folds).astype(np.int64), num_folds - 1)
    for empty in np.setdiff1d(np.arange(num_folds), folds):
        distance = np.abs(shares - (empty + 0.5) / num_folds)
        distance[np.bincount(folds, minlength=num_folds)[folds] == 1] = np.inf  # it would leave its own fold empty
        folds[distance.argmin()] = empty
    return folds


def choose_test_set(patient_ids: np.ndarray, namespace: str, rule: str, seed: int) -> np.ndarray:
    """Choose a fifth of the patients for testing, by one of SPLIT_RULES; bool (N,), true for their images.

    By the hash of each patient, the share is a fifth only about; if a side would be empty, the patient nearest to the
    border goes there.
    """
    patients, of_image = np.unique(patient_ids, return_inverse=True)
    if len(patients) < 2:
        raise InputError("a test set needs images of at least two patients")
    if rule == HASHED:
        shares = draw_shares(namespace, map(str, patients), seed, "test")
        is_test = shares < TEST_SHARE
        if not is_test.any():
            is_test[shares.argmin()] = True
        elif is_test.all():
            is_test[shares.argmax()] = False
        return is_test[of_image]
    splitter = GroupShuffleSplit(1, test_size=TEST_SHARE, random_state=seed)
    _, test = next(splitter.split(patient_ids, groups=patient_ids))
    is_test = np.zeros(len(patient_ids), bool)
    is_test[test] = True
    return is_test


def check_patients(table: pd.DataFrame) -> None:
    """Raise InputError if a patient is in both splits, or in two folds. Needs patient_id, split and fold."""
    sides = table.groupby("patient_id")[["split", "fold"]].nunique().max(axis=1)
    shared = sides.index[sides > 1]
    if len(shared):
        raise InputError(
            f"{num_of(len(shared), 'patient', 'is')} on two sides of a split (first: {shared[0]}): every score "
            "would be too good; "
            "fix the split lists so that all images of a patient are in one of them"
        )
