"""Another truth for images that were predicted: matched by path and label, and its agreement with the records'."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import cohen_kappa_score

from cxrkeras.data.readers import LabelFile
from cxrkeras.errors import InputError
from cxrkeras.labels import NOT_KNOWN, LabelSet, known_truth
from cxrkeras.progress import Advance
from cxrkeras.scoring.intervals import REPLICATES, bootstrap_scores, compute_interval
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.scoring.scores import score_predictions
from cxrkeras.text import num_of


def share_labels(of_network: LabelSet, of_truth: LabelSet, place: str, notes: list[str]) -> LabelSet:
    """Return the labels that a network and a truth both have, in the network's order; notes name the others.

    Raises InputError if there is none that is a finding.
    """
    shared = [label for label in of_network if of_truth.find(label)]
    findings = [label for label in shared if label != of_network.no_finding]
    if not findings:
        raise InputError(
            f"{place} has none of the network's findings: it has {of_truth.describe(8)}, the network "
            f"{of_network.describe(8)}; read the data in other terms, as terms=nih"
        )
    if lacking := [label for label in of_network if label not in shared]:
        notes.append(f"not scored, as {place} does not have them: {', '.join(lacking)}")
    known = {of_truth.find(label) for label in shared}
    if others := [label for label in of_truth if label not in known]:
        notes.append(f"labels that {place} has and the network does not know: {LabelSet(tuple(others)).describe(20)}")
    nothing = of_network.no_finding if of_network.no_finding in shared else None
    if nothing and set(of_network.names) != set(of_truth.names):
        notes.append(f"{nothing} means in each set that none of its own findings is there, which are not the same")
    return LabelSet(tuple(shared), nothing)


def match_truth(
    given: LabelFile, path: Path, predictions: Predictions, notes: list[str], *, is_joined: bool
) -> Predictions:
    """Match another truth with images that were predicted; images and labels that it lacks are left out.

    is_joined: whether the ids begin with the source of the image.
    """
    ids = [str(image_id).partition("/")[2] if is_joined else str(image_id) for image_id in predictions.image_ids]
    rows = _match_images(given.table["image_id"], ids, path)
    here = given.table[rows.notna()]
    if not len(here):
        raise InputError(f"{path} names none of the {num_of(len(predictions), 'image')} evaluated", option="truth")
    labels = share_labels(predictions.labels, given.labels, path.name, [])
    taken = predictions.choose(labels).take(rows.dropna().to_numpy(np.int64))
    notes.append(
        f"the truth of {path.name} covers {num_of(len(here), 'image')} of the {len(predictions):,} evaluated, and "
        f"{len(labels)} of their {len(predictions.labels)} labels"
    )
    return taken.relabel(here[[given.labels.require(label) for label in labels]].to_numpy(np.int8))


def _match_images(names: pd.Series, image_ids: Sequence[str], path: Path) -> pd.Series:
    """Match names of a file to images by their paths, as far as both give them; the row of each, NaN for none.

    Extensions do not count. Raises InputError for a name that may be several images.
    """
    by_ending: dict[str, list[int]] = {}
    by_path: dict[str, list[int]] = {}
    for row, image_id in enumerate(image_ids):
        endings = _list_endings(str(image_id))
        by_path.setdefault(endings[0], []).append(row)
        for ending in endings:
            by_ending.setdefault(ending, []).append(row)

    def find(name: str) -> float:
        whole, *endings = _list_endings(name.replace("\\", "/"))
        found = by_ending.get(whole) or next((by_path[ending] for ending in endings if ending in by_path), [])
        if len(found) > 1:
            first, second = (image_ids[row] for row in found[:2])
            raise InputError(f"{path}: {name} may be {first} or {second}: name it with its folders", option="truth")
        return found[0] if found else np.nan

    return names.map(find)


def _list_endings(image_id: str) -> list[str]:
    """List the path of an image without its extension, and what remains of it without leading folders."""
    folders, slash, name = image_id.rpartition("/")
    stem = name.rpartition(".")[0] or name
    parts = [*folders.split("/"), stem] if slash else [stem]
    return ["/".join(parts[start:]) for start in range(len(parts))]


def tabulate_agreement(
    mined: Predictions,
    other: Predictions,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    advance: Advance = lambda count=1: None,
) -> pd.DataFrame:
    """Compare two truths for the images of `other`, and the scores against each; one row per label.

    Counted are images whose label both know: `images`, `both`, `mined_only`, `other_only`, Cohen's `kappa` (Cohen,
    1960; NaN where both give one value to all images), and `auc_mined`, `auc_other` with `_low` and `_high` of their
    95 % intervals over the same patients.
    """
    rows = {image: row for row, image in enumerate(mined.image_ids)}
    mined = mined.choose(other.labels).take(np.array([rows[image] for image in other.image_ids]))
    is_known = np.isfinite(mined.truth) & np.isfinite(other.truth)
    columns: dict[str, Any] = {"images": is_known.sum(axis=0)}
    pairs = [(first[known] == 1, second[known] == 1) for first, second, known in
             zip(mined.truth.T, other.truth.T, is_known.T, strict=True)]  # fmt: skip
    columns["both"] = [int((first & second).sum()) for first, second in pairs]
    columns["mined_only"] = [int((first & ~second).sum()) for first, second in pairs]
    columns["other_only"] = [int((second & ~first).sum()) for first, second in pairs]
    columns["kappa"] = [cohen_kappa_score(first, second) if len(set(first) | set(second)) > 1 else np.nan
                        for first, second in pairs]  # fmt: skip
    for name, found in (("mined", mined), ("other", other)):
        known = found.relabel(np.where(is_known, found.values, NOT_KNOWN).astype(np.int8))
        columns[f"auc_{name}"] = score_predictions(known)["auc"].to_numpy()
        if known.has_patients:
            drawn = bootstrap_scores(
                known_truth(known.values), known.flatten().logits, known.patient_ids, replicates=replicates, seed=seed,
                advance=advance,
            )  # fmt: skip
            intervals = [compute_interval(column) for column in drawn.auc.T]
            columns[f"auc_{name}_low"] = [interval.low for interval in intervals]
            columns[f"auc_{name}_high"] = [interval.high for interval in intervals]
    return pd.DataFrame(columns, index=pd.Index(other.labels.names, name="label"))
