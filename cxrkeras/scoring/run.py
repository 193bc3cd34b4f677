"""An open run and its finished folds: files are read and verified on first use."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from cxrkeras.config import CONFIG, Experiment
from cxrkeras.data.preparation import check_preparation
from cxrkeras.errors import InputError
from cxrkeras.files import load_shaped
from cxrkeras.labels import LabelSet
from cxrkeras.models.past import Past, load_past
from cxrkeras.records.folder import Records, open_records
from cxrkeras.scoring.find_runs import find_fold, find_run, list_folds
from cxrkeras.scoring.operating_points import OperatingPoints, load_operating_points
from cxrkeras.scoring.predictions import Predictions, check_sets, load_predictions
from cxrkeras.scoring.run_files import (
    ADOPTED,
    ENSEMBLE,
    FILES,
    HISTORY,
    METRICS,
    MODEL,
    SCORED_SETS,
    TRAINED_ON,
    VALIDATION,
    Config,
    Folds,
    Metrics,
    predictions_file,
)
from cxrkeras.scoring.scores import score_predictions
from cxrkeras.text import num_of

SYNTHETIC = "Trained and scored on synthetic phantoms. It says nothing about radiographs of patients."
PARTIAL = "A subset of the listed images only: not comparable with scores on all of them."


class Fold:
    """A finished fold; opened by `open_fold`."""

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def name(self) -> str:
        """The names of run and fold, as `resnet18-0123abcd/fold0`; of an adopted network its own."""
        folder = self.folder.resolve()
        return folder.parent.name if self.kind == ADOPTED else f"{folder.parent.name}/{folder.name}"

    @cached_property
    def config(self) -> Config:
        return load_shaped(self.folder / CONFIG, Config)

    @cached_property
    def metrics(self) -> Metrics:
        self.require(METRICS)
        return load_shaped(self.folder / METRICS, Metrics)

    @property
    def labels(self) -> LabelSet:
        return self.config.label_set

    @property
    def kind(self) -> str:
        """One of KINDS: trained, ensemble or adopted."""
        return self.config.kind

    @property
    def experiment(self) -> Experiment:
        """The settings of a trained fold."""
        assert self.config.experiment is not None, f"{self.name} was not trained"
        return self.config.experiment

    @property
    def division(self) -> Folds:
        """The division into folds that a run was trained on."""
        assert self.config.folds is not None, f"{self.name} was adopted"
        return self.config.folds

    @property
    def network_name(self) -> str:
        """The name of the network in the registry, or that it is an ensemble."""
        adopted = self.config.adopted
        return ENSEMBLE if self.config.members else adopted.network if adopted else self.experiment.model.name

    @property
    def size(self) -> int:
        """The side of the images that its network takes, in pixels."""
        adopted = self.config.adopted
        return adopted.size if adopted else self.experiment.model.resolved_size

    @property
    def epoch(self) -> int | None:
        """The epoch that was kept; None if there is none or it is not known."""
        return self.config.adopted.epoch if self.config.adopted else self.metrics.best_epoch

    @property
    def shares_validation(self) -> bool:
        """Whether all its networks held out the same validation images; false for an ensemble over folds."""
        return self.config.shares_validation

    def require(self, *files: str) -> None:
        """Check that files exist. Raises InputError that names the first missing one and the reason."""
        for name in files:
            if (self.folder / name).is_file():
                continue
            if name not in FILES[self.kind]:
                what = "an adopted network" if self.kind == ADOPTED else f"an {self.kind}"
                reason = "has no network of its own" if name == MODEL else "does not have one"
                raise InputError(f"{self.folder} has no {name}: {what} {reason}; choose a trained run")
            raise InputError(f"{self.folder} has no {name}: restore it, or retrain the fold")

    def load_predictions(self, name: str) -> Predictions:
        """Load the predictions for a set, `validation` or `test`."""
        if self.kind == ADOPTED:
            self.require(predictions_file(name))
        return load_predictions(self.folder / predictions_file(name), self.labels)

    @cached_property
    def predictions(self) -> dict[str, Predictions]:
        """The predictions for the validation and test set, checked against the metrics and each other."""
        sets = {name: self.load_predictions(name) for name in SCORED_SETS}
        self.check(sets)
        return sets

    def check(self, sets: dict[str, Predictions]) -> None:
        """Check predictions. Raises InputError unless they are those that the metrics were computed from."""
        check_sets(sets, {name: scores.images for name, scores in self.metrics.sets.items()}, self.folder)

    @cached_property
    def operating_points(self) -> OperatingPoints:
        """Calibration and thresholds. Raises InputError if either is missing or damaged."""
        return load_operating_points(self.folder, self.config)

    @cached_property
    def past(self) -> Past:
        """The patients that its networks were trained on."""
        return load_past(self.folder / TRAINED_ON)

    @cached_property
    def records(self) -> Records:
        """The records that it was trained on. Raises InputError if they are missing or were replaced."""
        records = open_records(self.metrics.records)
        if records.manifest.fingerprint != self.config.records_fingerprint:
            raise InputError(f"{records.folder} holds other data than {self.name} was trained on")
        check_preparation(records.manifest.preparation, self.config.preparation, str(records.folder), self.name)
        return records

    def load_history(self, columns: Iterable[str] | None = None) -> pd.DataFrame:
        """Load `epoch` and other columns of history.csv, by default all.

        Raises InputError if it is missing, incomplete or damaged.
        """
        path = self.folder / HISTORY
        if not path.is_file():
            raise InputError(f"{path} is gone")
        try:
            history = pd.read_csv(path)
        except ValueError as error:
            raise InputError(f"{path} cannot be read ({error})") from None
        others = history.columns.drop("epoch", errors="ignore") if columns is None else columns
        wanted = ["epoch", *others]
        if missing := [name for name in wanted if name not in history.columns]:
            raise InputError(f"{path} lacks {missing[0]}")
        history = history[wanted].apply(pd.to_numeric, errors="coerce").astype(float)
        if not len(history) or not np.isfinite(history["epoch"]).all():
            raise InputError(f"{path} has no epochs or invalid ones")
        return history

    def describe(self, predictions: Predictions, name: str) -> str:
        """Describe the images and the split of predictions, for the caption of a figure or table."""
        kind = "synthetic phantoms, " if self.metrics.is_synthetic else ""
        share = ", with a subset of its images" if self.metrics.is_partial else ""
        return f"{self.name}; {kind}{name} set of split {self.metrics.split_name}{share}: {predictions.counts}"

    @property
    def trained_on(self) -> str:
        """A description of the training images."""
        if self.config.adopted:
            return self.config.adopted.trained_on
        counts = self.config.parts.get("training")
        if counts is None:
            raise InputError(f"{self.folder / CONFIG} does not state what the network was trained on")
        split = f"the training set of split {self.config.split_name}"
        data = "synthetic phantoms" if self.config.is_synthetic else split
        return f"{num_of(counts.images, 'image')} of {num_of(counts.patients, 'patient')}, {data}"

    @property
    def unseen(self) -> tuple[str, ...]:
        """Labels without a positive example in the training set."""
        counts = self.config.parts.get("training")
        positives = (counts.positives if counts else None) or {}
        return tuple(label for label, count in positives.items() if not count)

    @property
    def warnings(self) -> list[str]:
        """Limitations of the data that readers of its scores must know."""
        return [SYNTHETIC] * self.metrics.is_synthetic + [PARTIAL] * self.metrics.is_partial

    def list_collapsed(self, name: str) -> tuple[str, ...]:
        """List the labels for which the network has collapsed on a set; for an ensemble over folds, any member."""
        if name == VALIDATION and not self.shares_validation:
            return tuple(self.metrics.validation.collapsed)
        return self.predictions[name].collapsed

    @cached_property
    def aucs(self) -> dict[str, np.ndarray]:
        """AUC of each label by set, float64 (L,), NaN where undefined; computed from the predictions."""
        found = {}
        for name, predictions in self.predictions.items():
            if name == VALIDATION and not self.shares_validation:
                # The validation images were scored by different networks, whose logits have no common scale.
                by_label = self.metrics.validation.aucs
                found[name] = np.array([by_label.get(label, np.nan) for label in self.labels])
            else:
                found[name] = score_predictions(predictions)["auc"].to_numpy(float)
        return found


class Run:
    """The finished folds of a run; opened by `open_run`."""

    def __init__(self, folder: Path, folds: list[Fold]):
        self.folder, self.folds = folder, folds

    @property
    def name(self) -> str:
        is_single = len(self.folds) == 1 and self.folds[0].folder == self.folder
        return self.folds[0].name if is_single else self.folder.resolve().name

    @property
    def labels(self) -> LabelSet:
        return self.folds[0].labels

    @property
    def split_name(self) -> str:
        return self.folds[0].metrics.split_name

    @property
    def size(self) -> str:
        """The number of networks, as `5 folds` or `ensemble of 5`."""
        if members := self.folds[0].config.members:
            return f"{ENSEMBLE} of {len(members)}"
        return num_of(len(self.folds), "fold")


def open_fold(name: str | Path | None = None, *, with_network: bool = False) -> Fold:
    """Open a finished fold: the first of a run, a fold named itself, or the newest. Raises as `find_fold`."""
    return Fold(find_fold(None if name is None else str(name), with_network=with_network))


def open_run(name: str | Path) -> Run:
    """Open all finished folds of a run, or a fold named itself. Raises as `find_run`."""
    folder = find_run(str(name))
    return Run(folder, [Fold(path) for path in list_folds(folder)])
