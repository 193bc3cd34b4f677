import json
import re

import numpy as np
import pytest
from runs import write_run
from scipy.special import expit, logit
from sklearn.metrics import brier_score_loss

from cxrkeras.errors import InputError
from cxrkeras.labels import LABELS
from cxrkeras.scoring.calibration import (
    METHODS,
    brier_score,
    calibration_error,
    find_bins,
    fit_calibration,
    least_calibration_error,
    load_calibration,
    save_calibration,
)
from cxrkeras.scoring.operating_points import load_operating_points, refit
from cxrkeras.scoring.thresholds import fit_thresholds

ORIGIN = {"part": "validation", "split_name": "nih-official", "fold": 0, "images": 1, "patients": 1}


def draw(num=6000, seed=0, sharpness=1.0, shift=0.0):
    """Truth drawn from known probabilities, and logits that are these probabilities', sharpened and shifted."""
    rng = np.random.default_rng(seed)
    right = rng.normal(-1.5, 1.2, (num, 15))
    return (rng.random((num, 15)) < expit(right)).astype(float), sharpness * right + shift, right


@pytest.mark.parametrize("method", METHODS)
def test_an_overconfident_network_is_mended(method):
    truth, logits, _ = draw(sharpness=3)
    fitted = fit_calibration(truth, logits, fitted_on=ORIGIN, method=method)
    other_truth, other_logits, right = draw(seed=1, sharpness=3)
    probs = fitted.apply(other_logits)
    before, after = (calibration_error(other_truth, p).mean() for p in (expit(other_logits), probs))
    least = least_calibration_error(expit(right)).mean()
    assert after < before / 5
    assert after < 1.6 * least
    assert np.abs(probs - expit(right)).mean() < 0.02


def test_platt_and_temperature_find_the_distortion():
    truth, logits, _ = draw(num=20_000, sharpness=3)
    curve = fit_calibration(truth, logits, fitted_on=ORIGIN, method="temperature").curves["Mass"]
    assert curve.slope == pytest.approx(1 / 3, rel=0.06)
    assert curve.intercept == 0
    truth, logits, _ = draw(num=20_000, sharpness=2, shift=1)
    curve = fit_calibration(truth, logits, fitted_on=ORIGIN).curves["Mass"]
    assert (curve.slope, curve.intercept) == pytest.approx((0.5, -0.5), abs=0.06)


def test_a_temperature_that_leaves_the_mean_far_from_the_prevalence_is_noted():
    truth, logits, _ = draw(num=4000, shift=2)
    temperature, platt = (
        fit_calibration(truth, logits, fitted_on=ORIGIN, method=method) for method in ("temperature", "platt")
    )
    means = temperature.apply(logits).mean(axis=0)
    for k, curve in enumerate(temperature.curves.values()):
        assert curve.note.startswith(f"mean probability {means[k]:.3f} at a prevalence of {truth[:, k].mean():.3f}")
    assert not any(curve.note for curve in platt.curves.values())
    truth, logits, _ = draw(num=4000, sharpness=3)
    fitted = fit_calibration(truth, logits, fitted_on=ORIGIN, method="temperature")
    assert not any(curve.note for curve in fitted.curves.values())


def test_calibration_keeps_the_order_and_never_turns_it_round():
    truth, logits, _ = draw(num=400)
    for method in METHODS:
        fitted = fit_calibration(truth, logits, fitted_on=ORIGIN, method=method)
        order = np.argsort(logits[:, 3])
        assert (np.diff(fitted.apply(logits)[order, 3]) >= -1e-12).all()
    turned = fit_calibration(truth, -logits, fitted_on=ORIGIN).curves["Mass"]
    assert turned.slope == 0
    assert "no better than chance" in turned.note
    assert expit(turned.intercept) == pytest.approx(truth[:, LABELS.index("Mass")].mean(), abs=0.01)


def test_labels_that_cannot_be_fitted_keep_the_sigmoid_with_a_note():
    truth, logits, _ = draw(num=200)
    truth[:, 0], truth[:, 1], logits[3, 2] = 0, 1, np.nan
    fitted = fit_calibration(truth, logits, fitted_on=ORIGIN)
    notes = [fitted.curves[label].note for label in LABELS[:4]]
    assert ["no positives" in notes[0], "no negatives" in notes[1], "not finite" in notes[2], notes[3] == ""] == [
        True
    ] * 4
    probs = fitted.apply(logits)
    assert probs[:, 0] == pytest.approx(expit(logits[:, 0]))
    assert np.isnan(probs[:, 2]).tolist() == np.isnan(logits[:, 2]).tolist()


def test_one_positive_and_separable_labels_give_probabilities_inside_zero_and_one():
    logits = np.linspace(-30, 30, 200)[:, None].repeat(15, axis=1)
    truth = (logits > 0).astype(float)
    truth[:, 1] = 0
    truth[-1, 1] = 1
    probs = fit_calibration(truth, logits, fitted_on=ORIGIN).apply(logits)
    assert ((probs > 0) & (probs < 1)).all()
    constant = fit_calibration(truth, np.zeros_like(logits), fitted_on=ORIGIN).apply(np.zeros_like(logits))
    assert constant[:, 0] == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_again(tmp_path, method):
    truth, logits, _ = draw(num=300)
    fitted = fit_calibration(truth, logits, fitted_on=ORIGIN, method=method)
    save_calibration(tmp_path, fitted)
    again = load_calibration(tmp_path)
    assert again == fitted
    assert json.loads((tmp_path / "calibration.json").read_text())["fitted_on"]["split_name"] == "nih-official"


def test_damaged_files_and_unknown_methods_are_named(tmp_path):
    with pytest.raises(InputError, match=r"no calibration\.json.*make calibrate"):
        load_calibration(tmp_path)
    (tmp_path / "calibration.json").write_text('{"method": "platt", "fitted_on": {}, "labels": {"Mass": {"x": 1}}}')
    with pytest.raises(InputError, match="damaged"):
        load_calibration(tmp_path)
    with pytest.raises(InputError, match=r"platt, temperature, isotonic; got 'beta'"):
        fit_calibration(*draw(50)[:2], fitted_on=ORIGIN, method="beta")


def test_bins_have_equal_mass_and_errors_are_what_they_say():
    probs = np.repeat([0.1, 0.6], 50)
    parts = find_bins(np.random.default_rng(0).permutation(103) / 103, 10)
    assert sorted(len(part) for part in parts) == [10] * 7 + [11] * 3
    assert sorted(np.concatenate(parts)) == list(range(103))
    truth = np.concatenate([np.eye(50)[0] * 0 + (np.arange(50) < 10), np.arange(50) < 30]).astype(float)
    error = calibration_error(truth[:, None], probs[:, None], bins=2)
    assert error == pytest.approx([(0.1 * 50 + 0.0 * 50) / 100])
    assert brier_score(truth[:, None], probs[:, None])[0] == pytest.approx(brier_score_loss(truth, probs), abs=1e-12)


def test_equal_probabilities_stay_together_whatever_the_order():
    rng = np.random.default_rng(0)
    truth, probs = (rng.random((200, 1)) < 0.15).astype(float), np.full((200, 1), 0.15)
    probs[:60] = 0.4
    order = rng.permutation(200)
    assert calibration_error(truth[order], probs[order]) == pytest.approx(calibration_error(truth, probs))
    constant = np.full((200, 1), truth.mean())
    assert calibration_error(truth, constant) == pytest.approx(0)
    assert len(find_bins(constant[:, 0])) == 1


def test_exact_probabilities_show_an_error_that_falls_with_the_number_of_images():
    rng = np.random.default_rng(0)
    errors = []
    for num in (500, 8000):
        probs = expit(rng.normal(-1, 1, (num, 15)))
        observed = np.mean([calibration_error(rng.random(probs.shape) < probs, probs).mean() for _ in range(20)])
        errors.append(least_calibration_error(probs).mean())
        assert errors[-1] == pytest.approx(observed, rel=0.1)
    assert errors[1] < errors[0] / 3
    assert logit(0.5) == 0


@pytest.mark.parametrize("missing", ["calibration.json", "thresholds.json"])
def test_loading_never_fits_what_is_missing_again(tmp_path, missing):
    """The other file holds what somebody chose."""
    folder = write_run(tmp_path, "a", 1) / "fold0"
    refit(folder, method="isotonic", sensitivity=0.9)
    (folder / missing).unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(InputError, match=f"has no {missing}: `make calibrate"):
        load_operating_points(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("missing", "options"),
    [
        (["calibration.json"], " SENSITIVITY=0.9"),
        (["thresholds.json"], " METHOD=isotonic"),
        (["calibration.json", "thresholds.json"], ""),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_keeps_what_was_chosen(tmp_path, missing, options):
    folder = write_run(tmp_path, "a", 1) / "fold0"
    refit(folder, method="isotonic", sensitivity=0.9)
    for name in missing:
        (folder / name).unlink()
    command = f"`make calibrate RUN={folder}{options}`"
    with pytest.raises(InputError, match=re.escape(f"{' and no '.join(missing)}: {command} fits it again")):
        load_operating_points(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"loss": {"name": "weighted_bce"}}, "the loss weighted_bce"),
        ({"loss": {"name": "focal"}}, "the loss focal"),
        ({"sampling": {"name": "balanced"}}, "balanced sampling"),
    ],
)
def test_a_temperature_after_a_training_that_moves_the_mean_is_refused(tmp_path, change, words):
    folder = write_run(tmp_path, "a", 1) / "fold0"
    refit(folder, method="temperature")
    config = json.loads((folder / "config.json").read_text())
    config["experiment"] |= change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"trained with {words}, which moves the mean"):
        refit(folder, method="temperature")
    refit(folder, method="platt")


@pytest.mark.parametrize("method", ["platt", "temperature", "isotonic"])
def test_odd_logits_are_fitted_without_a_word_of_libraries(method):
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
    calibration = fit_calibration(truth, logits, fitted_on={}, method=method, names=names)
    probs = calibration.apply(logits, names)
    assert ((probs >= 0) & (probs <= 1)).all()
    fit_thresholds(truth, probs, fitted_on={}, names=names)


def test_platts_curve_does_not_depend_on_where_logits_lie():
    truth, logits, _ = draw(num=400)
    there = fit_calibration(truth, logits, fitted_on=ORIGIN).apply(logits)
    far = fit_calibration(truth, 1e4 + 1e-2 * logits, fitted_on=ORIGIN).apply(1e4 + 1e-2 * logits)
    np.testing.assert_allclose(far, there, atol=1e-6)
