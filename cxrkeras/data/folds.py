"""Splits by patient: folds for cross-validation, and a test set for data sets without one."""

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, GroupShuffleSplit, StratifiedGroupKFold

from cxrkeras.data.identity import draw_shares
from cxrkeras.errors import InputError
from cxrkeras.text import num_of

TEST_SHARE = 0.2
# How patients are assigned: each by a hash of its id, so that no patient moves when the data grow, or shuffled, so
# that the subsets are as equal as possible.
HASHED, GROUPED = SPLIT_RULES = ("hashed", "grouped")


def check_split_rule(rule: str) -> None:
    """Raise InputError for an unknown split rule."""
    if rule not in SPLIT_RULES:
        raise InputError(f"the split rule must be {' or '.join(SPLIT_RULES)}; got {rule!r}")


def parse_split_name(name: str) -> tuple[str, int] | None:
    """Parse rule and seed of a split chosen here, as `hashed-20-0`; None for a split that came with the data."""
    rule, _, numbers = name.partition("-")
    share, _, seed = numbers.partition("-")
    return (rule, int(seed)) if rule in SPLIT_RULES and share.isdigit() and seed.isdigit() else None


def assign_folds(
    patient_ids: np.ndarray,
    num_folds: int,
    seed: int,
    *,
    rule: str = GROUPED,
    namespace: str = "",
    sources: np.ndarray | None = None,
) -> np.ndarray:
    """Give every image the fold of its patient; int64 (N,) of 0 to num_folds - 1.

    grouped: patients are shuffled by the seed, in folds of nearly equal numbers of patients (scikit-learn's
    GroupKFold), with `sources` (N,) also of nearly equal shares of each source (StratifiedGroupKFold). hashed: the fold
    of a patient depends only on its id, the namespace, the seed and the number of folds, except that an empty fold
    takes the patient nearest to it. Raises InputError for fewer than two folds, or more folds than patients.
    """
    patients, of_image = np.unique(patient_ids, return_inverse=True)
    if not 2 <= num_folds <= len(patients):
        raise InputError(
            f"folds must be 2 to {len(patients):,}, the number of patients outside the test set; got {num_folds}"
        )
    if rule == HASHED:
        shares = draw_shares(namespace, map(str, patients), seed, "fold")
        return _fill_empty(shares, num_folds)[of_image]
    folds = np.empty(len(patient_ids), np.int64)
    kind = GroupKFold if sources is None else StratifiedGroupKFold
    splitter = kind(num_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(patient_ids, sources, groups=patient_ids)):
        folds[held_out] = fold
    return folds


def _fill_empty(shares: np.ndarray, num_folds: int) -> np.ndarray:
    """Assign patients with shares (P,) from 0 to 1 to folds, by equal intervals and without empty folds."""
    folds = np.minimum((shares * num_folds).astype(np.int64), num_folds - 1)
    for empty in np.setdiff1d(np.arange(num_folds), folds):
        distance = np.abs(shares - (empty + 0.5) / num_folds)
        distance[np.bincount(folds, minlength=num_folds)[folds] == 1] = np.inf  # would leave its own fold empty
        folds[distance.argmin()] = empty
    return folds


def choose_test_set(patient_ids: np.ndarray, namespace: str, rule: str, seed: int) -> np.ndarray:
    """Choose a fifth of the patients as test set, by one of SPLIT_RULES; bool (N,), true for their images.

    With hashed, the share is only approximately a fifth; if a side would be empty, it takes the patient nearest to the
    border.
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
            f"{num_of(len(shared), 'patient', 'is')} on two sides of a split (first: {shared[0]}), which biases every "
            "score; fix the split lists so that all images of a patient are in one of them"
        )
