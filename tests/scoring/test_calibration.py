import json
import re

import numpy as np
import pytest
from scipy.special import expit
from sklearn.metrics import brier_score_loss

from cxrkeras.errors import InputError
from cxrkeras.labels import NIH
from cxrkeras.scoring.calibration import (
    METHODS,
    brier_score,
    calibration_error,
    compute_bins,
    fit_calibration,
    least_calibration_error,
    load_calibration,
    save_calibration,
)
from cxrkeras.scoring.operating_points import refit
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import Origin
from cxrkeras.scoring.thresholds import fit_thresholds
from tests.support.runs import write_run

ORIGIN = Origin(part="validation", split_name="nih-official", fold=0, images=1, patients=1)


def draw(num=6000, seed=0, sharpness=1.0, shift=0.0):
    """Draw truth from known probabilities, with their logits after sharpening and shifting, and before."""
    rng = np.random.default_rng(seed)
    right = rng.normal(-1.5, 1.2, (num, 15))
    return (rng.random((num, 15)) < expit(right)).astype(float), sharpness * right + shift, right


@pytest.mark.parametrize("method", METHODS)
def test_an_overconfident_network_is_calibrated(method):
    truth, logits, _ = draw(sharpness=3)
    fitted = fit_calibration(truth, logits, NIH.names, fitted_on=ORIGIN, method=method)
    other_truth, other_logits, right = draw(seed=1, sharpness=3)
    probs = fitted.apply(other_logits, NIH.names)
    before, after = (calibration_error(other_truth, p).mean() for p in (expit(other_logits), probs))
    least = least_calibration_error(other_truth, expit(right)).mean()
    assert after < before / 5
    assert after < 1.6 * least
    assert np.abs(probs - expit(right)).mean() < 0.02


def test_platt_and_temperature_find_the_distortion():
    truth, logits, _ = draw(num=20_000, sharpness=3)
    curve = fit_calibration(truth, logits, NIH.names, fitted_on=ORIGIN, method="temperature").curves["Mass"]
    assert curve.slope == pytest.approx(1 / 3, rel=0.06)
    assert curve.intercept == 0
    truth, logits, _ = draw(num=20_000, sharpness=2, shift=1)
    curve = fit_calibration(truth, logits, NIH.names, fitted_on=ORIGIN).curves["Mass"]
    assert (curve.slope, curve.intercept) == pytest.approx((0.5, -0.5), abs=0.06)


def test_a_temperature_that_leaves_the_mean_far_from_the_prevalence_is_noted():
    truth, logits, _ = draw(num=4000, shift=2)
    temperature, platt = (
        fit_calibration(truth, logits, NIH.names, fitted_on=ORIGIN, method=method)
        for method in ("temperature", "platt")
    )
    means = temperature.apply(logits, NIH.names).mean(axis=0)
    for k, curve in enumerate(temperature.curves.values()):
        assert curve.note.startswith(f"mean probability {means[k]:.3f} at a prevalence of {truth[:, k].mean():.3f}")
    assert not any(curve.note for curve in platt.curves.values())
    truth, logits, _ = draw(num=4000, sharpness=3)
    fitted = fit_calibration(truth, logits, NIH.names, fitted_on=ORIGIN, method="temperature")
    assert not any(curve.note for curve in fitted.curves.values())


def test_calibration_keeps_the_order_and_never_reverses_it():
    truth, logits, _ = draw(num=400)
    for method in METHODS:
        fitted = fit_calibration(truth, logits, NIH.names, fitted_on=ORIGIN, method=method)
        order = np.argsort(logits[:, 3])
        assert (np.diff(fitted.apply(logits, NIH.names)[order, 3]) >= -1e-12).all()
    reversed_ = fit_calibration(truth, -logits, NIH.names, fitted_on=ORIGIN).curves["Mass"]
    assert reversed_.slope == 0
    assert "no better than chance" in reversed_.note
    assert expit(reversed_.intercept) == pytest.approx(truth[:, NIH.index("Mass")].mean(), abs=0.01)


def test_labels_that_cannot_be_fitted_keep_the_sigmoid_with_a_note():
    truth, logits, _ = draw(num=200)
    truth[:, 0], truth[:, 1], logits[3, 2] = 0, 1, np.nan
    fitted = fit_calibration(truth, logits, NIH.names, fitted_on=ORIGIN)
    notes = [fitted.curves[label].note for label in NIH.names[:4]]
    assert ["no positives" in notes[0], "no negatives" in notes[1], "not finite" in notes[2], notes[3] == ""] == [
        True
    ] * 4
    probs = fitted.apply(logits, NIH.names)
    assert probs[:, 0] == pytest.approx(expit(logits[:, 0]))
    assert np.isnan(probs[:, 2]).tolist() == np.isnan(logits[:, 2]).tolist()


def test_rare_and_separable_labels_give_probabilities_between_0_and_1():
    logits = np.linspace(-30, 30, 200)[:, None].repeat(15, axis=1)
    truth = (logits > 0).astype(float)
    truth[:, 1] = 0
    truth[-1, 1] = 1
    probs = fit_calibration(truth, logits, NIH.names, fitted_on=ORIGIN).apply(logits, NIH.names)
    assert ((probs > 0) & (probs < 1)).all()
    constant = fit_calibration(truth, np.zeros_like(logits), NIH.names, fitted_on=ORIGIN).apply(
        np.zeros_like(logits), NIH.names
    )
    assert constant[:, 0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_a_calibration_survives_saving_and_loading(tmp_path, method):
    truth, logits, _ = draw(num=300)
    fitted = fit_calibration(truth, logits, NIH.names, fitted_on=ORIGIN, method=method)
    save_calibration(tmp_path, fitted)
    again = load_calibration(tmp_path, NIH)
    assert again == fitted
    assert json.loads((tmp_path / "calibration.json").read_text())["fitted_on"]["split_name"] == "nih-official"


def test_damaged_files_and_unknown_methods_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no calibration\.json.*cxrkeras calibrate"):
        load_calibration(tmp_path, NIH)
    (tmp_path / "calibration.json").write_text('{"method": "platt", "fitted_on": {}, "labels": {"Mass": {"x": 1}}}')
    with pytest.raises(InputError, match="damaged"):
        load_calibration(tmp_path, NIH)
    with pytest.raises(InputError, match=r"platt, temperature, isotonic; got 'beta'"):
        fit_calibration(*draw(50)[:2], NIH.names, fitted_on=ORIGIN, method="beta")


def test_bins_have_equal_mass_and_errors_match_their_definition():
    probs = np.repeat([0.1, 0.6], 50)
    found = compute_bins(np.random.default_rng(0).permutation(103) / 103, 10)
    assert sorted(len(rows) for rows in found) == [10] * 7 + [11] * 3
    assert sorted(np.concatenate(found)) == list(range(103))
    truth = np.concatenate([np.arange(50) < 10, np.arange(50) < 30]).astype(float)
    error = calibration_error(truth[:, None], probs[:, None], bins=2)
    assert error == pytest.approx([(0.1 * 50 + 0.0 * 50) / 100])
    assert brier_score(truth[:, None], probs[:, None])[0] == pytest.approx(brier_score_loss(truth, probs), abs=1e-12)


def test_equal_probabilities_share_a_bin_whatever_the_order():
    rng = np.random.default_rng(0)
    truth, probs = (rng.random((200, 1)) < 0.15).astype(float), np.full((200, 1), 0.15)
    probs[:60] = 0.4
    order = rng.permutation(200)
    assert calibration_error(truth[order], probs[order]) == pytest.approx(calibration_error(truth, probs))
    constant = np.full((200, 1), truth.mean())
    assert calibration_error(truth, constant) == pytest.approx(0)
    assert len(compute_bins(constant[:, 0])) == 1


def test_the_error_of_exact_probabilities_decreases_with_the_number_of_images():
    rng = np.random.default_rng(0)
    errors = []
    for num in (500, 8000):
        probs = expit(rng.normal(-1, 1, (num, 15)))
        observed = np.mean([calibration_error(rng.random(probs.shape) < probs, probs).mean() for _ in range(20)])
        errors.append(least_calibration_error(np.zeros_like(probs), probs).mean())
        assert errors[-1] == pytest.approx(observed, rel=0.1)
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("missing", ["calibration.json", "thresholds.json"])
def test_loading_never_refits_a_missing_file(tmp_path, missing):
    """The other file holds the user's choice."""
    folder = write_run(tmp_path, "a", 1) / "fold0"
    refit(Fold(folder), method="isotonic", sensitivity=0.9)
    (folder / missing).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=f"has no {missing}: `cxrkeras calibrate"):
        Fold(folder).operating_points  # noqa: B018
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("missing", "options"),
    [
        (["calibration.json"], " --sensitivity 0.9"),
        (["thresholds.json"], " --method isotonic"),
        (["calibration.json", "thresholds.json"], ""),
    ],
)
def test_a_missing_file_is_named_with_the_command_that_keeps_the_chosen_options(tmp_path, missing, options):
    folder = write_run(tmp_path, "a", 1) / "fold0"
    refit(Fold(folder), method="isotonic", sensitivity=0.9)
    for name in missing:
        (folder / name).unlink()
    command = f"`cxrkeras calibrate --run {folder}{options}`"
    with pytest.raises(InputError, match=re.escape(f"{' and no '.join(missing)}: {command} fits it again")):
        Fold(folder).operating_points  # noqa: B018


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": {"name": "weighted_bce"}}, "the loss weighted_bce"),
        ({"loss": {"name": "focal"}}, "the loss focal"),
        ({"sampling": {"name": "balanced"}}, "balanced sampling"),
    ],
)
def test_a_temperature_after_a_training_that_shifts_the_mean_is_refused(tmp_path, change, words):
    folder = write_run(tmp_path, "a", 1) / "fold0"
    refit(Fold(folder), method="temperature")
    config = json.loads((folder / "config.json").read_text())
    config["experiment"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"trained with {words}, which shifts the mean"):
        refit(Fold(folder), method="temperature")
    refit(Fold(folder), method="platt")


@pytest.mark.parametrize("method", ["platt", "temperature", "isotonic"])
def test_unusual_logits_are_fitted_without_library_warnings(method):
    """Warnings are errors here."""
    rng = np.random.default_rng(0)
    truth = (rng.random((60, 9)) < 0.3).astype(float)
    truth[:, 4] = np.arange(60) == 7
    logits = rng.normal(size=(60, 9))
    logits[:, 0] = 0.3  # whose standard deviation is not quite zero
    logits[:, 1] = np.where(truth[:, 1] > 0, 5, -5) + 0.01 * logits[:, 1]  # separable
    logits[:, 2] *= 1e6
    logits[:, 3] = 1e-7 * logits[:, 3]
    logits[:, 6] = 1e6 + logits[:, 6]
    logits[:, 7] = 300 + 1e-3 * logits[:, 7]
    logits[:, 8] *= 1e300
    names = tuple("abcdefghi")
    calibration = fit_calibration(truth, logits, names, fitted_on=ORIGIN, method=method)
    probs = calibration.apply(logits, names)
    assert ((probs >= 0) & (probs <= 1)).all()
    fit_thresholds(truth, probs, names, fitted_on=ORIGIN)


def test_platt_scaling_does_not_depend_on_the_range_of_the_logits():
    truth, logits, _ = draw(num=400)
    near = fit_calibration(truth, logits, NIH.names, fitted_on=ORIGIN).apply(logits, NIH.names)
    far = fit_calibration(truth, 1e4 + 1e-2 * logits, NIH.names, fitted_on=ORIGIN).apply(1e4 + 1e-2 * logits, NIH.names)
    np.testing.assert_allclose(far, near, atol=1e-6)
