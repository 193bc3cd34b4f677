"""External predictions: CSV files from other software, read into the same form as our own."""

import re
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit

from cxrkeras.data.csv_table import read_csv_table
from cxrkeras.data.dataset import digest_lines
from cxrkeras.data.nih_tables import OFFICIAL_LISTS, OFFICIAL_SPLIT, TEST_LIST, TRAIN_VAL_LIST, read_list
from cxrkeras.data.readers import read_labels
from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet, known_truth
from cxrkeras.scoring.calibration import PROBABILITY_EPSILON
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.text import num_of

IMAGE_COLUMNS = ("image", "image_id", "image_index", "img", "filename", "file", "path", "name")
MOST_UNKNOWN = 0.01  # share of images; above it, the label file is probably that of other images
_FEW = 5  # so few positives may be separated from all others by chance
_ROUNDING = 1e-6  # by which a probability may lie outside 0 to 1
_NAMED = re.compile(r"^(?:(logit|prob|p|pred)[_ ])?(.*?)(?:[_ ](logit|prob|pred|score))?$", re.IGNORECASE)


@dataclass(frozen=True)
class ExternalPredictions:
    """The content of a predictions file; `demographics` are age, sex and view by image id, `notes` list omissions."""

    predictions: Predictions
    demographics: pd.DataFrame
    split_name: str
    set_name: str
    kind: str  # probabilities or logits, as in the file
    notes: list[str]


def read_external(
    path: Path, label_file: Path, *, ignore: Sequence[str] = (), normal: str | None = None
) -> ExternalPredictions:
    """Read predictions with an image column and one column per label, for all or some labels in any order.

    Columns are called `Label`, `prob_Label`, `Label_pred` or `logit_Label`, in any case, with spaces or underscores.
    Truth and patients come from `label_file`, the set from the split lists next to it. Probabilities are converted to
    logits. An image is found by its id in `label_file`, or by its file name where only one image has it.
    ignore, normal: as for `read_dataset`. Raises InputError that names the inconsistency.
    """
    if not path.is_file():
        raise InputError(f"no predictions file {path}")
    table = read_csv_table(path)
    if not len(table):
        raise InputError(f"{path} has no rows")
    listed = read_labels(label_file, ignore=ignore, normal=normal)
    notes = list(listed.notes)
    images = _read_images(table, path, {*listed.table["image_id"], *listed.unusable})
    columns = _find_columns(table, path, listed.labels)
    if set(columns) == {listed.labels.no_finding}:
        raise InputError(f"{path} has scores of {listed.labels.no_finding} alone: add a column of a finding")
    labels = listed.labels.choose([label for label in listed.labels if label in columns])
    columns = {label: columns[label] for label in labels}
    scores, kind = _read_scores(table, path, columns, listed.labels, notes)
    known = listed.table.set_index("image_id")
    is_known = _match_images(images, known.index, listed.unusable, path, label_file, notes)
    image_ids, scores = images[is_known].to_numpy(), scores[is_known]
    rows = known.loc[image_ids]
    left_out = _judge_columns(scores, rows, columns, path, notes)
    set_name, split_name = _name_set(set(image_ids), set(known.index), label_file.parent, notes)
    predictions = Predictions(
        image_ids,
        rows["patient_id"].to_numpy(str),
        rows[list(labels)].to_numpy(np.int8),
        scores if kind == "logits" else logit(np.clip(scores, PROBABILITY_EPSILON, 1 - PROBABILITY_EPSILON)),
        labels,
        is_network=False,
        left_out=left_out,
    )
    if missing := [label for label in listed.labels if label not in labels]:
        notes.append(f"{path.name} has no column for {', '.join(missing)}")
    return ExternalPredictions(predictions, rows[["age", "sex", "view"]], split_name, set_name, kind, notes)


def _match_images(
    images: pd.Series, known: pd.Index, unusable: Container[str], path: Path, label_file: Path, notes: list[str]
) -> np.ndarray:
    """Return which images the label file knows, bool (N,). Raises InputError if too few are."""
    is_known: np.ndarray = images.isin(known).to_numpy()
    unknown = [image for image in images[~is_known] if image not in unusable]
    if len(unknown) > MOST_UNKNOWN * len(images):
        raise InputError(
            f"{path} has {len(unknown):,} of {num_of(len(images), 'image')} that {label_file.name} does not list "
            f"(first: {unknown[0]}): use the label file of these images, or leave them out"
        )
    if unknown:
        shown = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        notes.append(f"{num_of(len(unknown), 'image', 'is')} left out that {label_file.name} does not list: {shown}")
    if num_unusable := int((~is_known).sum()) - len(unknown):
        notes.append(
            f"{num_of(num_unusable, 'image', 'is')} left out, as their rows in {label_file.name} cannot be used"
        )
    if not is_known.any():
        raise InputError(f"{path}: none of its images has a usable row in {label_file.name}: {'; '.join(notes)}")
    return is_known


def _read_images(table: pd.DataFrame, path: Path, listed: Collection[str]) -> pd.Series:
    """Read the image ids, those of the label file where it has them."""
    by_key = {str(name).strip().lower().replace(" ", "_"): name for name in table.columns}
    column = next((by_key[key] for key in IMAGE_COLUMNS if key in by_key), None)
    if column is None:
        raise InputError(
            f"{path} has no column of images: call it image (or {', '.join(IMAGE_COLUMNS[1:])}); its columns are "
            f"{', '.join(map(str, table.columns[:8]))}"
        )
    names = table[column].str.strip().str.replace("\\", "/")
    if (blank := names == "").any():
        raise InputError(f"{path}, line {blank.idxmax()}: no image")
    images = _find_ids(names, listed, path)
    if (again := images.duplicated()).any():
        raise InputError(
            f"{path} has {num_of(int(again.sum()), 'image')} more than once (first: {images[again].iloc[0]}, line "
            f"{again.idxmax()}): one row per image"
        )
    return images


def _find_ids(names: pd.Series, listed: Collection[str], path: Path) -> pd.Series:
    """Find the id of each image: the one it is named by, or the only one with its file name; else the file name."""
    by_path = {image.replace("\\", "/"): image for image in listed}
    by_file: dict[str, list[str]] = {}
    for image in by_path:
        by_file.setdefault(image.rpartition("/")[2], []).append(image)

    def find(name: str) -> str:
        file = name.rpartition("/")[2]
        same = [name] if name in by_path else by_file.get(file, [])
        if len(same) > 1:
            raise InputError(f"{path}: {name} may be {' or '.join(sorted(same)[:2])}: name it with its folder")
        return by_path[same[0]] if same else file

    return names.map(find)


def _find_columns(table: pd.DataFrame, path: Path, labels: LabelSet) -> dict[str, str]:
    """Find the column of scores for each label.

    If there are several, logits take precedence over probabilities, and these over bare names, which hold the truth in
    our own files.
    """
    found: dict[str, dict[str, str]] = {}
    unmatched = []
    for column in map(str, table.columns):
        named = _NAMED.match(column.strip())
        whole = labels.find(column)
        label = whole or (labels.find(named[2]) if named else None)
        if label is None:
            unmatched.append(column)
            continue
        mark = "" if whole or named is None else (named[1] or named[3]).lower()
        kind = "logit" if mark == "logit" else "prob" if mark else "bare"
        if kind in found.setdefault(label, {}):
            raise InputError(f"{path} has two columns for {label}: {found[label][kind]} and {column}; keep one")
        found[label][kind] = column
    if not found:
        raise InputError(
            f"{path} has no column of a label: the labels are {labels.describe()}, as Label, prob_Label, "
            f"Label_pred or logit_Label; its columns are {', '.join(unmatched[:8])}"
        )
    marked = [columns for columns in found.values() if "logit" in columns or "prob" in columns]
    if marked and len(marked) < len(found):
        bare = next(columns["bare"] for columns in found.values() if columns not in marked)
        example = next(iter(marked[0].values()))
        raise InputError(f"{path} names some columns as scores ({example}) and others not ({bare}): name all alike")
    chosen = {label: next(columns[kind] for kind in ("logit", "prob", "bare") if kind in columns)
              for label, columns in found.items()}  # fmt: skip
    others = [
        name for name in unmatched if name.strip().lower().replace(" ", "_") not in (*IMAGE_COLUMNS, "patient_id")
    ]
    if near := [
        name for name in others if name.lower().startswith(("logit_", "prob_")) or name.lower().endswith("_pred")
    ]:
        raise InputError(f"{path}: {near[0]} names none of the labels: {labels.describe()}")
    return chosen


def _read_numbers(table: pd.DataFrame, path: Path, columns: Iterable[str]) -> np.ndarray:
    """Parse columns of scores, float64 (N, L). Raises InputError for a value that is not a finite number."""
    numbers = []
    for column in columns:
        values = pd.to_numeric(table[column].str.strip(), errors="coerce")
        is_wrong = ~np.isfinite(values)
        if is_wrong.any():
            raise InputError(
                f"{path}: {column} holds {table[column][is_wrong].iloc[0]!r} in line {is_wrong.idxmax()}"
                + (f" and no number in {int(is_wrong.sum()) - 1:,} more" if is_wrong.sum() > 1 else "")
                + "; a score is a finite number with a decimal point"
            )
        numbers.append(values)
    return np.stack(numbers, axis=1).astype(float)


def _read_scores(
    table: pd.DataFrame, path: Path, columns: dict[str, str], labels: LabelSet, notes: list[str]
) -> tuple[np.ndarray, str]:
    """Read scores, float64 (N, L), and whether they are probabilities or logits."""
    scores = _read_numbers(table, path, columns.values())
    # Sums of floating-point shares may miss 0 or 1 slightly.
    may_be_prob: np.ndarray = np.all((scores >= -_ROUNDING) & (scores <= 1 + _ROUNDING), axis=0)
    if _check_names(scores, may_be_prob, columns, labels, path):
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


def _check_names(
    scores: np.ndarray, may_be_prob: np.ndarray, columns: dict[str, str], labels: LabelSet, path: Path
) -> bool:
    """Whether the columns are named as logits. Raises InputError if their names contradict each other or the values."""
    kinds = {label: _name_kind(column, labels) for label, column in columns.items()}
    for k, (label, column) in enumerate(columns.items()):
        if kinds[label] == "prob" and not may_be_prob[k]:
            low, high = scores[:, k].min(), scores[:, k].max()
            raise InputError(
                f"{path}: {column} is named as a probability and holds {low:g} to {high:g}: if these are logits, "
                f"call it logit_{label}"
            )
    is_logit = np.array([kinds[label] == "logit" for label in columns])
    if is_logit.any() and not is_logit.all():
        raise InputError(f"{path} mixes logits and probabilities: name all columns logit_Label, or none")
    if is_logit.all() and may_be_prob.all():
        raise InputError(
            f"{path}: the columns are named as logits and all values lie within 0 to 1: if these are probabilities, "
            "call them prob_Label; applying a sigmoid to probabilities would change every threshold"
        )
    if np.isin(scores, (0, 1)).all():
        raise InputError(
            f"{path} holds 0 and 1 only: decisions or labels, not scores; an AUC needs the scores behind them"
        )
    return bool(is_logit.all())


def _name_kind(column: str, labels: LabelSet) -> str:
    """Return the kind of scores that the name of a column states: logit, prob, or empty."""
    if not labels.find(column) and "logit" in column.lower():
        return "logit"
    return "" if labels.find(column) else "prob"


def _judge_columns(
    scores: np.ndarray, truth: pd.DataFrame, columns: dict[str, str], path: Path, notes: list[str]
) -> tuple[str, ...]:
    """Find labels with scores too coarse to count in a mean. Raises InputError for scores that are the truth itself."""
    left_out = []
    for k, (label, column) in enumerate(columns.items()):
        values = np.unique(scores[:, k])
        known = known_truth(truth[label].to_numpy())
        is_known, positive, negative = np.isfinite(known), known == 1, known == 0
        # The truth may be encoded by any two values, also in reverse.
        if len(values) == 2 and len(np.unique((positive == (scores[:, k] == values[1]))[is_known])) == 1:
            raise InputError(
                f"{path}: the column {column} is the truth of {label} in {num_of(int(is_known.sum()), 'image')}: it "
                "holds labels, not scores; remove it, or replace it by scores"
            )
        if len(values) > 2:
            high, low = scores[positive, k], scores[negative, k]
            if min(len(high), len(low)) >= _FEW and (high.min() > low.max() or high.max() < low.min()):
                notes.append(
                    f"{column} separates all {len(high):,} positives from all others: was it computed from the labels?"
                )
            continue
        left_out.append(label)
        kind = f"the same value, {values[0]:g}, for all images" if len(values) == 1 else (
            f"two values, {values[0]:g} and {values[1]:g}: decisions rather than scores"
        )  # fmt: skip
        notes.append(f"{column} has {kind}; {label} is left out of the mean")
    return tuple(left_out)


def _name_set(images: set[str], listed: set[str], folder: Path, notes: list[str]) -> tuple[str, str]:
    """Name the set and the split, from the split lists next to the label file if they exist."""
    lists = {}
    for kind, name in (("train_val", TRAIN_VAL_LIST), ("test", TEST_LIST)):
        if (folder / name).is_file():
            lists[kind] = read_list(folder / name, listed, [])
    own = f"custom-{digest_lines(images)[:8]}"
    if len(lists) < 2:
        notes.append(f"no split lists next to the label file: the split is named by its images, {own}")
        return "given", own
    is_official = all(digest_lines(ids) == OFFICIAL_LISTS[name] for ids, name in
                      zip(lists.values(), (TRAIN_VAL_LIST, TEST_LIST), strict=True))  # fmt: skip
    split = OFFICIAL_SPLIT if is_official else f"custom-{digest_lines(lists['test'])[:8]}"
    inside = {kind: len(images & set(ids)) for kind, ids in lists.items()}
    for kind, count in inside.items():
        if count == len(images):
            if count < len(lists[kind]):
                notes.append(
                    f"{count:,} of the {num_of(len(lists[kind]), 'image')} of the {kind} list are scored: not "
                    "comparable with scores on all of them"
                )
            return kind, split
    notes.append(
        f"{num_of(inside['train_val'], 'image', 'is')} of the train_val list and {inside['test']:,} of the test list: "
        "scores on such a mixture are not comparable with any others"
    )
    return "mixed", own
