import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_score, recall_score

from cxrkeras.errors import InputError
from cxrkeras.labels import NIH
from cxrkeras.scoring.run_files import Origin
from cxrkeras.scoring.thresholds import (
    count_outcomes,
    fit_thresholds,
    load_thresholds,
    save_thresholds,
    score_decisions,
    score_images,
)

ORIGIN = Origin(part="validation", split_name="grouped-20-0", fold=1, images=1, patients=1)
RNG = np.random.default_rng(0)
TRUTH = (RNG.random((500, 15)) < 0.3).astype(float)
PROBS = np.round(np.clip(0.3 * TRUTH + 0.7 * RNG.random((500, 15)), 0, 1), 2)


def youden(truth, probs, threshold):
    found = probs >= threshold
    return found[truth > 0].mean() - found[truth == 0].mean()


def test_youden_is_maximal_over_all_thresholds():
    fitted = fit_thresholds(TRUTH, PROBS, NIH.names, fitted_on=ORIGIN)
    for k, label in enumerate(NIH.names):
        best = max(youden(TRUTH[:, k], PROBS[:, k], threshold) for threshold in np.unique(PROBS[:, k]))
        assert youden(TRUTH[:, k], PROBS[:, k], fitted.values[label]) == pytest.approx(best)


@pytest.mark.parametrize("sensitivity", [None, 0.9])
def test_a_label_without_positives_in_training_gets_no_threshold(sensitivity):
    fitted = fit_thresholds(TRUTH, PROBS, NIH.names, fitted_on=ORIGIN, sensitivity=sensitivity, unseen=("Hernia",))
    assert fitted.values["Hernia"] is None
    assert fitted.notes["Hernia"] == "no threshold: no positives in training"
    assert None not in [value for label, value in fitted.values.items() if label != "Hernia"]


def test_the_lowest_of_equal_thresholds_is_chosen():
    truth, probs = np.array([1.0, 0, 1, 0]), np.array([0.9, 0.8, 0.7, 0.1])
    fitted = fit_thresholds(truth[:, None], probs[:, None], fitted_on=ORIGIN, names=("Mass",))
    assert fitted.values["Mass"] == pytest.approx((0.7 + 0.1) / 2)


@pytest.mark.parametrize("wanted", [0.5, 0.9, 1.0])
def test_the_highest_threshold_that_reaches_the_sensitivity_is_chosen(wanted):
    fitted = fit_thresholds(TRUTH, PROBS, NIH.names, fitted_on=ORIGIN, sensitivity=wanted)
    assert fitted.rule == f"sensitivity>={wanted:g}"
    for k, label in enumerate(NIH.names):
        y, p = TRUTH[:, k] > 0, PROBS[:, k]
        assert (p[y] >= fitted.values[label]).mean() >= wanted
        higher = np.unique(p[p >= fitted.values[label]])[1] if (p >= fitted.values[label]).any() else 1
        assert (p[y] >= higher).mean() < wanted or (wanted == 1.0 and (p[y] >= higher).mean() < 1)


def test_no_probability_lies_on_a_threshold():
    for wanted in (None, 0.9):
        thresholds = fit_thresholds(TRUTH, PROBS, NIH.names, fitted_on=ORIGIN, sensitivity=wanted).array(NIH.names)
        assert np.abs(PROBS - thresholds).min() > 1e-3


def test_labels_without_a_threshold_say_why():
    truth, probs = TRUTH.copy(), PROBS.copy()
    truth[:, 0], truth[:, 1], probs[0, 2], probs[:, 3] = 0, 1, np.nan, 0.2
    fitted = fit_thresholds(truth, probs, NIH.names, fitted_on=ORIGIN)
    assert [fitted.values[label] for label in NIH.names[:4]] == [None] * 4
    said = " ".join(fitted.notes[label] for label in NIH.names[:4])
    assert all(word in said for word in ("no positives", "no negatives", "not finite", "no better than chance"))
    table = score_decisions(truth, probs, fitted.array(NIH.names), NIH.names)
    assert table.iloc[:4]["sensitivity"].isna().all()
    assert table.iloc[4:]["sensitivity"].notna().all()
    assert score_images(truth, probs, fitted.array(NIH.names))["labels"] == 11


def test_decisions_equal_scikit_learn():
    thresholds = np.linspace(0.2, 0.8, 15)
    counts, table = count_outcomes(TRUTH, PROBS, thresholds), score_decisions(TRUTH, PROBS, thresholds, NIH.names)
    for k, label in enumerate(NIH.names):
        y, found = TRUTH[:, k], PROBS[:, k] >= thresholds[k]
        tn, fp, fn, tp = confusion_matrix(y, found, labels=[0, 1]).ravel()
        assert counts[k].tolist() == [tp, fp, fn, tn]
        row = table.loc[label]
        wanted = {
            "sensitivity": recall_score(y, found),
            "specificity": recall_score(y, found, pos_label=0),
            "ppv": precision_score(y, found),
            "npv": precision_score(y, found, pos_label=0),
            "f1": f1_score(y, found),
        }
        for name, value in wanted.items():
            assert row[name] == pytest.approx(value, abs=1e-12)
        assert row["youden"] == pytest.approx(wanted["sensitivity"] + wanted["specificity"] - 1, abs=1e-12)
    whole = score_images(TRUTH, PROBS, thresholds)
    assert whole["exact_match"] == pytest.approx(accuracy_score(TRUTH, thresholds <= PROBS), abs=1e-12)
    assert whole["hamming_loss"] == pytest.approx(((thresholds <= PROBS) != TRUTH).mean(), abs=1e-12)


def test_rates_without_a_denominator_are_undefined():
    table = score_decisions(np.array([[0.0], [0]]), np.array([[0.1], [0.2]]), np.array([0.5]), ("Mass",))
    assert table.loc["Mass", ["sensitivity", "ppv", "f1"]].isna().all()
    assert table.loc["Mass", ["specificity", "npv"]].tolist() == [1, 1]


def test_thresholds_survive_saving_and_loading(tmp_path):
    truth = TRUTH.copy()
    truth[:, 4] = 0
    fitted = fit_thresholds(truth, PROBS, NIH.names, fitted_on=ORIGIN)
    save_thresholds(tmp_path, fitted)
    assert load_thresholds(tmp_path, NIH) == fitted
    with pytest.raises(InputError, match="over 0 and up to 1; got 90"):
        fit_thresholds(TRUTH, PROBS, NIH.names, fitted_on=ORIGIN, sensitivity=90)
