"""Names and shapes of the files in a run folder, and where such folders are found."""

from pathlib import Path
from typing import Literal

import pydantic

from cxrkeras.config import EXPERIMENTS_ROOT, Experiment
from cxrkeras.errors import InputError

RUNS_ROOT = EXPERIMENTS_ROOT / "runs"
MODEL = "model.keras"
HISTORY = "history.csv"
METRICS = "metrics.json"
CROSSVAL = "crossval.csv"
CROSSVAL_EPOCHS = "crossval_epochs.csv"
BACKUP = "backup"
INPUT_CHECK = "input_check.npz"
CALIBRATION = "calibration.json"
THRESHOLDS = "thresholds.json"
TRAINED_ON = "trained_on.json"
TENSORBOARD = "tensorboard"
GRADCAM = "gradcam"

# Folders of pages, and the pages in them
REPORT = "report"
MODEL_CARD = "model_card.md"
COMPARISON = "comparison"
EXPLORATION = "explore"
LOCALISATION = "localisation"


def predictions_file(part: str) -> str:
    """Name of the predictions of a part, `validation` or `test`."""
    return f"predictions_{part}.csv"


class _Counts(pydantic.BaseModel):
    images: int
    patients: int


class _Part(_Counts):
    positives: dict[str, int] | None = None


class _Scores(_Counts):
    labels: list[dict]


class Metrics(pydantic.BaseModel):
    """What stages after training read of metrics.json; it holds more."""

    run: str
    fold: int | str
    best_epoch: int | None
    records: str
    split_name: str
    is_partial: bool
    is_synthetic: bool
    validation: _Scores
    test: _Scores


class Origin(_Counts):
    """What a calibration and thresholds were fitted on: nothing else than validation will do."""

    part: Literal["validation"]
    fold: int | str | None
    split_name: str
    is_verified: bool = True  # false for an ensemble whose members were fitted each on images of its own


class _Folds(pydantic.BaseModel):
    count: int
    seed: int


class Config(pydantic.BaseModel):
    """What stages after training read of config.json; that of an ensemble has members in place of an experiment."""

    name: str
    split_name: str
    records_fingerprint: str
    folds: _Folds
    is_synthetic: bool
    labels: list[str]
    versions: dict[str, str]
    parts: dict[str, _Part]
    experiment: Experiment | None = None
    members: list[str] | None = None
    average: str | None = None
    shares_validation: bool = True
    is_past_known: bool | None = None
    namespace: str | None = None

    @pydantic.model_validator(mode="after")
    def _is_one_or_the_other(self):
        if (self.experiment is None) == (self.members is None or self.average is None):
            raise ValueError("it has neither an experiment nor members with their average")
        if self.members and "shares_validation" not in self.model_fields_set:
            raise ValueError("an ensemble that fits what it cannot verify, as versions before this one made it")
        return self


def find_fold(run: str | None, *, with_network: bool = False) -> Path:
    """The folder of one finished fold: of a run, of a fold given itself, or the newest there is.

    `run` is a name under experiments/runs, a path, or either followed by `/fold<k>`. Of a run the first
    finished fold is taken; the newest one has a network of its own, if that is wanted, and is no ensemble. Raises
    InputError if there is none.
    """
    if not run:
        done = [path.parent for path in RUNS_ROOT.glob(f"*/fold*/{METRICS}")]
        if with_network:
            done = [folder for folder in done if (folder / MODEL).is_file()]
        if not done:
            raise InputError(f"no finished run in {RUNS_ROOT}: train one with `make demo` or `make train MODEL=...`")
        return max(done, key=lambda folder: (folder / METRICS).stat().st_mtime)
    return find_folds(run)[0]


def find_folds(run: str) -> list[Path]:
    """All finished folds of a run, or the one that is named itself, as `find_run` finds them."""
    return _list_folds(find_run(run))


def find_run(run: str) -> Path:
    """The folder of a run with finished folds, or of one finished fold, `<run>/fold<k>`; InputError if there is none.

    An experiment's name is enough for a run's where only one run has it.
    """
    name, slash, fold = run.partition("/fold")
    named = [path for path in RUNS_ROOT.glob("*") if path.name[:-9] == name and path.name[-9:-8] == "-"]
    by_experiment = [path / f"{slash}{fold}".strip("/") for path in named] if len(named) == 1 else []
    for folder in (Path(run), RUNS_ROOT / run, *by_experiment):
        if _list_folds(folder):
            return folder
        if folder.is_dir():
            raise InputError(f"{folder} has no finished fold; the same `make train` goes on with an unfinished one")
    known = sorted({path.parent.name for path in RUNS_ROOT.glob("*/fold*")})
    raise InputError(f"no run {run!r}; there are {', '.join(known) or 'none'} in {RUNS_ROOT}")


def _list_folds(folder: Path) -> list[Path]:
    return [path.parent for path in sorted([*folder.glob(METRICS), *folder.glob(f"fold*/{METRICS}")])]
