"""Measure what losses and sampling do for rare labels: `python -m benchmarks.rare`, about an hour on two cores.

Phantoms with the prevalence of the NIH release, three folds, three seeds; AUC and average precision of the four
rarest findings on validation, all else equal. The table stands in `benchmarks/README.md` afterwards.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.table import Tables
from cxrkeras.config import Experiment, load_experiment
from cxrkeras.data.dataset import Release
from cxrkeras.data.release import read_release
from cxrkeras.labels import FINDINGS
from cxrkeras.phantoms.writing import write_phantoms
from cxrkeras.scoring.find_runs import predictions_file
from cxrkeras.training.crossval import in_process

IMAGES, SIZE, FOLDS, SEEDS, EPOCHS, RAREST = 3000, 64, 3, 3, 5, 4
REGIMES = {
    "BCE": "",
    "weighted BCE": "loss.name=weighted_bce",
    "focal loss": "loss.name=focal",
    "asymmetric loss": "loss.name=asymmetric",
    "balanced sampling": "sampling.name=balanced",
}


def convert(release: Release, folder: Path, tell) -> None:
    from cxrkeras.records.write import write_records

    write_records(release, folder, size=SIZE, num_folds=FOLDS)


def train(experiment: Experiment, root: Path, tell) -> Path:
    from cxrkeras.training.fit import train_fold

    return train_fold(experiment, root=root).folder


def score(folder: Path, rarest: list[str]) -> tuple[float, float]:
    """Mean AUC and average precision over those of the rarest that validation has."""
    from cxrkeras.scoring.scores import score_labels

    table = pd.read_csv(folder / predictions_file("validation"))
    truth = table[[name.removeprefix("logit_") for name in table.columns if name.startswith("logit_")]]
    scores = score_labels(truth.to_numpy(), table[[f"logit_{label}" for label in truth.columns]].to_numpy())
    return tuple(scores.loc[rarest, ["auc", "average_precision"]].mean())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantoms(folder / "data", num_images=IMAGES, size=SIZE, prevalence="nih")
        release = read_release(folder / "data")
        rarest = list(release.table[list(FINDINGS)].sum().nsmallest(RAREST).index)
        in_process(convert, release, folder / "records")
        results = {regime: [] for regime in REGIMES}
        for seed in range(SEEDS):
            for fold in range(FOLDS):
                for regime, overrides in REGIMES.items():
                    settings = {
                        "data": {"records": str(folder / "records"), "fold": fold},
                        "model": {"name": "resnet18", "weights": "none"},
                        "training": {"epochs": EPOCHS, "seed": seed},
                        "optimiser": {"learning_rate": 1e-3},
                        "schedule": {"name": "cosine"},
                    }
                    experiment = load_experiment(settings=settings, overrides=overrides)
                    results[regime].append(score(in_process(train, experiment, folder / "runs"), rarest))
                    print(f"seed {seed}, fold {fold}, {regime}: AUC {results[regime][-1][0]:.3f}", flush=True)
    rows = []
    for regime, scores in results.items():
        mean, deviation = np.mean(scores, axis=0), np.std(scores, axis=0, ddof=1)
        gain = np.subtract(scores, results["BCE"])
        error = gain.std(axis=0, ddof=1) / np.sqrt(len(gain))
        cells = [f"{mean[i]:.3f} \u00b1 {deviation[i]:.3f}" for i in (0, 1)]
        gains = [f"{gain.mean(axis=0)[i]:+.3f} \u00b1 {error[i]:.3f}" for i in (0, 1)]
        rows.append((regime, cells[0], gains[0], cells[1], gains[1]))
    tables = Tables("Rare labels", "python -m benchmarks.rare")
    title = (
        f"{', '.join(rarest)}: the rarest findings of {IMAGES:,} phantoms of {SIZE} px with the prevalence of NIH, "
        f"mean over them on validation; mean and deviation over {FOLDS} folds and {SEEDS} seeds; gain over BCE in "
        f"the same fold and seed with its standard error; resnet18, {EPOCHS} epochs"
    )
    tables.add(title, ["", "AUC", "gain", "average precision", "gain"], rows)
    tables.save()


if __name__ == "__main__":
    main()
