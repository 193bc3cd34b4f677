"""Pages about one fold: what is in them, and what they say where something is missing."""

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cxrkeras.errors import InputError
from cxrkeras.files import load_json
from cxrkeras.labels import NIH, NOT_KNOWN
from cxrkeras.records.folder import open_records
from cxrkeras.reports.explore import correlate_labels, count_labels, count_together, write_exploration
from cxrkeras.reports.report import write_report
from cxrkeras.reports.sections import build_sources
from cxrkeras.scoring.calibration import load_calibration
from cxrkeras.scoring.evaluation import MEAN, compare_prevalence, evaluate, evaluate_groups, find_mistakes
from cxrkeras.scoring.predictions import Predictions, load_predictions, save_predictions
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.scores import mean_auc, score_labels
from cxrkeras.scoring.thresholds import load_thresholds

PICTURES = {
    "roc", "precision_recall", "confusion", "reliability", "loss", "auc_epochs", "groups", "prevalence", "mistakes",
}  # fmt: skip


def change_predictions(folder, part, change):
    predictions = load_predictions(folder / f"predictions_{part}.csv", NIH)
    predictions = replace(
        predictions, **{name: getattr(predictions, name).copy() for name in ("values", "logits", "patient_ids")}
    )
    change(predictions)
    save_predictions(folder / f"predictions_{part}.csv", predictions)


def test_a_report_is_whole_and_opens_without_a_network(run_copy):
    path, notes = write_report(Fold(run_copy), replicates=60)
    assert notes == []
    text = path.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text)
    assert {file.stem for file in path.parent.glob("*.png")} == PICTURES
    assert text.count("data:image/png;base64,") == len(PICTURES)
    assert all(np.asarray(Image.open(file)).std() > 5 for file in path.parent.glob("*.png"))
    metrics = load_json(run_copy / "metrics.json")
    scores = pd.read_csv(path.parent / "scores.csv").set_index(["part", "label"])
    for part in ("validation", "test"):
        assert scores.loc[(part, MEAN), "auc"] == pytest.approx(metrics[part]["mean_auc"], abs=1e-6)
        assert (scores.loc[part, "split_name"] == metrics["split_name"]).all()
        assert (scores.loc[part, "patients"] == metrics[part]["patients"]).all()
    rows = scores.loc["test"]
    rows = rows[rows["auc"].notna()]
    assert ((rows["auc_low"] <= rows["auc"]) & (rows["auc"] <= rows["auc_high"])).all()
    assert f"{metrics['test']['images']} images of {metrics['test']['patients']} patients" in text
    assert "synthetic phantoms" in text
    card = (path.parent / "model_card.md").read_text()
    assert f"{metrics['test']['mean_auc']:.3f}" in card
    assert "resnet18" in card
    assert "not a medical device" in card


def test_scores_are_the_same_for_the_same_seed():
    tables = [evaluate(make_predictions(), replicates=40, seed=seed).scores for seed in (1, 1, 2)]
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


@pytest.mark.parametrize(
    ("lost", "words", "without", "left"),
    [
        ("predictions_test.csv", "Without test scores", {"prevalence"}, "validation set"),
        ("predictions_validation.csv", "Without validation scores", {"prevalence"}, "test set"),
        ("history.csv", "Without curves of the training", {"loss", "auc_epochs"}, "test set"),
        ("model.keras", None, set(), "without heat maps"),
    ],
)
def test_what_can_still_be_reported_is(run_copy, lost, words, without, left):
    (run_copy / lost).unlink()
    path, notes = write_report(Fold(run_copy), replicates=20)
    assert PICTURES - {file.stem for file in path.parent.glob("*.png")} == without
    assert left in path.read_text()
    assert (words is None and notes == []) or (len(notes) == 1 and words in notes[0] and words in path.read_text())


def test_records_that_have_gone(run_copy):
    metrics = load_json(run_copy / "metrics.json")
    (run_copy / "metrics.json").write_text(json.dumps(metrics | {"records": "records/gone"}))
    path, notes = write_report(Fold(run_copy), replicates=20)
    assert PICTURES - {file.stem for file in path.parent.glob("*.png")} == {"groups", "mistakes"}
    assert len(notes) == 1
    assert "records/gone" in notes[0]


def test_labels_without_positives_and_logits_that_are_no_numbers(run_copy):
    def spoil(predictions):
        predictions.values[:, NIH.index("Hernia")] = 0
        predictions.logits[3, NIH.index("Mass")] = np.nan

    change_predictions(run_copy, "test", spoil)
    path, notes = write_report(Fold(run_copy), replicates=20)
    assert notes == ["logits that are not finite leave Mass without scores"]
    rows = pd.read_csv(path.parent / "scores.csv").set_index(["part", "label"]).loc["test"]
    assert rows.loc["Hernia", "note"] == "no positives"
    assert rows.loc["Mass", "note"] == "logits are not finite"
    assert rows["auc"].isna().sum() == 2
    assert rows.loc[MEAN, "note"] == "12 of 14"


def test_images_without_a_patient_have_scores_and_no_intervals(run_copy):
    change_predictions(run_copy, "test", lambda predictions: predictions.patient_ids.__setitem__(slice(0, 3), ""))
    path, notes = write_report(Fold(run_copy), replicates=20)
    assert len(notes) == 1
    assert re.search(r"3 of \d+ images have no patient: no intervals", notes[0])
    rows = pd.read_csv(path.parent / "scores.csv").set_index(["part", "label"])
    assert rows.loc["test", "auc_low"].isna().all()
    assert rows.loc["validation", "auc_low"].notna().any()
    assert rows.loc[("test", MEAN), "auc"] > 0


@pytest.mark.parametrize("content", ["", "image_id,patient_id\n", "\x00\x01", "a,b\n1,2\n"])
def test_damaged_predictions_are_named(run_copy, content):
    for part in ("test", "validation"):
        (run_copy / f"predictions_{part}.csv").write_text(content)
    with pytest.raises(InputError, match=r"predictions_test\.csv"):
        write_report(Fold(run_copy))


@pytest.mark.parametrize(
    ("file", "changes", "words"),
    [
        ("metrics.json", {"records": None}, "records"),
        ("metrics.json", {"split_name": ["a"]}, "split_name"),
        ("metrics.json", {"test": None}, "test"),
        ("config.json", {"folds": None}, "folds"),
        ("config.json", {"experiment": {"model": 3}}, "experiment"),
        ("config.json", {"experiment": None}, "must have one of an experiment, members"),
        ("config.json", {"parts": []}, "parts"),
    ],
)
def test_files_with_wrong_values_are_named_with_the_value(run_copy, file, changes, words):
    content = load_json(run_copy / file)
    (run_copy / file).write_text(json.dumps(content | changes))
    with pytest.raises(InputError, match=rf"{file} is damaged .*{words}"):
        write_report(Fold(run_copy))


@pytest.mark.parametrize(
    "changes",
    [
        {"fitted_on": None},
        {"labels": {}},
        {"labels": {"Mass": {"threshold": "x", "slope": "x"}}},
        {"labels": {"Mass": {"threshold": 1.5, "note": "", "logits": [0, 1], "probs": [0, 2]}}},
        {"labels": {"Mass": {"threshold": float("nan"), "note": "", "slope": float("nan")}}},
        {"fitted_on": {"part": "test", "fold": 0, "split_name": "a", "images": 9, "patients": 9}},
    ],
)
def test_damaged_thresholds_and_calibrations_are_named(run_copy, changes):
    for file, load in (("thresholds.json", load_thresholds), ("calibration.json", load_calibration)):
        content = load_json(run_copy / file)
        (run_copy / file).write_text(json.dumps(content | changes))
        with pytest.raises(InputError, match=rf"{file} (is damaged|lacks)"):
            load(run_copy, NIH)


def test_a_report_goes_without_damaged_thresholds_and_says_so(run_copy):
    (run_copy / "thresholds.json").write_text("{}")
    path, notes = write_report(Fold(run_copy), replicates=10)
    assert len(notes) == 1
    assert "thresholds.json is damaged" in notes[0]
    assert not (path.parent / "confusion.png").exists()


@pytest.mark.parametrize(
    "content", ["", "epoch,loss\n1,2\n", "epoch,auc/mean\n", "epoch,auc/mean\nfirst,0.5\n", "\x00"]
)
def test_an_odd_history_is_named(tmp_path, content):
    (tmp_path / "history.csv").write_text(content)
    with pytest.raises(InputError, match=r"history\.csv (cannot be read|lacks|has no epochs)"):
        Fold(tmp_path).load_history(("auc/mean",))


def test_a_report_goes_without_pictures_of_damaged_records_and_says_so(run_copy, records, tmp_path):
    copy = tmp_path / "records"
    shutil.copytree(records, copy)
    for shard in copy.glob("*test*.tfrecord*"):
        shard.write_bytes(b"junk" * 1000)
    metrics = load_json(run_copy / "metrics.json")
    (run_copy / "metrics.json").write_text(json.dumps(metrics | {"records": str(copy)}))
    path, notes = write_report(Fold(run_copy), replicates=10)
    assert any("Without pictures of mistakes" in note and "is damaged" in note for note in notes)
    assert (path.parent / "groups.csv").is_file()
    (copy / "index.csv").write_text((copy / "index.csv").read_text().replace("F", "M"))
    assert any("index.csv was changed" in note for note in write_report(Fold(run_copy), replicates=10)[1])


def test_a_file_in_place_of_the_report_is_said(run_copy):
    (run_copy / "report").write_text("mine")
    with pytest.raises(InputError, match="move away what is there"):
        write_report(Fold(run_copy), replicates=10)


def test_an_image_named_twice_and_a_missing_configuration_are_refused(run_copy):
    path = run_copy / "predictions_test.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1]]) + "\n")
    with pytest.raises(InputError, match="twice"):
        load_predictions(path, NIH)
    (run_copy / "config.json").unlink()
    with pytest.raises(InputError, match=r"config\.json is gone"):
        write_report(Fold(run_copy))


def make_predictions(seed=0, num=400, patients=100):
    rng = np.random.default_rng(seed)
    who = np.sort(rng.integers(0, patients, num)).astype(str)
    values = (rng.random((num, 15)) < 0.2).astype(np.int8)
    logits = rng.normal(-1.5, 1, (num, 15)) + 2 * values
    return Predictions(np.array([f"{n:03d}.png" for n in range(num)]), who, values, logits, NIH)


def test_predictions_without_a_finding_that_counts_have_no_mean():
    predictions = make_predictions()
    unknown = replace(predictions, values=np.full_like(predictions.values, NOT_KNOWN))
    for given in (unknown, replace(predictions, is_network=False, left_out=NIH.names)):
        row = evaluate(given, replicates=10).scores.loc[MEAN]
        assert np.isnan(row["auc"])
        assert row["note"] == "0 of 14"


def test_groups_are_scored_on_their_own_images():
    predictions = make_predictions()
    rng = np.random.default_rng(1)
    people = pd.DataFrame(
        {"age": rng.choice([15, 30, 50, 70, np.nan], 400), "sex": rng.choice(["F", "M", ""], 400), "view": "PA"},
        index=predictions.image_ids,
    )
    table = evaluate_groups(predictions, people, replicates=30).set_index(["group", "label"])
    women = (people["sex"] == "F").to_numpy()
    expected = score_labels(predictions.truth[women], predictions.logits[women], NIH.names)
    assert table.loc[("women", "Mass"), "auc"] == pytest.approx(expected.loc["Mass", "auc"])
    assert table.loc[("women", MEAN), "auc"] == pytest.approx(mean_auc(expected, NIH)[0])
    assert table.loc[("women", MEAN), "images"] == women.sum()
    assert table.loc[("40 to 59", MEAN), "images"] == (people["age"] == 50).sum()
    assert "AP" not in table.index.get_level_values(0)
    assert "source" not in set(table["attribute"])
    sources = rng.choice(["nih", "chexpert"], 400)
    by_source = evaluate_groups(predictions, people.assign(source=sources), replicates=30)
    of_nih = by_source[(by_source["attribute"] == "source") & (by_source["group"] == "nih")].set_index("label")
    expected = score_labels(predictions.truth[sources == "nih"], predictions.logits[sources == "nih"], NIH.names)
    assert of_nih.loc["Mass", "auc"] == pytest.approx(expected.loc["Mass", "auc"])
    assert ((table["low"] <= table["auc"]) & (table["auc"] <= table["high"])).all()


def test_each_source_has_every_score_of_its_own():
    predictions = make_predictions()
    halves = {"nih": predictions.take(np.arange(200)), "chexpert": predictions.take(np.arange(200, 400))}
    evaluations = {name: evaluate(half, replicates=20) for name, half in halves.items()}
    section = build_sources(evaluations, source="joined")
    for table, half in zip(section.tables, halves.values(), strict=True):
        scores = score_labels(half.truth, half.logits, NIH.names)
        row = dict(zip(table.columns, table.rows[1 + NIH.index("Mass")], strict=True))
        assert row["AUC (95 % interval)"].startswith(f"{scores.loc['Mass', 'auc']:.3f}")
        assert row["positives"] == str(scores.loc["Mass", "positives"])
        assert table.caption.endswith(f"{half.counts} of joined")


def test_prevalences_that_differ_are_told_from_chance():
    validation, test = make_predictions(0, 2000, 500), make_predictions(1, 2000, 500)
    test.values[:, 0] = np.random.default_rng(2).random(2000) < 0.3
    table = compare_prevalence(validation, test)
    assert table.loc["Atelectasis", "differs"]
    assert table["differs"].sum() <= 3


def test_mistakes_are_wrong_confident_and_each_of_another_image(run_copy):
    fold = Fold(run_copy)
    predictions = fold.predictions["test"]
    evaluation = evaluate(predictions, points=fold.operating_points, replicates=10)
    mistakes = find_mistakes(evaluation, fold.operating_points.thresholds)
    assert len(mistakes) == 12
    assert mistakes["image_id"].is_unique
    assert (mistakes["kind"] == "false positive").sum() == 6
    for row in mistakes.itertuples():
        is_there = predictions.truth[row.row, NIH.index(row.label)]
        assert is_there == (row.kind == "false negative")
        assert (row.prob >= row.threshold) == (row.kind == "false positive")
        assert row.label in NIH.findings


def test_exploration_counts_what_is_there(records, tmp_path):
    copy = tmp_path / "records"
    shutil.copytree(records, copy)
    path = write_exploration(open_records(copy))
    index = open_records(records).index
    table = count_labels(index, NIH)
    assert table.loc["Mass", "all_positives"] == index["Mass"].sum()
    assert table.loc["Mass", "test_prevalence"] == pytest.approx(index.loc[index["split"] == "test", "Mass"].mean())
    together = count_together(index, NIH)
    assert together.loc["Mass", "Nodule"] == ((index["Mass"] == 1) & (index["Nodule"] == 1)).sum()
    assert together.loc["No Finding"].drop("No Finding").sum() == 0
    correlation = correlate_labels(index, NIH)
    expected = np.corrcoef(index["Mass"], index["Nodule"])[0, 1]
    assert correlation.loc["Mass", "Nodule"] == pytest.approx(expected)
    assert {file.stem for file in path.parent.glob("*.png")} == {
        "frequencies", "together", "correlation", "images_per_patient", "age",
    }  # fmt: skip
    assert not re.search(r'(src|href)="(?!data:|#)', path.read_text())
