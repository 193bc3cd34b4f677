"""Logits of a network for the images of records, and the file they are kept in."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras import labels
from cxrkeras.errors import InputError
from cxrkeras.files import load_shaped, write_text
from cxrkeras.scoring.find_runs import METRICS, Metrics, predictions_file
from cxrkeras.text import num_of

LEAST_RANGE = 1e-6  # of a network's logits over images


@dataclass(frozen=True)
class Predictions:
    """Ids (N,), truth 0 or 1 and logits (N, L) of the images of one set, for the labels `names`.

    is_network: whether a network gave the logits, so that nearly constant ones mean that it has collapsed; left_out:
    labels whose scores do not count in the mean.
    """

    image_ids: np.ndarray
    patient_ids: np.ndarray
    truth: np.ndarray
    logits: np.ndarray
    names: tuple[str, ...] = labels.LABELS
    is_network: bool = True
    left_out: tuple[str, ...] = ()

    @property
    def num_patients(self) -> int:
        return len(np.unique(self.patient_ids))

    @property
    def has_patients(self) -> bool:
        """Whether every image has a patient, without which there are no honest intervals."""
        return bool((self.patient_ids != "").all())

    def take(self, rows: np.ndarray) -> "Predictions":
        """Those of some images, by a mask or by their numbers."""
        arrays = (self.image_ids, self.patient_ids, self.truth, self.logits)
        return replace(
            self, **dict(zip(("image_ids", "patient_ids", "truth", "logits"), (a[rows] for a in arrays), strict=True))
        )

    @property
    def collapsed(self) -> tuple[str, ...]:
        """The labels for which a network says nearly the same of all images."""
        if not self.is_network:
            return ()
        return tuple(name for name, column in zip(self.names, self.logits.T, strict=True) if is_collapsed(column))

    def flatten(self) -> "Predictions":
        """The same with equal logits for collapsed labels, so that their AUC is 0.5 in all images and any of them."""
        is_flat = np.isin(self.names, self.collapsed)
        return replace(self, logits=np.where(is_flat, 0.0, self.logits), is_network=False) if is_flat.any() else self

    def align(self, other: "Predictions") -> "Predictions":
        """Those of `self` in the order of `other`; InputError unless both have the same images, patients and truth."""
        places = {image: row for row, image in enumerate(self.image_ids)}
        if places.keys() != set(other.image_ids):
            raise InputError(f"other images ({len(self.truth):,} and {len(other.truth):,})")
        aligned = self.take(np.array([places[image] for image in other.image_ids]))
        differ = (aligned.truth != other.truth).any(axis=1) | (aligned.patient_ids != other.patient_ids)
        if differ.any():
            raise InputError(f"another truth or patient of {other.image_ids[differ.argmax()]}")
        return aligned


def is_collapsed(logits: np.ndarray) -> bool:
    """Whether a network's finite logits (N,) are nearly one: a range below 1e-6, or few values for so many images.

    Few are fewer than ten in a hundred images and more, and fewer than a tenth in less.
    """
    if not len(logits) or not np.isfinite(logits).all():
        return False
    return bool(np.ptp(logits) < LEAST_RANGE or len(np.unique(logits)) < min(len(logits), 100) / 10)


def save_predictions(path: Path, predictions: Predictions) -> Predictions:
    """Write image_id, patient_id, then for each label its truth and `logit_<Label>`; returns what the file holds.

    Logits have nine digits, which a float32 needs. All scores of a run are computed from what is returned.
    """
    columns = {"image_id": predictions.image_ids, "patient_id": predictions.patient_ids}
    for column, label in enumerate(predictions.names):
        columns[label] = predictions.truth[:, column].astype(int)
        columns[f"logit_{label}"] = predictions.logits[:, column]
    write_text(path, pd.DataFrame(columns).to_csv(index=False, float_format="%.9g"))
    return load_predictions(path)


def load_predictions(path: Path) -> Predictions:
    """Read a predictions file of a run; InputError for one that is missing, empty, damaged or names an image twice."""
    anew = "delete the fold's metrics.json, and the same `make train` scores it anew"
    if not path.is_file():
        raise InputError(f"{path} is gone: {anew}")
    try:
        logits = {f"logit_{label}": ["nan", ""] for label in labels.LABELS}
        table = pd.read_csv(path, dtype={"image_id": str, "patient_id": str}, keep_default_na=False, na_values=logits)
    except ValueError as error:
        raise InputError(f"{path} cannot be read ({error}): {anew}") from None
    wanted = ["image_id", "patient_id", *labels.LABELS, *(f"logit_{label}" for label in labels.LABELS)]
    if missing := [name for name in wanted if name not in table.columns]:
        raise InputError(
            f"{path} lacks the columns {', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}: {anew}"
        )
    if not len(table):
        raise InputError(f"{path} has no images: {anew}")
    if table["image_id"].duplicated().any():
        raise InputError(f"{path} has {table['image_id'][table['image_id'].duplicated()].iloc[0]} twice: {anew}")
    truth = table[list(labels.LABELS)]
    if not truth.isin([0, 1]).all(axis=None):
        raise InputError(f"{path} has labels that are neither 0 nor 1: {anew}")
    logits = table[[f"logit_{label}" for label in labels.LABELS]].apply(pd.to_numeric, errors="coerce")
    return Predictions(
        table["image_id"].to_numpy(),
        table["patient_id"].to_numpy(),
        truth.to_numpy(float),
        logits.to_numpy(float),
    )


def load_parts(folder: Path) -> dict[str, Predictions]:
    """Predictions of a fold's validation and test part; raises as `check_parts`."""
    parts = {part: load_predictions(folder / predictions_file(part)) for part in ("validation", "test")}
    check_parts(parts, folder)
    return parts


def check_parts(parts: dict[str, Predictions], folder: Path) -> None:
    """InputError unless parts have as many images as the fold's metrics say, and no image or patient is in both."""
    metrics = load_shaped(folder / METRICS, Metrics)
    anew = "delete the fold's metrics.json, and the same `make train` scores it anew"
    for part, predictions in parts.items():
        if len(predictions.truth) != metrics[part]["images"]:
            raise InputError(
                f"{folder / predictions_file(part)} has {num_of(len(predictions.truth), 'image')}, {METRICS} counts "
                f"{metrics[part]['images']:,}: another file is in its place; {anew}"
            )
    if len(parts) < 2:
        return
    validation, test = parts["validation"], parts["test"]
    images = set(validation.image_ids) & set(test.image_ids)
    patients = set(validation.patient_ids) & set(test.patient_ids) - {""}
    if images or patients:
        raise InputError(
            f"{folder} has {num_of(len(images), 'image')} and {num_of(len(patients), 'patient')} in its "
            "predictions of validation and "
            f"of test: one file is in the other's place; {anew}"
        )


def predict_batches(
    predict: Callable, batches: Iterable, progress: Callable[[int], None] = lambda count: None
) -> Predictions:
    """Run evaluation batches of records through a compiled network; `progress` is called with 1 after each."""
    image_ids, patient_ids, truth, logits = [], [], [], []
    for images, labels_of_batch, of_image, of_patient in batches:
        logits.append(predict(images).numpy())
        truth.append(labels_of_batch.numpy())
        image_ids += [name.decode() for name in of_image.numpy()]
        patient_ids += [name.decode() for name in of_patient.numpy()]
        progress(1)
    return Predictions(np.array(image_ids), np.array(patient_ids), np.concatenate(truth), np.concatenate(logits))
