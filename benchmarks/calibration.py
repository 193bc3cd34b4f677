"""Measure what calibration mends: `python -m benchmarks.calibration`, after `make demo`, three minutes on two cores.

The demo's network is made overconfident on purpose, its logits tripled, and scored on half the patients of phantoms of
another seed, which no part of the demo has seen. Calibration is fitted on the few images of the demo's validation part,
and on those of the other half. The table stands in `benchmarks/README.md` afterwards.
"""

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from scipy.special import expit

from benchmarks.table import Tables
from cxrkeras.data.images import load_image
from cxrkeras.data.release import read_release
from cxrkeras.errors import InputError
from cxrkeras.labels import LABELS
from cxrkeras.models.compiled import compile_network, load_network
from cxrkeras.phantoms.writing import write_phantoms
from cxrkeras.scoring.calibration import METHODS, calibration_error, fit_calibration, least_calibration_error
from cxrkeras.scoring.find_runs import MODEL, RUNS_ROOT, predictions_file
from cxrkeras.scoring.predictions import Predictions, load_predictions

IMAGES, SEED, FACTOR = 4600, 1, 3.0


def predict_new(network, folder: Path) -> Predictions:
    """Predictions for phantoms of another seed."""
    write_phantoms(folder, num_images=IMAGES, size=256, seed=SEED)
    table, size = read_release(folder).table, network.input_shape[1]
    images = np.stack([load_image(Path(path).read_bytes(), size) for path in table["path"]])[..., None]
    predictor = compile_network(network)
    logits = np.concatenate([predictor(images[start : start + 64]).numpy() for start in range(0, len(images), 64)])
    ids, patients = (table[name].to_numpy() for name in ("image_id", "patient_id"))
    return Predictions(ids, patients, table[list(LABELS)].to_numpy(float), logits.astype(float))


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    found = sorted(RUNS_ROOT.glob(f"phantom-*/fold0/{MODEL}"))
    if not found:
        raise InputError("no network of the demo: `make demo` trains one")
    validation = load_predictions(found[-1].with_name(predictions_file("validation")))
    with tempfile.TemporaryDirectory() as folder:
        new = predict_new(load_network(found[-1]), Path(folder) / "phantoms")
    patients = np.unique(new.patient_ids)
    half = np.random.default_rng(SEED).permutation(patients)[: len(patients) // 2]
    in_half = np.isin(new.patient_ids, half)
    test = new.take(~in_half)
    before = calibration_error(test.truth, expit(FACTOR * test.logits)).mean()
    rows = [("none", "", f"{before:.4f}", "1.0", "")]
    for part in (validation, new.take(in_half)):
        for method in METHODS:
            fitted = fit_calibration(part.truth, FACTOR * part.logits, fitted_on={}, method=method)
            probs = fitted.apply(FACTOR * test.logits)
            after = calibration_error(test.truth, probs).mean()
            least = least_calibration_error(probs).mean()
            fitted_on = f"{len(part.truth):,} of {part.num_patients:,}"
            rows.append((method, fitted_on, f"{after:.4f}", f"{before / after:.1f}", f"{least:.4f}"))
    tables = Tables("Calibration", "python -m benchmarks.calibration")
    title = (
        f"calibration error, mean over labels, of logits tripled on purpose, on {len(test.truth):,} phantoms of "
        f"{test.num_patients:,} patients that the network has never seen"
    )
    columns = ["calibration", "fitted on images of patients", "error", "times less", "error if exact"]
    tables.add(title, columns, rows)
    tables.save()


if __name__ == "__main__":
    main()
