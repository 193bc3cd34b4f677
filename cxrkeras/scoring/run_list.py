"""All runs in a folder at a glance: network, data, date, scores, size."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from cxrkeras.data.preparation import describe_preparation
from cxrkeras.errors import InputError
from cxrkeras.scoring.calibration import UNCALIBRATED
from cxrkeras.scoring.find_runs import date_fold, list_folds
from cxrkeras.scoring.run import Fold, Run
from cxrkeras.scoring.run_files import EVALUATIONS, RUNS_ROOT, SCORED_SETS, TEST_SET, VALIDATION, Adoption
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
    newest = max(date_fold(fold.folder) for fold in run.folds)
    facts: dict[str, Any] = {
        "finished": datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds"),
        "folds": len(run.folds),
        "megabytes": round(sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file()) / 1e6, 1),
    }
    try:
        first = run.folds[0]
        facts |= {"kind": first.kind, "network": first.network_name, "is_synthetic": first.config.is_synthetic}
        if first.config.adopted:
            return RunSummary(run.name, **facts, started_from=first.config.adopted.source)
        facts |= {
            "records": Path(first.metrics.records).name,
            "split_name": run.split_name,
            "started_from": ", ".join(first.config.members or [first.experiment.model.weights]),
        }
        for name in SCORED_SETS:
            (means,), facts["findings"] = average_findings([run], name)
            facts[{VALIDATION: "validation", TEST_SET: "test"}[name]] = float(means.mean())
    except InputError as error:
        facts["problem"] = str(error)
    return RunSummary(run.name, **facts)


def _describe_folds(run: Run) -> dict[str, str]:
    metrics = run.folds[0].metrics
    folds = [f"{fold.metrics.fold}{f' (epoch {fold.epoch})' if fold.epoch else ''}" for fold in run.folds]
    return {"records": f"{metrics.records}, split {metrics.split_name}", "folds": ", ".join(folds)}


def _describe_input(fold: Fold) -> dict[str, str]:
    prepared = describe_preparation(fold.config.preparation)
    return {"input": f"{fold.size} px, prepared as {prepared}"}


def describe_adoption(adopted: Adoption) -> dict[str, str]:
    """Describe where an adopted network is from, in words, by topic."""
    means = [score for score in adopted.published if score.score.startswith("mean")] or adopted.published
    scores = [f"{score.score} {score.value:.3f} ({score.images})" for score in means]
    facts = {
        "split": adopted.split,
        "source": adopted.source,
        "licence": adopted.licence,
        "citation": adopted.citation,
        "published": "; ".join(scores),
        "SHA-256": adopted.sha256,
        "notes": "; ".join(adopted.notes),
    }
    return {name: value for name, value in facts.items() if value}


def describe_run(run: Run) -> dict[str, str]:
    """Describe a run in words, by topic."""
    first, summary = run.folds[0], summarise_run(run)
    config = first.config
    facts = {
        "folder": str(run.folder),
        "network": summary.network,
        "started from": summary.started_from,
        "labels": f"{len(first.labels)}: {first.labels.describe(20)}",
        "trained on": first.trained_on if config.adopted or "training" in config.parts else "",
        **(_describe_input(first) | describe_adoption(config.adopted) if config.adopted else _describe_folds(run)),
        "sources": ", ".join(f"{source['name']} ({source['kind']})" for source in config.sources),
        "finished": f"{summary.finished}, {summary.megabytes:,.1f} MB on disk",
        "evaluations": ", ".join(sorted(path.name for fold in run.folds for path in
                                        (fold.folder / EVALUATIONS).glob("*"))),
        "software": ", ".join(f"{name} {version}" for name, version in config.versions.items()),
    }  # fmt: skip
    try:
        points = first.operating_points
        is_calibrated = points.calibration.method != UNCALIBRATED
        method = points.calibration.method
        numbers = f"{method} calibrated probabilities" if is_calibrated else "the sigmoid, uncalibrated"
        facts["thresholds"] = f"{points.thresholds.rule}, on {numbers}"
    except InputError as error:
        facts["thresholds"] = str(error)
    facts["problem"] = summary.problem
    return {name: value for name, value in facts.items() if value}
