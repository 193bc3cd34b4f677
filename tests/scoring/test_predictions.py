import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from cxrkeras.labels import NIH, NOT_KNOWN, UNCERTAIN
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.compiled import compile_live, compile_network
from cxrkeras.scoring.evaluation import MEAN, evaluate
from cxrkeras.scoring.notes import COLLAPSED
from cxrkeras.scoring.predictions import Predictions, is_collapsed, save_predictions
from cxrkeras.scoring.scores import describe_scores, format_count, format_mean, score_predictions
from tests.support.networks import draw_images, draw_weights


def test_predictors_equal_the_network_and_only_the_live_one_follows_its_weights():
    network, images = build_classifier("resnet18", 32, 15), draw_images(5, 32)
    draw_weights(network, images)
    predictor, live = compile_network(network), compile_live(network)
    before = network(images, training=False).numpy()
    np.testing.assert_allclose(predictor(images), before, atol=1e-5)
    np.testing.assert_allclose(live(images), before, atol=1e-5)
    network.get_layer("logits").bias.assign_add(np.ones(15))
    np.testing.assert_allclose(predictor(images), before, atol=1e-5)
    np.testing.assert_allclose(live(images), before + 1, atol=1e-5)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        (np.zeros(200), True),
        (5 + 1e-7 * np.arange(5), True),
        (np.repeat(np.arange(9.0), 20), True),  # nine values in 180 images
        (np.repeat(np.arange(10.0), 20), False),
        (np.arange(6.0), False),
        (np.repeat([1.0, 2.0], 15), True),  # two values in 30
        (np.array([0.0, np.nan]), False),
        (np.array([]), False),
    ],
)
def test_collapse(logits, expected):
    assert is_collapsed(logits) is expected


def make(logits, **options):
    num = len(logits)
    rng = np.random.default_rng(0)
    ids = np.array([f"{k}.png" for k in range(num)])
    patients = np.array([["nan", "NA", "", "007", "null"][k % 5] for k in range(num)])
    return Predictions(ids, patients, (rng.random((num, 15)) < 0.3).astype(np.int8), logits, NIH, **options)


def test_float32_logits_and_patients_of_any_name_survive_saving(tmp_path):
    logits = np.random.default_rng(1).normal(size=(50, 15)).astype(np.float32) * np.float32(1e-3) - 1
    predictions = make(logits.astype(float))
    again = save_predictions(tmp_path / "a.csv", predictions)
    assert np.array_equal(again.logits.astype(np.float32), logits)
    assert again.patient_ids.tolist() == predictions.patient_ids.tolist()
    nearly = make((-1 + 3e-6 * np.random.default_rng(2).random((50, 15))).astype(np.float32).astype(float))
    same = save_predictions(tmp_path / "b.csv", nearly)  # seven digits would not distinguish them
    assert score_predictions(same)["auc"].equals(score_predictions(nearly)["auc"])


def test_metrics_equal_the_scores_of_the_file_exactly(tmp_path):
    logits = np.random.default_rng(3).normal(size=(970, 15)).astype(np.float32)
    path = tmp_path / "predictions_test.csv"
    described = json.loads(json.dumps(describe_scores(save_predictions(path, make(logits)))))
    table = pd.read_csv(path)
    for row in described["labels"]:
        assert row["auc"] == roc_auc_score(table[row["label"]], table[f"logit_{row['label']}"])
        assert row["positives"] == table[row["label"]].sum()
    nothing = make(np.where(np.arange(15) == 2, np.nan, logits))
    assert describe_scores(nothing)["labels"][2]["auc"] is None


def test_collapsed_labels_have_an_auc_of_0_5_except_in_external_predictions():
    logits = np.random.default_rng(1).normal(size=(200, 15))
    predictions = make(logits)
    flat = logits.copy()
    flat[:, 3] = 1e-8 * predictions.truth[:, 3]  # a perfect ranking, far below the minimum range
    collapsed = make(flat)
    assert collapsed.collapsed == ("Edema",)
    scores, before = score_predictions(collapsed), score_predictions(predictions)
    assert scores.loc["Edema", "auc"] == 0.5
    assert scores.loc["Edema", "average_precision"] == pytest.approx(predictions.truth[:, 3].mean())
    assert scores.loc["Edema", "note"] == COLLAPSED
    assert scores.drop(index="Edema").equals(before.drop(index="Edema"))
    assert "(14 of 14, 1 collapsed)" in format_mean(scores, NIH)
    assert evaluate(collapsed, replicates=5).scores.loc[MEAN, "note"] == "14 of 14, 1 collapsed"
    assert format_count(score_predictions(make(np.zeros((200, 15)))), NIH) == "14 of 14, 14 collapsed"
    described = describe_scores(collapsed)
    assert described["collapsed"] == ["Edema"]
    assert described["mean_auc"] == pytest.approx(scores["auc"][:14].mean())
    external = make(flat, is_network=False)
    assert external.collapsed == ()
    assert score_predictions(external).loc["Edema", "auc"] == 1


def test_uncertain_and_unknown_labels_are_saved_and_left_out_of_every_score(tmp_path):
    rng = np.random.default_rng(5)
    whole = make(rng.normal(size=(300, 15)).astype(np.float32).astype(float))
    values = whole.values.copy()
    values[rng.random(values.shape) < 0.2] = UNCERTAIN
    values[rng.random(values.shape) < 0.2] = NOT_KNOWN
    values[:, 4] = NOT_KNOWN
    saved = save_predictions(tmp_path / "a.csv", replace(whole, values=values))
    assert np.array_equal(saved.values, values)
    table = pd.read_csv(tmp_path / "a.csv", dtype=str, keep_default_na=False)
    assert set(table["Mass"]) == {"1", "0", "-1", ""}
    scores = score_predictions(saved)
    for k, label in enumerate(NIH):
        is_known = values[:, k] >= 0
        assert scores.loc[label, "known"] == is_known.sum()
        if k != 4:
            truth, logits = values[is_known, k], whole.logits[is_known, k]
            assert scores.loc[label, "auc"] == roc_auc_score(truth, logits)
            assert scores.loc[label, "prevalence"] == truth.mean()
    assert scores.loc["Effusion", "note"] == "not known of any image"
    assert describe_scores(saved)["mean_auc_findings"] == 13
