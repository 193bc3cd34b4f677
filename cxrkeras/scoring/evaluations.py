"""External validations that were written before: found by their folder, and read without a network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from cxrkeras.errors import InputError
from cxrkeras.files import load_shaped
from cxrkeras.scoring.run import Fold, open_fold
from cxrkeras.scoring.run_files import EVALUATIONS, METRICS, RUNS_ROOT


class EvaluationMetrics(pydantic.BaseModel):
    """The content of metrics.json of an evaluation; rows of labels as in `Evaluation.scores`, the mean last."""

    run: str
    records: str
    split: str
    split_name: str
    is_synthetic: bool
    images: int
    patients: int
    labels: list[dict[str, Any]]
    notes: list[str]


@dataclass(frozen=True)
class WrittenEvaluation:
    """An evaluation and the fold that it belongs to."""

    folder: Path
    fold: Fold
    metrics: EvaluationMetrics

    @property
    def name(self) -> str:
        return f"{self.fold.name} on {self.metrics.records}"

    def score(self, label: str, score: str = "auc") -> tuple[float, float, float]:
        """Return a score of a label, or of the mean of findings, with its interval; NaN where undefined."""
        row = next((row for row in self.metrics.labels if row["label"] == label), {})
        value, low, high = (row.get(name) for name in (score, f"{score}_low", f"{score}_high"))
        return _or_nan(value), _or_nan(low), _or_nan(high)


def _or_nan(number: float | None) -> float:
    return float("nan") if number is None else number


def is_evaluation(name: str) -> bool:
    """Whether a name or path is that of an evaluation, `<run>/fold<k>/evaluations/<records>-<8 hex digits>`."""
    return Path(name).resolve().parent.name == EVALUATIONS


def open_evaluation(name: str) -> WrittenEvaluation:
    """Open an evaluation by its path, from here or under experiments/runs. Raises InputError if it is not finished."""
    for folder in (Path(name), RUNS_ROOT / name):
        if (folder / METRICS).is_file():
            fold = open_fold(folder.resolve().parents[1])
            return WrittenEvaluation(folder, fold, load_shaped(folder / METRICS, EvaluationMetrics))
    raise InputError(f"no finished evaluation {name}: `cxrkeras evaluate` writes one")
