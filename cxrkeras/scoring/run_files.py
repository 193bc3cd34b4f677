"""Names and schemas of the files in a run folder."""

from functools import cached_property
from typing import Any, Literal, Self

import pydantic

from cxrkeras.config import CONFIG, EXPERIMENTS_ROOT, Experiment
from cxrkeras.data.preparation import Preparation
from cxrkeras.labels import NIH, LabelSet

RUNS_ROOT = EXPERIMENTS_ROOT / "runs"
MODEL = "model.keras"
HISTORY = "history.csv"
METRICS = "metrics.json"
CROSSVAL = "crossval.csv"
CROSSVAL_EPOCHS = "crossval_epochs.csv"
BACKUP = "backup"
OOD_CHECK = "input_check.npz"
CALIBRATION = "calibration.json"
CALIBRATED_ON = "calibrated_on.json"  # the patients on whose images an adopted network was calibrated
THRESHOLDS = "thresholds.json"
TRAINED_ON = "trained_on.json"
TENSORBOARD = "tensorboard"
GRADCAM = "gradcam"

# Folders of reports, and files in them
REPORT = "report"
MODEL_CARD = "model_card.md"
COMPARISON = "comparison"
EXPLORATION = "explore"
LOCALISATION = "localisation"
EVALUATIONS = "evaluations"  # on other records, a folder each

PUBLISHED = "published"  # thresholds that came with an adopted network
RECALIBRATION = "recalibration"  # a share of other data that calibration and thresholds are fitted on
VALIDATION, TEST_SET = SCORED_SETS = ("validation", "test")


def predictions_file(name: str) -> str:
    """Return the file name of the predictions for a set, `validation` or `test`."""
    return f"predictions_{name}.csv"


TRAINED, ENSEMBLE, ADOPTED = KINDS = ("trained", "ensemble", "adopted")
_SCORED = (CONFIG, METRICS, CALIBRATION, THRESHOLDS, *map(predictions_file, SCORED_SETS))
# Files required in a fold of each kind. An ensemble has no network of its own, an adopted public network no scores.
FILES = {
    TRAINED: (*_SCORED, MODEL, HISTORY, OOD_CHECK),
    ENSEMBLE: _SCORED,
    ADOPTED: (CONFIG, MODEL, CALIBRATION, THRESHOLDS),
}


class _Counts(pydantic.BaseModel):
    images: int
    patients: int


class SetCounts(_Counts):
    """The size of a set, and for each label the numbers of images in which it is present and known."""

    positives: dict[str, int] | None = None
    known: dict[str, int] | None = None


class LabelScores(pydantic.BaseModel):
    """Scores of a label; undefined ones are None, and the note says why."""

    label: str
    auc: float | None
    average_precision: float | None = None
    positives: int | None = None
    known: int | None = None
    images: int | None = None
    prevalence: float | None = None
    note: str = ""


class SetScores(_Counts):
    """Scores of a set."""

    mean_auc: float | None = None
    mean_auc_findings: int = 0
    collapsed: list[str] = []
    labels: list[LabelScores]
    note: str = ""

    @property
    def aucs(self) -> dict[str, float]:
        """AUC by label, NaN where undefined."""
        return {row.label: float("nan") if row.auc is None else row.auc for row in self.labels}


class Metrics(pydantic.BaseModel):
    """The content of metrics.json; written last, so that a fold with metrics is complete."""

    run: str
    fold: int | str
    best_epoch: int | None  # an ensemble has none
    stopped_early: list[dict[str, Any]] = []
    records: str
    split_name: str
    is_partial: bool
    is_synthetic: bool
    validation: SetScores
    test: SetScores
    peak_memory_mb: int | None = None

    @property
    def sets(self) -> dict[str, SetScores]:
        return {VALIDATION: self.validation, TEST_SET: self.test}


class Origin(_Counts, frozen=True):
    """The data that calibration and thresholds were fitted on: validation or a share of other data, or none, if they
    were published."""

    part: Literal["validation", "recalibration", "published"]
    fold: int | str | None
    split_name: str
    is_verified: bool = True  # false for an ensemble whose members were fitted on different images

    def dump(self) -> dict[str, Any]:
        """Return plain values, as stored in a file."""
        return self.model_dump(exclude={"is_verified"} if self.is_verified else None)


class PublishedScore(pydantic.BaseModel, frozen=True):
    """A score that the authors of a network published, with the images that it is of."""

    score: str  # as in `AUC of Mass`
    value: float
    low: float | None = None
    high: float | None = None
    images: str  # in words, with the split


class Adoption(pydantic.BaseModel, frozen=True, extra="forbid"):
    """Where an adopted network is from, and what is known of it; texts are sentences or parts of them.

    network: its name in the registry; size: side of its images in pixels; sha256: of the file that it was made of;
    trained_on, split: what is known of its training images, and of which others they were separated from; run: the run
    that was packed, None for a public network.
    """

    network: str
    size: int
    source: str
    sha256: str
    licence: str
    trained_on: str
    split: str
    run: str | None = None
    epoch: int | None = None
    citation: str = ""
    published: list[PublishedScore] = []
    notes: list[str] = []


class Folds(pydantic.BaseModel, frozen=True):
    """The division of train_val into folds."""

    count: int
    seed: int
    rule: str | None = None


class Config(pydantic.BaseModel):
    """The content of config.json; that of an ensemble has members instead of an experiment, that of an adopted network
    what is known of it.
    """

    name: str
    split_name: str = ""  # blank for an adopted network, as are the records and folds
    records_fingerprint: str = ""
    folds: Folds | None = None
    is_synthetic: bool
    labels: list[str]
    no_finding: str | None = None
    preparation: Preparation = Preparation()
    versions: dict[str, str]
    parts: dict[str, SetCounts] = {}
    devices: list[str] = []
    experiment: Experiment | None = None
    members: list[str] | None = None
    average: str | None = None
    adopted: Adoption | None = None
    shares_validation: bool = True
    is_past_known: bool | None = None
    namespace: str | None = None
    sources: list[dict[str, Any]] = []  # of the records, as in their manifest; early runs have none

    @pydantic.model_validator(mode="after")
    def _check_kind(self) -> Self:
        is_ensemble = self.members is not None and self.average is not None
        if [self.experiment is not None, is_ensemble, self.adopted is not None].count(True) != 1:
            raise ValueError("it must have one of an experiment, members with their average, and an adoption")
        if self.adopted is None and not (self.split_name and self.records_fingerprint and self.folds):
            raise ValueError("it lacks the split, the records or the folds of a run that was trained")
        if self.members and "shares_validation" not in self.model_fields_set:
            raise ValueError("an ensemble with a fit that it cannot verify, as versions before this one made it")
        LabelSet(tuple(self.labels), self.no_finding)  # raises for labels that are not a set
        return self

    @property
    def kind(self) -> str:
        return ENSEMBLE if self.members else ADOPTED if self.adopted else TRAINED

    @cached_property
    def label_set(self) -> LabelSet:
        """The labels of the network's outputs."""
        names = tuple(self.labels)
        return NIH if names == NIH.names else LabelSet(names, self.no_finding)
