"""The names of the files in a data, records and run folder, and how they are written and found."""

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pydantic

from cxrkeras.config import EXPERIMENTS_ROOT, Experiment
from cxrkeras.errors import InputError

PHANTOM_FILE = "phantom.json"

RECORDS_ROOT = Path("records")
MANIFEST = "manifest.json"
INDEX = "index.csv"
BOXES = "boxes.csv"
SKIPPED = "skipped.csv"
PATIENTS = "patients.csv"

RUNS_ROOT = EXPERIMENTS_ROOT / "runs"
CONFIG = "config.json"
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
NO_LOCKS = "CXRKERAS_NO_LOCKS"  # environment variable
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
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


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give the path of a draft that takes the place of `path` once it is written; it is deleted if that fails."""
    draft = path.with_name(f".draft-{path.name}")
    try:
        yield draft
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


@contextmanager
def locked(lock: Path, refusal: str) -> Iterator[None]:
    """Hold a lock file for this process; InputError with the sentence `refusal` where another one holds it.

    The file stays: to delete it while somebody waits for it would let two in.
    """
    import filelock

    if os.environ.get(NO_LOCKS):
        yield
        return
    held = filelock.FileLock(lock, fallback_to_soft=False)
    try:
        held.acquire(blocking=False)
    except filelock.Timeout:
        raise InputError(refusal) from None
    except (NotImplementedError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in _WITHOUT_LOCKS:
            raise
        raise InputError(
            f"{lock.parent} is on a file system without locks, on which two processes could write the same files: use "
            f"another disk, or set {NO_LOCKS}=1 if only one process writes there"
        ) from None
    try:
        yield
    finally:
        held.release()


def make_folder(path: Path) -> None:
    """Make a folder for results; InputError where something else is in its place or none may be written there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be a folder for results ({error.strerror}): move away what is there") from None


def write_text(path: Path, text: str) -> None:
    """Write a file that is either whole or not there, also after a crash or on a full disk."""
    with replacing(path) as draft:
        draft.write_text(text, "utf-8")


def write_bytes(path: Path, content: bytes) -> None:
    """The same for bytes."""
    with replacing(path) as draft:
        draft.write_bytes(content)


def write_json(path: Path, content: dict) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


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


def load_shaped(path: Path, shape: type[pydantic.BaseModel]) -> dict:
    """Read a file of ours whose values have a known shape; InputError that names the file and the value."""
    content = load_json(path)
    try:
        shape.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise InputError(f"{path} is damaged ({place}: {first['msg']}): bring it back, or make it anew") from None
    return content


def load_json(path: Path, keys: tuple[str, ...] = ()) -> dict:
    """Read a file of ours; InputError that names it if it is gone, is not JSON or lacks one of `keys`."""
    if not path.is_file():
        raise InputError(f"{path} is gone: bring it back, or delete its folder and make it anew")
    try:
        content = json.loads(path.read_text("utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds {str(content)[:20]!r}")
        if missing := [key for key in keys if key not in content]:
            raise ValueError(f"it lacks {', '.join(missing)}")
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}): bring it back, or make it anew") from None
    return content


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


def find_records(name: str | None) -> Path:
    """The records folder of a name under records/ or of a path; without a name the newest there is."""
    if name is None:
        done = list(RECORDS_ROOT.glob(f"*/{MANIFEST}"))
        if not done:
            raise InputError(f"no records in {RECORDS_ROOT}: make some with `make records DATA=<data folder>`")
        return max(done, key=lambda path: path.stat().st_mtime).parent
    for folder in (RECORDS_ROOT / name, Path(name)):
        if (folder / MANIFEST).is_file():
            return folder
    known = sorted(path.parent.name for path in RECORDS_ROOT.glob(f"*/{MANIFEST}"))
    raise InputError(f"no finished records {name!r}; there are {', '.join(known) or 'none'} in {RECORDS_ROOT}")
