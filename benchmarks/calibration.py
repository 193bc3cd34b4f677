"""Measure how much calibration helps: `python -m benchmarks.calibration`, after `make demo`; three minutes.

The demo's network is made overconfident on purpose, its logits tripled, and scored on half the patients of phantoms of
another seed, which no set of the demo contains. Calibration is fitted on the few images of the demo's validation set,
and on those of the other half. The table is saved in `benchmarks/README.md`.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from scipy.special import expit

from benchmarks.table import Tables
from cxrkeras.data.images import load_image
from cxrkeras.data.readers import read_dataset
from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet
from cxrkeras.models.compiled import compile_network, load_network
from cxrkeras.phantoms.writing import write_phantoms
from cxrkeras.scoring.calibration import METHODS, calibration_error, fit_calibration, least_calibration_error
from cxrkeras.scoring.operating_points import build_origin
from cxrkeras.scoring.predictions import Predictions
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import MODEL, RUNS_ROOT, VALIDATION

IMAGES, SEED, FACTOR = 4600, 1, 3.0


def predict_new(network: keras.Model, labels: LabelSet, folder: Path) -> Predictions:
    """Predictions for phantoms of another seed."""
    write_phantoms(folder, num_images=IMAGES, size=256, seed=SEED)
    table, size = read_dataset(folder).table, network.input_shape[1]
    images = np.stack([load_image(Path(path).read_bytes(), size) for path in table["path"]])[..., None]
    predict = compile_network(network)
    logits = np.concatenate([predict(images[start : start + 64]).numpy() for start in range(0, len(images), 64)])
    ids, patients = (table[name].to_numpy() for name in ("image_id", "patient_id"))
    return Predictions(ids, patients, table[list(labels)].to_numpy(np.int8), logits.astype(float), labels)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = sorted(RUNS_ROOT.glob(f"phantom-*/fold0/{MODEL}"))
    if not found:
        raise InputError("no network of the demo: `make demo` trains one")
    fold = Fold(found[-1].parent)
    names = fold.labels.names
    with tempfile.TemporaryDirectory() as folder:
        new = predict_new(load_network(fold.folder / MODEL, fold.labels), fold.labels, Path(folder) / "phantoms")
    patients = np.unique(new.patient_ids)
    half = np.random.default_rng(SEED).permutation(patients)[: len(patients) // 2]
    in_half = np.isin(new.patient_ids, half)
    test = new.take(~in_half)
    before = calibration_error(test.truth, expit(FACTOR * test.logits)).mean()
    rows = [("none", "", f"{before:.4f}", "1.0", "")]
    for held_out in (fold.predictions[VALIDATION], new.take(in_half)):
        fitted_on = build_origin(held_out, fold.metrics.split_name, fold.metrics.fold)
        for method in METHODS:
            logits = FACTOR * held_out.logits
            calibration = fit_calibration(held_out.truth, logits, names, fitted_on=fitted_on, method=method)
            probs = calibration.apply(FACTOR * test.logits, names)
            after = calibration_error(test.truth, probs).mean()
            least = least_calibration_error(test.truth, probs).mean()
            rows.append((method, held_out.counts, f"{after:.4f}", f"{before / after:.1f}", f"{least:.4f}"))
    tables = Tables("Calibration", "python -m benchmarks.calibration")
    title = (
        f"calibration error, mean over labels, of logits tripled on purpose, on {len(test):,} phantoms of "
        f"{test.num_patients:,} patients that the network has never seen"
    )
    columns = ["calibration", "fitted on", "error", "reduced by a factor of", "error if exact"]
    tables.add(title, columns, rows)
    tables.save()


if __name__ == "__main__":
    main()
