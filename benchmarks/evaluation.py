"""Measure the bootstrap: `make bench-evaluation`, AUC and average precision in 1,000 replicates over patients.

As many images and patients as the official test list has, 15 labels as rare as in the NIH release. The table is saved
in `benchmarks/README.md`.
"""

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

from benchmarks.table import Tables
from cxrkeras.labels import NIH
from cxrkeras.phantoms.writing import AS_NIH
from cxrkeras.scoring.intervals import REPLICATES, bootstrap_scores

IMAGES, PATIENTS = 25_596, 2_797
PREVALENCE = np.array([*AS_NIH.values(), 0.385])  # of the findings and of no finding, in the order of NIH


def draw_scores(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores, float64 (N, L)."""
    truth = (rng.random((IMAGES, len(NIH))) < PREVALENCE).astype(np.float64)
    return truth, rng.normal(size=truth.shape) + truth


def measure() -> dict[str, float]:
    """Seconds of `bootstrap_scores` and the peak memory of this process."""
    rng = np.random.default_rng(0)
    patients = rng.integers(0, PATIENTS, IMAGES)
    truth, scores = draw_scores(rng)
    started = time.perf_counter()
    bootstrap_scores(truth, scores, patients)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def time_sklearn(replicates: int = 3) -> float:
    """Seconds of scikit-learn's two functions in a plain loop, extrapolated from a few replicates."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    rng = np.random.default_rng(0)
    truth, scores = draw_scores(rng)
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
    results = []
    for _ in range(3):
        command = [sys.executable, "-m", "benchmarks.evaluation", "--alone"]
        results.append(json.loads(subprocess.run(command, text=True, capture_output=True, check=True).stdout))
    best = min(result["seconds"] for result in results)
    peak = max(result["peak"] for result in results)
    plain = time_sklearn()
    tables = Tables("Evaluation", "make bench-evaluation")
    tables.add(
        f"AUC and average precision of {len(NIH)} labels, {IMAGES:,} images of {PATIENTS:,} patients, "
        f"{REPLICATES:,} replicates",
        ["", "seconds", "ratio", "peak MB of the process"],
        [
            ("bootstrap_scores", f"{best:.1f}", "1.00", f"{peak:.0f}"),
            ("scikit-learn in a loop, from 3 replicates", f"{plain:.0f}", f"{plain / best:.0f}", ""),
        ],
    )
    tables.save()


if __name__ == "__main__":
    main()
