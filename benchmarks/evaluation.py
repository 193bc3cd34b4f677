"""Measure the bootstrap: `make bench-evaluation`, AUC and average precision in 1,000 replicates over patients.

As many images and patients as the official test list has, 15 labels as rare as in the release. The table stands in
`benchmarks/README.md` afterwards.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from benchmarks.table import Tables
from cxrkeras.phantoms.writing import NIH
from cxrkeras.scoring.intervals import REPLICATES, bootstrap_scores

IMAGES, PATIENTS = 25_596, 2_797


def measure() -> dict[str, float]:
    rng = np.random.default_rng(0)
    patients = rng.integers(0, PATIENTS, IMAGES)
    prevalence = np.array([*NIH.values(), 0.385])
    truth = (rng.random((IMAGES, 15)) < prevalence).astype(np.float64)
    scores = rng.normal(size=truth.shape) + truth
    started = time.perf_counter()
    bootstrap_scores(truth, scores, patients)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def loop(replicates: int = 3) -> float:
    """Seconds that scikit-learn's two functions take in a plain loop, from a few replicates."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    truth = (rng.random((IMAGES, 15)) < np.array([*NIH.values(), 0.385])).astype(np.float64)
    scores = rng.normal(size=truth.shape) + truth
    started = time.perf_counter()
    for _ in range(replicates):
        rows = rng.integers(0, IMAGES, IMAGES)
        for y, z in zip(truth[rows].T, scores[rows].T, strict=True):
            roc_auc_score(y, z)
            average_precision_score(y, z)
    return (time.perf_counter() - started) * REPLICATES / replicates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    if parser.parse_args().alone:
        print(json.dumps(measure()))
        return
    runs = []
    for _ in range(3):
        command = [sys.executable, "-m", "benchmarks.evaluation", "--alone"]
        runs.append(json.loads(subprocess.run(command, text=True, capture_output=True, check=True).stdout))
    best = min(run["seconds"] for run in runs)
    peak = max(run["peak"] for run in runs)
    plain = loop()
    tables = Tables("Evaluation", "make bench-evaluation")
    tables.add(
        f"AUC and average precision of 15 labels, {IMAGES:,} images of {PATIENTS:,} patients, {REPLICATES:,} "
        f"replicates",
        ["", "seconds", "ratio", "peak MB of the process"],
        [
            ("bootstrap_scores", f"{best:.1f}", "1.00", f"{peak:.0f}"),
            ("scikit-learn in a loop, from 3 replicates", f"{plain:.0f}", f"{plain / best:.0f}", ""),
        ],
    )
    tables.save()


if __name__ == "__main__":
    main()
