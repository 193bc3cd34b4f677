import json

import numpy as np
import pandas as pd
import pytest
from networks import draw_images, draw_weights
from sklearn.metrics import roc_auc_score

from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.compiled import compile_live, compile_network
from cxrkeras.scoring.evaluation import MEAN, evaluate
from cxrkeras.scoring.notes import COLLAPSED
from cxrkeras.scoring.predictions import Predictions, is_collapsed, save_predictions
from cxrkeras.scoring.scores import describe_scores, format_count, format_mean, score_predictions


def test_predictors_compute_what_the_network_does_and_only_the_live_one_follows_its_weights():
    network, images = build_classifier("resnet18", 32), draw_images(5, 32)
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
    return Predictions(ids, patients, (rng.random((num, 15)) < 0.3).astype(float), logits, **options)


def test_a_file_gives_back_float32_logits_whole_and_patients_of_any_name(tmp_path):
    logits = np.random.default_rng(1).normal(size=(50, 15)).astype(np.float32) * np.float32(1e-3) - 1
    predictions = make(logits.astype(float))
    again = save_predictions(tmp_path / "a.csv", predictions)
    assert np.array_equal(again.logits.astype(np.float32), logits)
    assert again.patient_ids.tolist() == predictions.patient_ids.tolist()
    nearly = make((-1 + 3e-6 * np.random.default_rng(2).random((50, 15))).astype(np.float32).astype(float))
    same = save_predictions(tmp_path / "b.csv", nearly)  # with seven digits all of these would be one
    assert score_predictions(same)["auc"].equals(score_predictions(nearly)["auc"])


def test_metrics_hold_the_scores_of_the_file_to_the_last_digit(tmp_path):
    logits = np.random.default_rng(3).normal(size=(970, 15)).astype(np.float32)
    path = tmp_path / "predictions_test.csv"
    described = json.loads(json.dumps(describe_scores(save_predictions(path, make(logits)))))
    table = pd.read_csv(path)
    for row in described["labels"]:
        assert row["auc"] == roc_auc_score(table[row["label"]], table[f"logit_{row['label']}"])
        assert row["positives"] == table[row["label"]].sum()
    nothing = make(np.where(np.arange(15) == 2, np.nan, logits))
    assert describe_scores(nothing)["labels"][2]["auc"] is None


def test_a_collapsed_label_has_an_auc_of_a_half_and_other_peoples_predictions_are_left_alone():
    logits = np.random.default_rng(1).normal(size=(200, 15))
    predictions = make(logits)
    flat = logits.copy()
    flat[:, 3] = 1e-8 * predictions.truth[:, 3]  # a perfect ranking, far below what counts
    collapsed = make(flat)
    assert collapsed.collapsed == ("Edema",)
    scores, before = score_predictions(collapsed), score_predictions(predictions)
    assert scores.loc["Edema", "auc"] == 0.5
    assert scores.loc["Edema", "average_precision"] == pytest.approx(predictions.truth[:, 3].mean())
    assert scores.loc["Edema", "note"] == COLLAPSED
    assert scores.drop(index="Edema").equals(before.drop(index="Edema"))
    assert "(14 of 14, 1 collapsed)" in format_mean(scores)
    assert evaluate(collapsed, replicates=5).scores.loc[MEAN, "note"] == "14 of 14, 1 collapsed"
    assert format_count(score_predictions(make(np.zeros((200, 15))))) == "14 of 14, 14 collapsed"
    described = describe_scores(collapsed)
    assert described["collapsed"] == ["Edema"]
    assert described["mean_auc"] == pytest.approx(scores["auc"][:14].mean())
    foreign = make(flat, is_network=False)
    assert foreign.collapsed == ()
    assert score_predictions(foreign).loc["Edema", "auc"] == 1
