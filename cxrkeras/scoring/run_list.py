"""All runs in a folder at a glance: network, data, date, scores, size."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cxrkeras.errors import InputError
from cxrkeras.scoring.find_runs import list_folds
from cxrkeras.scoring.run import Fold, Run
from cxrkeras.scoring.run_files import ENSEMBLE, EVALUATIONS, METRICS, RUNS_ROOT, SCORED_SETS, TEST_SET, VALIDATION
from cxrkeras.scoring.run_scores import average_findings


@dataclass(frozen=True)
class RunSummary:
    """One run: what it is, when its newest fold was finished (UTC), its mean AUCs over folds, and its size on disk.

    validation, test: the mean AUC over the findings defined in all folds, NaN where undefined or unreadable; problem:
    why it cannot be read, blank if it can.
    """

    name: str
    kind: str = ""
    network: str = ""
    records: str = ""
    split_name: str = ""
    folds: int = 0
    finished: str = ""
    validation: float = np.nan
    test: float = np.nan
    findings: int = 0
    is_synthetic: bool = False
    megabytes: float = 0.0
    started_from: str = ""
    problem: str = ""

    def dump(self) -> dict[str, Any]:
        """Return plain JSON values; undefined numbers are None."""
        content = asdict(self)
        return {
            name: None if isinstance(value, float) and np.isnan(value) else value for name, value in content.items()
        }


def list_runs(root: Path = RUNS_ROOT) -> list[RunSummary]:
    """Summarise all runs with finished folds under a folder, the newest first; unreadable ones say why."""
    return sorted(_summarise_all(root), key=lambda run: run.finished, reverse=True)


def _summarise_all(root: Path) -> Iterator[RunSummary]:
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        if folds := list_folds(folder):
            yield summarise_run(Run(folder, [Fold(path) for path in folds]))


def summarise_run(run: Run) -> RunSummary:
    """Summarise a run; scores are computed from its predictions."""
    newest = max((fold.folder / METRICS).stat().st_mtime for fold in run.folds)
    facts: dict[str, Any] = {
        "finished": datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds"),
        "folds": len(run.folds),
        "megabytes": round(sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file()) / 1e6, 1),
    }
    try:
        first = run.folds[0]
        facts |= {
            "kind": first.kind,
            "records": Path(first.metrics.records).name,
            "split_name": run.split_name,
            "is_synthetic": first.metrics.is_synthetic,
            "network": ENSEMBLE if first.config.members else first.experiment.model.name,
            "started_from": ", ".join(first.config.members or [first.experiment.model.weights]),
        }
        for name in SCORED_SETS:
            (means,), facts["findings"] = average_findings([run], name)
            facts[{VALIDATION: "validation", TEST_SET: "test"}[name]] = float(means.mean())
    except InputError as error:
        facts["problem"] = str(error)
    return RunSummary(run.name, **facts)


def describe_run(run: Run) -> dict[str, str]:
    """Describe a run in words, by topic."""
    first, summary = run.folds[0], summarise_run(run)
    config, metrics = first.config, first.metrics
    facts = {
        "folder": str(run.folder),
        "network": summary.network,
        "started from": summary.started_from,
        "labels": f"{len(first.labels)}: {first.labels.describe(20)}",
        "trained on": first.trained_on if "training" in config.parts else "",
        "records": f"{metrics.records}, split {metrics.split_name}",
        "sources": ", ".join(f"{source['name']} ({source['kind']})" for source in config.sources),
        "folds": ", ".join(f"{fold.metrics.fold} (epoch {fold.metrics.best_epoch})" if fold.metrics.best_epoch else
                           str(fold.metrics.fold) for fold in run.folds),
        "finished": f"{summary.finished}, {summary.megabytes:,.1f} MB on disk",
        "evaluations": ", ".join(sorted(path.name for fold in run.folds for path in
                                        (fold.folder / EVALUATIONS).glob("*"))),
        "software": ", ".join(f"{name} {version}" for name, version in config.versions.items()),
    }  # fmt: skip
    try:
        points = first.operating_points
        facts["thresholds"] = f"{points.thresholds.rule}, on {points.calibration.method} calibrated probabilities"
    except InputError as error:
        facts["thresholds"] = str(error)
    facts["problem"] = summary.problem
    return {name: value for name, value in facts.items() if value}
