"""Finds duplicate images under two patients on two sides of a split, which would leak training data into a test."""

import hashlib

import pandas as pd

from cxrkeras.data.dataset import TEST
from cxrkeras.text import num_of

ERROR, DROP = DUPLICATES = ("error", "drop")


def digest_image(pixels: bytes) -> str:
    """Compute the digest of an image's stored pixels; empty for a constant image, which identifies no patient."""
    return "" if pixels == pixels[:1] * len(pixels) else hashlib.blake2b(pixels, digest_size=16).hexdigest()


def find_duplicates(table: pd.DataFrame) -> pd.DataFrame:
    """Find the images to drop so that no picture is under two patients on two sides of a split.

    table: image_id, patient_id, split, fold, path and digest of each image. Of identical pictures those in the test set
    are kept, else those in the lowest fold. Returns the rows of the others with the `reason`, which names the first
    image that is kept.
    """
    digests = table["digest"].fillna("")
    candidates = table[(digests != "") & digests.duplicated(keep=False)].sort_values("image_id")
    with_test, among_folds = [], []
    for _, group in candidates.groupby("digest", sort=False):
        sides = group["fold"].where(group["split"] != TEST, -1)
        if group["patient_id"].nunique() < 2 or sides.nunique() < 2:
            continue
        first = group[sides == sides.min()].iloc[0]
        others = group[sides > sides.min()]
        found = with_test if sides.min() == -1 else among_folds
        found.append(others.assign(reason=f"the same picture as {_describe(first)}, which is kept"))
    found = with_test + among_folds
    columns = [*table.columns, "reason"]
    return pd.concat(found) if found else pd.DataFrame(columns=columns)


def _describe(row: pd.Series) -> str:
    side = "the test set" if row["split"] == TEST else f"fold {row['fold']}"
    return f"{row['image_id']} of patient {row['patient_id']} in {side}"


def describe_duplicates(found: pd.DataFrame) -> str:
    """Describe the result of `find_duplicates` in a sentence with the number and the first pairs."""
    first = [row for _, row in found.head(3).iterrows()]
    pairs = [f"{_describe(row)} is {row['reason'].removesuffix(', which is kept')}" for row in first]
    return (
        f"{num_of(len(found), 'picture', 'is')} under two patients on two sides of a split, so that a network would be "
        f"tested on images it was trained on: {'; '.join(pairs)}{'; ...' if len(found) > 3 else ''}"
    )
