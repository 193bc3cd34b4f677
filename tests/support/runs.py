"""Run folders as training leaves them, of networks that never were."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd

from cxrkeras.config import dump_experiment, load_experiment
from cxrkeras.labels import NIH
from cxrkeras.scoring.operating_points import build_origin, fit_operating_points, save_operating_points
from cxrkeras.scoring.predictions import Predictions, save_predictions
from cxrkeras.scoring.scores import describe_scores

EXPERIMENT = dump_experiment(load_experiment(settings={"model": {"name": "resnet18", "weights": "none"}}))
NUM_TEST, NUM_FOLD, FOLDS = 300, 120, 3


def make_predictions(seed=0, num=400, patients=100, gap=2.0, noise_seed=0, prefix="", labels=NIH) -> Predictions:
    """Images whose logits are higher by `gap` where a label is; the same seed gives the same images and truth."""
    rng, noise = np.random.default_rng(seed), np.random.default_rng([seed, noise_seed])
    who = np.sort(rng.integers(0, patients, num))
    values = (rng.random((num, len(labels))) < 0.2).astype(np.int8)
    logits = noise.normal(-1.5, 1, values.shape) + gap * values
    ids = np.array([f"{prefix}{n:04d}.png" for n in range(num)])
    return Predictions(ids, np.array([f"{prefix}{n}" for n in who]), values, logits, labels)


def write_run(
    root, name, folds=FOLDS, gap=2.0, noise_seed=0, split="grouped-20-0", data_seed=0, fold_seed=0, epochs=4, labels=NIH
):
    """Write the finished folds of a run; runs of one `data_seed` are on the same images."""
    test = make_predictions(data_seed, NUM_TEST, gap=gap, noise_seed=noise_seed, prefix="t", labels=labels)
    for fold in range(folds):
        folder = root / name / f"fold{fold}"
        folder.mkdir(parents=True)
        validation = make_predictions(
            100 + data_seed + fold, NUM_FOLD, 40, gap=gap, noise_seed=noise_seed, prefix=f"v{fold}-", labels=labels
        )
        noise = np.random.default_rng([noise_seed, fold, 5]).normal(0, 0.3, test.logits.shape)
        parts = {
            "validation": validation,
            "test": replace(test, logits=test.logits + noise),
        }
        metrics = {
            "run": name, "fold": fold, "best_epoch": epochs, "records": "records/none", "split_name": split,
            "is_partial": False, "is_synthetic": True, **{part: describe_scores(one) for part, one in parts.items()},
        }  # fmt: skip
        config = {
            "name": name, "experiment": EXPERIMENT, "records_fingerprint": f"data{data_seed}",
            "folds": {"count": FOLDS, "seed": fold_seed},
            "split_name": split, "is_synthetic": True, "labels": labels.names, "no_finding": labels.no_finding,
            "versions": {"keras": "3"},
            "parts": {part: {"images": len(one), "patients": one.num_patients} for part, one in parts.items()},
        }  # fmt: skip
        for part, predictions in parts.items():
            save_predictions(folder / f"predictions_{part}.csv", predictions)
        fitted_on = build_origin(validation, split, fold)
        save_operating_points(folder, fit_operating_points(validation, fitted_on))
        (folder / "config.json").write_text(json.dumps(config))
        (folder / "metrics.json").write_text(json.dumps(metrics))
        history = pd.DataFrame({"epoch": range(1, epochs + 1), "auc/mean": np.linspace(0.5, 0.8, epochs) + 0.01 * fold})
        history.to_csv(folder / "history.csv", index=False)
    return root / name
