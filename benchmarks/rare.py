"""Measure what losses and sampling do for rare labels: `python -m benchmarks.rare`, about an hour on two cores.

Phantoms with the prevalence of the NIH release, three folds, three seeds; AUC and average precision of the four rarest
findings on the validation set, all else equal. The table is saved in `benchmarks/README.md`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.table import Tables
from cxrkeras.config import Experiment, load_experiment
from cxrkeras.data.dataset import Dataset
from cxrkeras.data.readers import read_dataset
from cxrkeras.phantoms.writing import write_phantoms
from cxrkeras.progress import Progress
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import VALIDATION
from cxrkeras.scoring.scores import score_predictions
from cxrkeras.training.worker import call_in_process

IMAGES, SIZE, FOLDS, SEEDS, EPOCHS, RAREST = 3000, 64, 3, 3, 5, 4
RECIPES = {
    "BCE": "",
    "weighted BCE": "loss.name=weighted_bce",
    "focal loss": "loss.name=focal",
    "asymmetric loss": "loss.name=asymmetric",
    "balanced sampling": "sampling.name=balanced",
}


def convert(dataset: Dataset, folder: Path, progress: Progress) -> None:
    """Write records, for `call_in_process`."""
    from cxrkeras.records.write import write_records

    write_records(dataset, folder, size=SIZE, num_folds=FOLDS, progress=progress)


def train(experiment: Experiment, root: Path, progress: Progress) -> Path:
    """Train one fold and return its folder, for `call_in_process`."""
    from cxrkeras.training.fit import train_fold

    return train_fold(experiment, root=root, progress=progress).fold.folder


def score(fold: Fold, rarest: list[str]) -> tuple[float, float]:
    """Mean AUC and mean average precision over those of the rarest findings that the validation set has."""
    scores = score_predictions(fold.predictions[VALIDATION])
    return tuple(scores.loc[rarest, ["auc", "average_precision"]].mean())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_phantoms(folder / "data", num_images=IMAGES, size=SIZE, prevalence="nih")
        dataset = read_dataset(folder / "data")
        rarest = list(dataset.table[list(dataset.labels.findings)].sum().nsmallest(RAREST).index)
        call_in_process(convert, dataset, folder / "records")
        results = {recipe: [] for recipe in RECIPES}
        for seed in range(SEEDS):
            for fold in range(FOLDS):
                for recipe, overrides in RECIPES.items():
                    settings = {
                        "data": {"records": str(folder / "records"), "fold": fold},
                        "model": {"name": "resnet18", "weights": "none"},
                        "training": {"epochs": EPOCHS, "seed": seed},
                        "optimiser": {"learning_rate": 1e-3},
                        "schedule": {"name": "cosine"},
                    }
                    experiment = load_experiment(settings=settings, overrides=overrides)
                    trained = Fold(call_in_process(train, experiment, folder / "runs"))
                    results[recipe].append(score(trained, rarest))
                    print(f"seed {seed}, fold {fold}, {recipe}: AUC {results[recipe][-1][0]:.3f}", flush=True)
    rows = []
    for recipe, scores in results.items():
        mean, standard_deviation = np.mean(scores, axis=0), np.std(scores, axis=0, ddof=1)
        gain = np.subtract(scores, results["BCE"])
        error = gain.std(axis=0, ddof=1) / np.sqrt(len(gain))
        cells = [f"{mean[i]:.3f} \u00b1 {standard_deviation[i]:.3f}" for i in (0, 1)]
        gains = [f"{gain.mean(axis=0)[i]:+.3f} \u00b1 {error[i]:.3f}" for i in (0, 1)]
        rows.append((recipe, cells[0], gains[0], cells[1], gains[1]))
    tables = Tables("Rare labels", "python -m benchmarks.rare")
    title = (
        f"{', '.join(rarest)}: the rarest findings of {IMAGES:,} phantoms of {SIZE} px with the prevalence of NIH, "
        f"mean over them on the validation set; mean \u00b1 standard deviation over {FOLDS} folds and {SEEDS} seeds; "
        f"gain over BCE in the same fold and seed \u00b1 its standard error; resnet18, {EPOCHS} epochs"
    )
    tables.add(title, ["", "AUC", "gain", "average precision", "gain"], rows)
    tables.save()


if __name__ == "__main__":
    main()
