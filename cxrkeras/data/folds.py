"""Cuts by patient: folds for cross-validation, and a test part where a release has none."""

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold, GroupShuffleSplit

from cxrkeras.errors import InputError

TEST_SHARE = 0.2


def assign_folds(patient_ids: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Give every image the fold of its patient; int64 (N,) of 0 to num_folds - 1.

    Patients are shuffled by the seed and folds have as equal a number of them as can be (GroupKFold of
    scikit-learn). Raises InputError with fewer patients than folds, or fewer than two folds.
    """
    num_patients = len(np.unique(patient_ids))
    if not 2 <= num_folds <= num_patients:
        raise InputError(f"FOLDS must be 2 to the {num_patients} patients of the training part; got {num_folds}")
    folds = np.empty(len(patient_ids), np.int64)
    cut = GroupKFold(num_folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(cut.split(patient_ids, groups=patient_ids)):
        folds[held_out] = fold
    return folds


def cut_test_part(patient_ids: np.ndarray, seed: int) -> np.ndarray:
    """Choose a fifth of the patients for testing; bool (N,), true for their images."""
    if len(np.unique(patient_ids)) < 2:
        raise InputError("a test part needs images of at least two patients")
    cut = GroupShuffleSplit(1, test_size=TEST_SHARE, random_state=seed)
    _, test = next(cut.split(patient_ids, groups=patient_ids))
    is_test = np.zeros(len(patient_ids), bool)
    is_test[test] = True
    return is_test


def check_patients(table: pd.DataFrame) -> None:
    """Raise InputError if a patient is in both splits, or in two folds. Needs patient_id, split and fold."""
    sides = table.groupby("patient_id")[["split", "fold"]].nunique().max(axis=1)
    shared = sides.index[sides > 1]
    if len(shared):
        raise InputError(
            f"{len(shared)} patients are on two sides of a split (first: {shared[0]}): every score would be too good; "
            "mend the split lists so that all images of a patient are in one of them"
        )
