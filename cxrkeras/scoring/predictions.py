"""The logits of a network for a set of images, and the file that stores them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cxrkeras.errors import InputError
from cxrkeras.files import write_text
from cxrkeras.labels import LabelSet, encode_values, known_truth, parse_values
from cxrkeras.scoring.run_files import METRICS, predictions_file
from cxrkeras.text import num_of

if TYPE_CHECKING:
    import tensorflow as tf

LEAST_RANGE = 1e-6  # of a network's logits over images


@dataclass(frozen=True)
class Predictions:
    """Predictions for one set of images.

    image_ids, patient_ids: (N,); values: 1, 0, -1 or NOT_KNOWN of the `labels`, (N, L); logits: (N, L); is_network:
    whether a network computed the logits, so that nearly constant ones mean that it has collapsed; left_out: labels
    whose scores do not count in the mean.
    """

    image_ids: np.ndarray
    patient_ids: np.ndarray
    values: np.ndarray
    logits: np.ndarray
    labels: LabelSet
    is_network: bool = True
    left_out: tuple[str, ...] = ()

    @cached_property
    def truth(self) -> np.ndarray:
        """1, 0, or NaN where a label is uncertain or not known, float64 (N, L)."""
        return known_truth(self.values)

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def num_patients(self) -> int:
        return len(np.unique(self.patient_ids))

    @property
    def counts(self) -> str:
        """The numbers of images and patients, as `9 images of 3 patients`."""
        return f"{num_of(len(self), 'image')} of {num_of(self.num_patients, 'patient')}"

    @property
    def has_patients(self) -> bool:
        """Whether every image has a patient, which valid intervals require."""
        return bool((self.patient_ids != "").all())

    def take(self, rows: np.ndarray) -> Predictions:
        """Select images by a mask or by indices."""
        names = ("image_ids", "patient_ids", "values", "logits")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})

    def choose(self, labels: LabelSet) -> Predictions:
        """Select the columns of some of the labels."""
        columns = [self.labels.index(label) for label in labels]
        left_out = tuple(label for label in self.left_out if label in labels)
        return replace(
            self, values=self.values[:, columns], logits=self.logits[:, columns], labels=labels, left_out=left_out
        )

    def relabel(self, values: np.ndarray) -> Predictions:
        """Return the same predictions with another truth, (N, L)."""
        return replace(self, values=values)

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The labels for which a network gives nearly the same logit to all images."""
        if not self.is_network:
            return ()
        return tuple(name for name, column in zip(self.labels, self.logits.T, strict=True) if is_collapsed(column))

    def flatten(self) -> Predictions:
        """Set the logits of collapsed labels to 0, so that their AUC is 0.5 on any subset of the images."""
        is_flat = np.isin(self.labels.names, self.collapsed)
        return replace(self, logits=np.where(is_flat, 0.0, self.logits), is_network=False) if is_flat.any() else self

    def align(self, other: Predictions) -> Predictions:
        """Reorder the images as in `other`. Raises InputError unless both have the same images, patients and values."""
        places = {image: row for row, image in enumerate(self.image_ids)}
        if places.keys() != set(other.image_ids):
            raise InputError(f"other images ({len(self):,} and {len(other):,})")
        aligned = self.take(np.array([places[image] for image in other.image_ids]))
        differ = (aligned.values != other.values).any(axis=1) | (aligned.patient_ids != other.patient_ids)
        if differ.any():
            raise InputError(f"another truth or patient of {other.image_ids[differ.argmax()]}")
        return aligned


def is_collapsed(logits: np.ndarray) -> bool:
    """Whether finite logits (N,) of a network are nearly constant: a range below 1e-6, or few distinct values.

    Few means fewer than 10, or for fewer than 100 images, fewer than a tenth of their number.
    """
    if not len(logits) or not np.isfinite(logits).all():
        return False
    return bool(np.ptp(logits) < LEAST_RANGE or len(np.unique(logits)) < min(len(logits), 100) / 10)


def save_predictions(path: Path, predictions: Predictions) -> Predictions:
    """Write image_id, patient_id and, for each label, its value and `logit_<Label>`; return the content of the file.

    Values are 1, 0, -1 for uncertain and blank for not known. Logits have nine digits, as float32 requires. All scores
    of a run are computed from the returned predictions.
    """
    columns = {"image_id": predictions.image_ids, "patient_id": predictions.patient_ids}
    texts = encode_values(predictions.values)
    for column, label in enumerate(predictions.labels):
        columns[label] = texts[:, column]
        columns[f"logit_{label}"] = predictions.logits[:, column]
    write_text(path, pd.DataFrame(columns).to_csv(index=False, float_format="%.9g"))
    return load_predictions(path, predictions.labels)


_RESCORE = f"delete the fold's {METRICS}, and the same `cxrkeras train` scores it again"


def load_predictions(path: Path, labels: LabelSet) -> Predictions:
    """Load the predictions of a run. Raises InputError if the file is missing, empty, damaged or repeats an image."""
    if not path.is_file():
        raise InputError(f"{path} is gone: {_RESCORE}")
    logits = [f"logit_{label}" for label in labels]
    try:
        texts = dict.fromkeys(("image_id", "patient_id", *labels), str)
        na_values = {name: ["nan", ""] for name in logits}
        table = pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=na_values)
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error}): {_RESCORE}") from None
    wanted = ["image_id", "patient_id", *labels, *logits]
    if missing := [name for name in wanted if name not in table.columns]:
        raise InputError(
            f"{path} lacks the columns {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}: {_RESCORE}"
        )
    if not len(table):
        raise InputError(f"{path} has no images: {_RESCORE}")
    if table["image_id"].duplicated().any():
        raise InputError(f"{path} has {table['image_id'][table['image_id'].duplicated()].iloc[0]} twice: {_RESCORE}")
    try:
        values = np.stack([parse_values(table[label]) for label in labels], axis=1)
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): {_RESCORE}") from None
    return Predictions(
        table["image_id"].to_numpy(),
        table["patient_id"].to_numpy(),
        values,
        table[logits].apply(pd.to_numeric, errors="coerce").to_numpy(float),
        labels,
    )


def check_sets(sets: Mapping[str, Predictions], counted: Mapping[str, int], folder: Path) -> None:
    """Check sets of predictions. Raises InputError if a number of images differs from `counted` or sets overlap."""
    for name, predictions in sets.items():
        if len(predictions) != counted[name]:
            raise InputError(
                f"{folder / predictions_file(name)} has {num_of(len(predictions), 'image')}, {METRICS} counts "
                f"{counted[name]:,}: another file is in its place; {_RESCORE}"
            )
    for first, second in itertools.combinations(sets.values(), 2):
        images = set(first.image_ids) & set(second.image_ids)
        patients = set(first.patient_ids) & set(second.patient_ids) - {""}
        if images or patients:
            raise InputError(
                f"{folder} has {num_of(len(images), 'image')} and {num_of(len(patients), 'patient')} in its "
                f"predictions of {' and of '.join(sets)}: one file is in the other's place; {_RESCORE}"
            )


def predict_batches(
    predict: Callable[[tf.Tensor], tf.Tensor],
    batches: Iterable[tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]],
    labels: LabelSet,
    progress: Callable[[int], None] = lambda count: None,
) -> Predictions:
    """Run evaluation batches of records through a compiled network; `progress` is called with 1 after each batch."""
    image_ids, patient_ids, values, logits = [], [], [], []
    for images, of_labels, of_image, of_patient in batches:
        logits.append(predict(images).numpy())
        values.append(of_labels.numpy())
        image_ids += [name.decode() for name in of_image.numpy()]
        patient_ids += [name.decode() for name in of_patient.numpy()]
        progress(1)
    return Predictions(
        np.array(image_ids), np.array(patient_ids), np.concatenate(values), np.concatenate(logits), labels
    )
