"""Other people's predictions: a CSV of any make, read as ours are."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit

from cxrkeras import labels
from cxrkeras.data.csv_table import read_csv_table
from cxrkeras.data.dataset import digest_lines
from cxrkeras.data.nih_tables import OFFICIAL_LISTS, OFFICIAL_SPLIT, TEST_LIST, TRAIN_VAL_LIST, read_list
from cxrkeras.data.release import read_labels
from cxrkeras.errors import InputError
from cxrkeras.labels import find_label
from cxrkeras.scoring.calibration import PROBABILITY_EPSILON
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.text import num_of

IMAGE_COLUMNS = ("image", "image_id", "image_index", "img", "filename", "file", "path", "name")
MOST_UNKNOWN = 0.01  # of the images; with more the label file is likely another one's
_FEW = 5  # positives that scores may part from all others by chance
_ROUNDING = 1e-6  # by which a probability may lie outside of 0 to 1
_NAMED = re.compile(r"^(?:(logit|prob|p|pred)[_ ])?(.*?)(?:[_ ](logit|prob|pred|score))?$", re.IGNORECASE)


@dataclass(frozen=True)
class Foreign:
    """What a file of predictions holds; `people` are age, sex and view by image id, `notes` what was left out."""

    predictions: Predictions
    people: pd.DataFrame
    split_name: str
    part: str
    kind: str  # probabilities or logits, as they came
    notes: list[str]


def read_foreign(path: Path, label_file: Path) -> Foreign:
    """Read predictions with an image column and a column a label, all or some, in any order.

    A column is called `Label`, `prob_Label`, `Label_pred` or `logit_Label`, in any case, with blanks or underscores.
    Truth and patients come of `label_file`, the part of the split lists beside it. Probabilities become logits.
    Raises InputError that says precisely what is mixed up.
    """
    if not path.is_file():
        raise InputError(f"no predictions file {path}")
    table = read_csv_table(path)
    if not len(table):
        raise InputError(f"{path} has no rows")
    truth, left_out, notes = read_labels(label_file)
    images = _read_images(table, path)
    columns = _find_columns(table, path)
    names = tuple(label for label in labels.LABELS if label in columns)
    columns = {label: columns[label] for label in names}
    scores, kind = _read_scores(table, path, columns, notes)
    known = truth.set_index("image_id")
    is_known = images.isin(known.index).to_numpy()
    unknown = [image for image in images[~is_known] if image not in left_out]
    if len(unknown) > MOST_UNKNOWN * len(images):
        raise InputError(
            f"{path} has {len(unknown):,} of {num_of(len(images), 'image')} that {label_file.name} does not "
            "list (first: "
            f"{unknown[0]}): take the label file of these images, or leave them out"
        )
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        notes.append(f"{num_of(len(unknown), 'image', 'is')} left out that {label_file.name} does not list: {shown}")
    if unusable := int((~is_known).sum()) - len(unknown):
        notes.append(f"{num_of(unusable, 'image', 'is')} left out, as their rows in {label_file.name} cannot be used")
    if not is_known.any():
        raise InputError(f"{path}: none of its images has a usable row in {label_file.name}: {'; '.join(notes)}")
    images, scores = images[is_known].to_numpy(), scores[is_known]
    rows = known.loc[images]
    left_out_of_mean = _judge_columns(scores, rows, columns, path, notes)
    part, split_name = _name_part(set(images), set(known.index), label_file.parent, notes)
    logits = scores if kind == "logits" else logit(np.clip(scores, PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON))
    predictions = Predictions(
        images,
        rows["patient_id"].to_numpy(str),
        rows[list(names)].to_numpy(float),
        logits,
        names,
        is_network=False,
        left_out=left_out_of_mean,
    )
    if missing := [label for label in labels.LABELS if label not in names]:
        notes.append(f"{path.name} has no column for {', '.join(missing)}")
    return Foreign(predictions, rows[["age", "sex", "view"]], split_name, part, kind, notes)


def _read_images(table: pd.DataFrame, path: Path) -> pd.Series:
    by_key = {str(name).strip().lower().replace(" ", "_"): name for name in table.columns}
    column = next((by_key[key] for key in IMAGE_COLUMNS if key in by_key), None)
    if column is None:
        raise InputError(
            f"{path} has no column of images: call it image (or {', '.join(IMAGE_COLUMNS[1:])}); its columns are "
            f"{', '.join(map(str, table.columns[:8]))}"
        )
    images = table[column].str.strip().str.replace("\\", "/").str.rpartition("/")[2]
    if (blank := images == "").any():
        raise InputError(f"{path}, line {blank.idxmax()}: no image")
    if (again := images.duplicated()).any():
        raise InputError(
            f"{path} has {num_of(int(again.sum()), 'image')} more than once (first: {images[again].iloc[0]}, line "
            f"{again.idxmax()}): one row an image"
        )
    return images


def _find_columns(table: pd.DataFrame, path: Path) -> dict[str, str]:
    """The column of scores of each label. Where a file has several, logits go before probabilities before bare names,
    as in our own files the bare ones hold the truth."""
    found: dict[str, dict[str, str]] = {}
    strange = []
    for column in map(str, table.columns):
        before, name, after = _NAMED.match(column.strip()).groups()
        whole = find_label(column)
        label = whole or find_label(name)
        if label is None:
            strange.append(column)
            continue
        mark = "" if whole else (before or after).lower()
        kind = "logit" if mark == "logit" else "prob" if mark else "bare"
        if kind in found.setdefault(label, {}):
            raise InputError(f"{path} has two columns for {label}: {found[label][kind]} and {column}; keep one")
        found[label][kind] = column
    if not found:
        raise InputError(
            f"{path} has no column of a label: the labels are {', '.join(labels.LABELS)}, as Label, prob_Label, "
            f"Label_pred or logit_Label; its columns are {', '.join(strange[:8])}"
        )
    marked = [columns for columns in found.values() if "logit" in columns or "prob" in columns]
    if marked and len(marked) < len(found):
        bare = next(columns["bare"] for columns in found.values() if columns not in marked)
        named = next(iter(marked[0].values()))
        raise InputError(f"{path} names some columns as scores ({named}) and others not ({bare}): name all alike")
    chosen = {label: next(columns[kind] for kind in ("logit", "prob", "bare") if kind in columns)
              for label, columns in found.items()}  # fmt: skip
    others = [name for name in strange if name.strip().lower().replace(" ", "_") not in (*IMAGE_COLUMNS, "patient_id")]
    if near := [
        name for name in others if name.lower().startswith(("logit_", "prob_")) or name.lower().endswith("_pred")
    ]:
        raise InputError(f"{path}: {near[0]} names none of the labels: {', '.join(labels.LABELS)}")
    return chosen


def _read_scores(table: pd.DataFrame, path: Path, columns: dict[str, str], notes: list[str]) -> tuple[np.ndarray, str]:
    """Scores, float64 (N, L), and whether they are probabilities or logits."""
    numbers = {}
    for label, column in columns.items():
        numbers[label] = pd.to_numeric(table[column].str.strip(), errors="coerce")
        wrong = ~np.isfinite(numbers[label])
        if wrong.any():
            raise InputError(
                f"{path}: {column} holds {table[column][wrong].iloc[0]!r} in line {wrong.idxmax()}"
                + (f" and no number in {int(wrong.sum()) - 1:,} more" if wrong.sum() > 1 else "")
                + "; a score is a finite number, with a point before its decimals"
            )
    scores = np.stack(list(numbers.values()), axis=1).astype(float)
    kinds = {label: _name_kind(column) for label, column in columns.items()}
    # A sum of shares in floating point may miss 0 or 1 by a little.
    nearly = (scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING)
    may_be_prob = nearly.all(axis=0)
    for k, (label, column) in enumerate(columns.items()):
        if kinds[label] == "prob" and not may_be_prob[k]:
            low, high = scores[:, k].min(), scores[:, k].max()
            raise InputError(
                f"{path}: {column} is named as a probability and holds {low:g} to {high:g}: if these are logits "
                f"call it logit_{label}"
            )
    is_logit = np.array([kinds[label] == "logit" for label in columns])
    if is_logit.any() and not is_logit.all():
        raise InputError(f"{path} mixes logits and probabilities: name all columns logit_Label, or none")
    if is_logit.all() and may_be_prob.all():
        raise InputError(
            f"{path}: the columns are named as logits and all values lie within 0 to 1: if these are probabilities "
            "call them prob_Label; a sigmoid on top of one would change every threshold"
        )
    if np.isin(scores, (0, 1)).all():
        raise InputError(
            f"{path} holds 0 and 1 only: decisions or labels, no scores; an AUC needs what they were made of"
        )
    if is_logit.all():
        return scores, "logits"
    outside = [column for k, column in enumerate(columns.values()) if not may_be_prob[k]]
    if outside and len(outside) < len(columns):
        within = next(column for column in columns.values() if column not in outside)
        raise InputError(
            f"{path} mixes scales: {outside[0]} has values outside 0 to 1 and {within} has none; name the columns "
            "logit_Label or prob_Label"
        )
    if outside and scores.min() >= 0:
        raise InputError(
            f"{path} has values from {scores.min():g} to {scores.max():g} and none below 0: if these are per cent, "
            "divide by 100; if they are logits, call the columns logit_Label"
        )
    if outside:
        return scores, "logits"
    if clipped := int(((scores < 0) | (scores > 1)).sum()):
        notes.append(f"{clipped:,} probabilities lie outside 0 to 1 by up to {_ROUNDING:g} and are taken as 0 or 1")
    return np.clip(scores, 0, 1), "probabilities"


def _name_kind(column: str) -> str:
    """What a column's name says of its scores: logit, prob, or nothing."""
    name = column.lower()
    if "logit" in name:
        return "logit"
    return "" if find_label(name) else "prob"


def _judge_columns(
    scores: np.ndarray, truth: pd.DataFrame, columns: dict[str, str], path: Path, notes: list[str]
) -> tuple[str, ...]:
    """The labels whose scores say too little to count in a mean; InputError for scores that are the truth itself."""
    left_out = []
    for k, (label, column) in enumerate(columns.items()):
        values = np.unique(scores[:, k])
        positive = truth[label].to_numpy() > 0
        # The truth is the truth whichever two values write it down, also turned round.
        if len(values) == 2 and len(np.unique(positive == (scores[:, k] == values[1]))) == 1:
            raise InputError(
                f"{path}: the column {column} is the truth of {label} in {num_of(len(truth), 'image')}: it "
                "holds labels, not "
                "scores; leave it out, or bring the scores"
            )
        if len(values) > 2:
            high, low = scores[positive, k], scores[~positive, k]
            if min(len(high), len(low)) >= _FEW and (high.min() > low.max() or high.max() < low.min()):
                notes.append(f"{column} parts all {len(high):,} positives from all others: was it made of the labels?")
            continue
        left_out.append(label)
        kind = f"the same value, {values[0]:g}, for all images" if len(values) == 1 else (
            f"two values, {values[0]:g} and {values[1]:g}: decisions rather than scores"
        )  # fmt: skip
        notes.append(f"{column} has {kind}; {label} is left out of the mean")
    return tuple(left_out)


def _name_part(images: set[str], listed: set[str], folder: Path, notes: list[str]) -> tuple[str, str]:
    """Part and split name, from the split lists beside the label file if these are there."""
    lists = {}
    for part, name in (("train_val", TRAIN_VAL_LIST), ("test", TEST_LIST)):
        if (folder / name).is_file():
            lists[part] = read_list(folder / name, listed, [])
    own = f"custom-{digest_lines(images)[:8]}"
    if len(lists) < 2:
        notes.append(f"no split lists beside the label file: the split is named by its images, {own}")
        return "given", own
    is_official = all(digest_lines(ids) == OFFICIAL_LISTS[name] for ids, name in
                      zip(lists.values(), (TRAIN_VAL_LIST, TEST_LIST), strict=True))  # fmt: skip
    split = OFFICIAL_SPLIT if is_official else f"custom-{digest_lines(lists['test'])[:8]}"
    inside = {part: len(images & set(ids)) for part, ids in lists.items()}
    for part, count in inside.items():
        if count == len(images):
            if count < len(lists[part]):
                notes.append(
                    f"{count:,} of the {num_of(len(lists[part]), 'image')} of the {part} list are scored: not "
                    "comparable with "
                    "scores of all of them"
                )
            return part, split
    notes.append(
        f"{num_of(inside['train_val'], 'image', 'is')} of the train_val list and {inside['test']:,} of the test "
        "list: no "
        f"figure of "
        "such a mixture is comparable with any other"
    )
    return "mixed", own
