"""Runs side by side and averaged: which can be compared, and what the numbers are."""

import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.special import expit, logit

from benchmarks.ensembles import IMAGES, NOISES, SENSITIVITY
from benchmarks.ensembles import simulate as simulate_ensembles
from cxrkeras.cli.tables import print_comparison
from cxrkeras.data.identity import hash_patients
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH, LabelSet
from cxrkeras.models.past import Past, Patients, save_past
from cxrkeras.reports.compare import load_published, write_comparison
from cxrkeras.reports.report import write_report
from cxrkeras.scoring.calibration import (
    Calibration,
    Curve,
    calibration_error,
    fit_calibration,
    least_calibration_error,
    load_calibration,
)
from cxrkeras.scoring.ensemble import average_logits, build_ensemble, calibrate_member
from cxrkeras.scoring.evaluation import MEAN
from cxrkeras.scoring.operating_points import build_origin, fit_operating_points, refit
from cxrkeras.scoring.paired import check_folds, sample_replicates, tabulate_differences
from cxrkeras.scoring.predictions import Predictions, load_predictions, save_predictions
from cxrkeras.scoring.run import Fold, open_run
from cxrkeras.scoring.run_files import Origin
from cxrkeras.scoring.run_scores import count_collapsed, rank_runs, stack_aucs, tabulate_runs
from cxrkeras.scoring.scores import describe_scores, mean_auc, score_labels
from cxrkeras.scoring.thresholds import fit_thresholds, load_thresholds
from tests.support.runs import FOLDS, NUM_FOLD, NUM_TEST, write_run

ORIGIN = Origin(part="validation", split_name="grouped-20-0", fold=0, images=1, patients=1)


def compare(folders, root, **options):
    return write_comparison([open_run(folder) for folder in folders], root, **options)


def ensemble(folders, root, **options):
    return build_ensemble([Fold(folder) for folder in folders], root=root, **options)


def change_json(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def drop_test_images(folder, count):
    path = folder / "predictions_test.csv"
    table = pd.read_csv(path).iloc[count:]
    table.to_csv(path, index=False)
    test = json.loads((folder / "metrics.json").read_text())["test"]
    change_json(folder / "metrics.json", test=test | {"images": len(table)})


def test_runs_are_ranked_on_validation_whatever_test_says(tmp_path):
    good, poor = write_run(tmp_path, "good"), write_run(tmp_path, "poor", gap=1.0, noise_seed=1)
    for fold in range(FOLDS):  # on test the poor one is perfect
        path = poor / f"fold{fold}" / "predictions_test.csv"
        table = pd.read_csv(path)
        for label in NIH.names:
            table[f"logit_{label}"] = table[label] + 1e-4 * np.arange(len(table))
        table.to_csv(path, index=False)
    runs = rank_runs([open_run(poor), open_run(good)])
    assert [run.name for run in runs] == ["good", "poor"]
    table = tabulate_runs(runs).set_index(["run", "part", "label"])
    assert table.loc[("poor", "test", MEAN), "mean"] == 1
    aucs = [
        mean_auc(score_labels(p.truth, p.logits, NIH.names), NIH)[0]
        for p in (load_predictions(good / f"fold{fold}" / "predictions_validation.csv", NIH) for fold in range(FOLDS))
    ]
    assert table.loc[("good", "validation", MEAN), "mean"] == pytest.approx(np.mean(aucs))
    assert table.loc[("good", "validation", MEAN), "std"] == pytest.approx(np.std(aucs, ddof=1))
    assert table.loc[("good", "validation", MEAN), "folds"] == FOLDS


def test_a_comparison_as_page_csv_and_markdown(tmp_path):
    folders = [write_run(tmp_path, "a"), write_run(tmp_path, "b", gap=1.2, noise_seed=3), write_run(tmp_path, "c")]
    comparison = compare(folders, tmp_path, replicates=60)
    path = comparison.path
    assert comparison.runs[-1].name == "b"
    table = pd.read_csv(path.with_suffix(".csv"))
    assert set(table["run"]) == {"a", "b", "c"}
    markdown = path.with_suffix(".md").read_text()
    assert "| mean of findings |" in markdown
    paired = pd.read_csv(path.parent / "paired.csv").set_index(["run", "label"])
    assert paired.loc[("b", MEAN), "difference"] < -0.1
    assert paired.loc[("b", MEAN), "p_value"] < 0.05
    assert paired.loc[("b", MEAN), "p_value_adjusted"] >= paired.loc[("b", MEAN), "p_value"]
    assert (path.parent / "auc_epochs.png").is_file()
    assert "published" not in path.read_text()
    text = path.read_text()
    assert f"{NUM_TEST} images of" in text
    assert "grouped-20-0" in text


def test_without_patients_nothing_is_tested_and_nothing_bold(tmp_path):
    folders = [write_run(tmp_path, "a", gap=3.0), write_run(tmp_path, "b", gap=0.5, noise_seed=3)]
    for run in folders:
        for fold in range(FOLDS):
            path = run / f"fold{fold}" / "predictions_test.csv"
            table = pd.read_csv(path, dtype=str).assign(patient_id=lambda t: t["patient_id"].where(t.index > 0, ""))
            table.to_csv(path, index=False)
    path = compare(folders, tmp_path, replicates=20).path
    assert "no difference is tested and no value is in bold" in path.read_text()
    assert "<strong>" not in path.read_text()
    assert not (path.parent / "paired.csv").exists()


def test_paired_differences_do_not_depend_on_the_order_of_images(tmp_path):
    first, second = open_run(write_run(tmp_path, "a")), open_run(write_run(tmp_path, "b", noise_seed=2))
    expected = tabulate_differences(first, second, *(sample_replicates(run, 50) for run in (first, second)))
    rows = np.random.default_rng(0).permutation(NUM_TEST)
    for fold in second.folds:
        fold.predictions["test"] = fold.predictions["test"].take(rows)
    drawn = [sample_replicates(run, 50) for run in (first, second)]
    assert tabulate_differences(first, second, *drawn).equals(expected)
    nothing = tabulate_differences(first, first, drawn[0], drawn[0])
    assert (nothing["difference"] == 0).all()
    assert (nothing["p_value"] == 1).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "nih-official"}, ["split grouped-20-0", "nih-official", "cannot stand in one table"]),
        ({"data_seed": 9}, ["different test sets", r"other images \(300 and 299\)", "same records"]),
        ({"fold_seed": 4}, ["other folds"]),
        ({"folds": 2}, ["360 images \\(fold 0, 1, 2\\)", "240 others \\(fold 0, 1\\)", "a/fold0"]),
    ],
)
def test_what_cannot_be_compared_is_refused(tmp_path, options, words):
    a, b = write_run(tmp_path, "a"), write_run(tmp_path, "b", **options)
    if "data_seed" in options:
        for fold in range(FOLDS):
            drop_test_images(b / f"fold{fold}", 1)
    with pytest.raises(InputError, match=r".*".join(words)):
        compare([a, b], tmp_path)


def test_runs_on_data_read_in_other_ways_are_refused(tmp_path):
    write_run(tmp_path, "a")
    write_run(tmp_path, "b")
    source = {"name": "set", "kind": "chexpert", "label_file": "train.csv", "split_name": "s", "namespace": ""}
    for name, blank in (("a", "absent"), ("b", "unknown")):
        for path in (tmp_path / name).glob("*/config.json"):
            config = json.loads(path.read_text())
            path.write_text(json.dumps(config | {"sources": [source | {"settings": {"blank": blank}}]}))
    with pytest.raises(InputError, match="read in other ways, chexpert blank=absent and chexpert blank=unknown"):
        write_comparison([open_run(tmp_path / name) for name in "ab"], tmp_path)


def test_runs_of_other_labels_are_refused(tmp_path):
    a, b = write_run(tmp_path, "a"), write_run(tmp_path, "b", labels=NIH.choose(["Mass", "Edema", "No Finding"]))
    with pytest.raises(InputError, match="b Mass, Edema, No Finding: compare runs of the same labels"):
        compare([a, b], tmp_path)
    with pytest.raises(InputError, match=r"b/fold0 has labels \['Mass', 'Edema', 'No Finding'\]"):
        ensemble([a / "fold0", b / "fold0"], tmp_path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (LabelSet(("Edema", "Mass", "clear"), "clear"), "compare runs of the same labels in the same order"),
        (LabelSet(("Mass", "Edema", "clear")), "means no finding is clear for a and None for b"),
    ],
)
def test_how_labels_differ_is_said(tmp_path, labels, message):
    a = write_run(tmp_path, "a", folds=1, labels=LabelSet(("Mass", "Edema", "clear"), "clear"))
    b = write_run(tmp_path, "b", folds=1, labels=labels)
    with pytest.raises(InputError, match=message):
        compare([a, b], tmp_path)


def test_folds_of_two_splits_have_no_mean(tmp_path):
    folder = write_run(tmp_path, "a")
    change_json(folder / "fold1" / "metrics.json", split_name="nih-official")
    with pytest.raises(InputError, match="two splits"):
        check_folds(open_run(folder))


def test_folds_on_other_test_images_have_no_mean(tmp_path):
    drop_test_images(write_run(tmp_path, "a") / "fold1", 5)
    with pytest.raises(InputError, match=r"different test sets, other images \(295 and 300\)"):
        check_folds(open_run(tmp_path / "a"))


def test_folds_of_other_data_have_no_mean(tmp_path):
    folder = write_run(tmp_path, "a")
    change_json(folder / "fold1" / "config.json", records_fingerprint="other")
    with pytest.raises(InputError, match="other data, labels or folds"):
        check_folds(open_run(folder))


def test_another_truth_of_the_same_images_is_refused(tmp_path):
    a, b = write_run(tmp_path, "a"), write_run(tmp_path, "b", noise_seed=1)
    for fold in range(FOLDS):
        path = b / f"fold{fold}" / "predictions_test.csv"
        table = pd.read_csv(path)
        table.loc[3, "Mass"] = 1 - table.loc[3, "Mass"]
        table.to_csv(path, index=False)
    with pytest.raises(InputError, match=r"another truth or patient of t0003\.png"):
        compare([a, b], tmp_path)
    with pytest.raises(InputError, match=r"another truth or patient of t0003\.png"):
        ensemble([a / "fold0", b / "fold0"], tmp_path)


@pytest.mark.parametrize("use", [lambda run: compare([run], run.parent), lambda run: refit(Fold(run / "fold0"))])
def test_test_predictions_in_place_of_validation_are_refused(tmp_path, use):
    run = write_run(tmp_path, "a", 1)
    validation, test = (run / "fold0" / f"predictions_{part}.csv" for part in ("validation", "test"))
    shutil.copy(test, validation)
    with pytest.raises(InputError, match=r"validation\.csv has 300 images, metrics\.json counts 120"):
        use(run)
    metrics = json.loads((run / "fold0" / "metrics.json").read_text())
    change_json(run / "fold0" / "metrics.json", validation=metrics["test"])
    with pytest.raises(InputError, match=r"300 images and .* patients in its predictions of validation and of test"):
        use(run)


@pytest.mark.parametrize("content", ["", "epoch,auc/mean\n", "epoch,auc/mean\nfirst,0.5\n", "epoch,loss\n1,2\n"])
def test_a_run_without_a_readable_history_is_compared_without_its_curve(tmp_path, content):
    folders = [write_run(tmp_path, "a"), write_run(tmp_path, "b", noise_seed=1)]
    (folders[1] / "fold2" / "history.csv").write_text(content)
    path = compare(folders, tmp_path, replicates=10).path
    assert "b is without its curve" in path.read_text()


def test_published_scores_stand_next_to_runs_of_the_same_split_only(tmp_path):
    published = load_published(NIH)
    assert published.shape == (15, 11)
    assert published.loc[list(NIH.findings), "effnet_b7_adam_exponential"].mean() == pytest.approx(0.754, abs=5e-4)
    with pytest.raises(InputError, match="nih-official"):
        compare([write_run(tmp_path, "own")], tmp_path, with_published=True)
    official = write_run(tmp_path, "official", split="nih-official")
    text = compare([official], tmp_path, with_published=True, replicates=10).path.read_text()
    assert text.count("published:") == 11
    assert "another run on the same split" in text


def test_an_ensemble_over_folds_averages_calibrated_probabilities_and_claims_nothing(tmp_path):
    run = write_run(tmp_path, "a")
    folders = [run / f"fold{fold}" for fold in range(FOLDS)]
    built = ensemble(folders, tmp_path)
    folder, metrics = built.folder, json.loads((built.folder / "metrics.json").read_text())
    calibrated = [
        load_calibration(one, NIH).apply(load_predictions(one / "predictions_test.csv", NIH).logits, NIH)
        for one in folders
    ]
    logits = load_predictions(folder / "predictions_test.csv", NIH).logits
    np.testing.assert_allclose(expit(logits), np.mean(calibrated, axis=0), atol=1e-7)
    # Its calibration leaves these probabilities alone, and says that nobody has verified it.
    np.testing.assert_allclose(
        load_calibration(folder, NIH).apply(logits, NIH.names), np.mean(calibrated, axis=0), atol=1e-7
    )
    own = [load_thresholds(one, NIH).values for one in folders]
    for label, value in load_thresholds(folder, NIH).values.items():
        assert value == pytest.approx(np.mean([each[label] for each in own]))
    for name in ("thresholds.json", "calibration.json"):
        origin = json.loads((folder / name).read_text())["fitted_on"]
        assert (origin["images"], origin["fold"], origin["is_verified"]) == (FOLDS * NUM_FOLD, "0, 1, 2", False)
        assert "not verified" in (folder / name).read_text()
    # No AUC is pooled over the images of different networks.
    members = [json.loads((one / "metrics.json").read_text()) for one in folders]
    assert metrics["validation"]["mean_auc"] == pytest.approx(np.mean([m["validation"]["mean_auc"] for m in members]))
    for k, row in enumerate(metrics["validation"]["labels"]):
        assert row["auc"] == pytest.approx(np.mean([m["validation"]["labels"][k]["auc"] for m in members]))
    assert metrics["test"]["mean_auc"] > np.mean([m["test"]["mean_auc"] for m in members])
    assert built.aucs["validation"] == pytest.approx([row["auc"] for row in metrics["validation"]["labels"]])
    with pytest.raises(InputError, match="ensemble over folds: no image was held out by all"):
        refit(built)
    with pytest.raises(InputError, match="averaged as calibrated probabilities"):
        ensemble(folders, tmp_path, average="logits")


def test_a_mean_of_probabilities_keeps_the_rank_of_the_least_and_the_most_probable():
    logits = np.linspace(-900, 900, 61)[:, None]
    np.testing.assert_allclose(average_logits([logits, logits], "probabilities"), logits, atol=1e-9)
    assert np.isnan(average_logits([logits, np.nan * logits], "probabilities")).all()
    apart = average_logits([logits, logits - 800], "probabilities")
    assert (np.diff(apart[:, 0]) > 0).all()
    curves = {"x": Curve(slope=40.0, intercept=-3.0)}
    images = np.array(["a", "b"])
    confident = Predictions(images, images, np.eye(2)[:, :1], np.array([[30.0], [31.0]]), LabelSet(("x",)))
    assert calibrate_member(confident, Calibration("platt", ORIGIN, curves)).logits[:, 0].tolist() == [1197, 1237]


def test_an_ensemble_over_folds_needs_what_says_something_of_it(tmp_path):
    run = write_run(tmp_path, "a")
    folders = [run / f"fold{fold}" for fold in range(FOLDS)]
    metrics = json.loads((folders[1] / "metrics.json").read_text())
    metrics["validation"]["labels"][7]["auc"] = None  # no positives there
    metrics["validation"]["collapsed"] = ["Mass"]
    (folders[1] / "metrics.json").write_text(json.dumps(metrics))
    built = ensemble(folders, tmp_path)
    folder, found = built.folder, json.loads((built.folder / "metrics.json").read_text())
    rows = {row["label"]: row["auc"] for row in found["validation"]["labels"]}
    assert rows["Hernia"] is None
    expected = np.mean([rows[label] for label in NIH.findings if label != "Hernia"])
    assert found["validation"]["mean_auc"] == pytest.approx(expected)
    assert found["validation"]["mean_auc_findings"] == 13
    assert list(count_collapsed(open_run(folder.parent), "validation")) == ["Mass"]
    (folder / "thresholds.json").unlink()
    with pytest.raises(InputError, match=r"no thresholds\.json: `cxrkeras ensemble a/fold0 a/fold1 a/fold2`"):
        Fold(folder).operating_points  # noqa: B018
    (folder / "predictions_test.csv").unlink()
    with pytest.raises(InputError, match=r"no test predictions .*`cxrkeras ensemble a/fold0 a/fold1 a/fold2`"):
        write_report(Fold(folder), replicates=10)


def test_ensembles_of_earlier_versions_are_refused(tmp_path):
    run = write_run(tmp_path, "a")
    folder = ensemble([run / "fold0", run / "fold1"], tmp_path).folder
    config = json.loads((folder / "config.json").read_text())
    del config["shares_validation"]
    (folder / "config.json").write_text(json.dumps(config))
    for use in (write_report, refit, lambda fold: compare([fold.folder], tmp_path)):
        with pytest.raises(InputError, match=r"config\.json is damaged .*versions before this one made it"):
            use(Fold(folder))


def test_members_whose_training_patients_are_tested_are_refused(tmp_path):
    run = write_run(tmp_path, "a")
    test = load_predictions(run / "fold0" / "predictions_test.csv", NIH)
    for fold, patients in (("fold0", ["x"]), ("fold1", ["y", test.patient_ids[0], test.patient_ids[-1]])):
        config = json.loads((run / fold / "config.json").read_text())
        (run / fold / "config.json").write_text(json.dumps(config | {"namespace": "set"}))
        hashes = np.unique(hash_patients("set", patients, b"salt", 5))
        save_past(run / fold / "trained_on.json", Past(True, (Patients(b"salt", 5, hashes),)))
    with pytest.raises(InputError, match=r"a/fold1 was trained on 2 of the \d+ patients in the test set"):
        ensemble([run / "fold0", run / "fold1"], tmp_path)
    folder = ensemble([run / "fold0", run / "fold2"], tmp_path).folder
    assert json.loads((folder / "config.json").read_text())["is_past_known"] is False  # fold2 says nothing


@pytest.mark.parametrize("average", ["logits", "probabilities"])
def test_an_ensemble_of_one_fold_is_fitted_to_its_mean(tmp_path, average):
    a, b = write_run(tmp_path, "a"), write_run(tmp_path, "b", noise_seed=7)
    built = ensemble([a / "fold0", b / "fold0"], tmp_path, average=average)
    folder, metrics = built.folder, json.loads((built.folder / "metrics.json").read_text())
    for part in ("validation", "test"):
        both = [load_predictions(run / "fold0" / f"predictions_{part}.csv", NIH).logits for run in (a, b)]
        mean = np.mean(both, axis=0) if average == "logits" else logit(np.mean(expit(both), axis=0))
        np.testing.assert_allclose(load_predictions(folder / f"predictions_{part}.csv", NIH).logits, mean, rtol=1e-6)
    validation = load_predictions(folder / "predictions_validation.csv", NIH)
    origin = build_origin(validation, "grouped-20-0", 0)
    calibration, thresholds = fit_operating_points(validation, origin)
    assert load_thresholds(folder, NIH).values == pytest.approx(thresholds.values)
    assert load_calibration(folder, NIH).curves["Mass"].slope == pytest.approx(calibration.curves["Mass"].slope)
    assert metrics["validation"] == describe_scores(validation)


def simulate(rng, num, spreads):
    """Truth of one label and the logits of networks that see it more or less clearly, each off in scale and offset."""
    state = rng.normal(-1.5, 1.5, num)
    truth = (rng.random(num) < expit(state)).astype(float)
    return truth, [1.7 * (state + rng.normal(0, spread, num)) + 0.8 for spread in spreads]


def test_thresholds_and_calibration_of_a_shared_mean_hold_on_new_images():
    """Sensitivity within two standard errors of the rule, calibration error within 1.5 of the least possible."""
    rng, reached, errors = np.random.default_rng(0), [], []
    for _ in range(30):
        sets = {}
        for part in ("validation", "test"):
            truth, logits = simulate(rng, 4000, (0.8, 1.0, 1.2))
            sets[part] = truth[:, None], average_logits([each[:, None] for each in logits], "logits")
        calibration = fit_calibration(*sets["validation"], fitted_on=ORIGIN, names=("x",))
        probs = {part: calibration.apply(logits, ("x",)) for part, (_, logits) in sets.items()}
        thresholds = fit_thresholds(
            sets["validation"][0], probs["validation"], ("x",), fitted_on=ORIGIN, sensitivity=0.9
        )
        truth = sets["test"][0]
        reached.append((probs["test"] >= thresholds.values["x"])[truth > 0].mean())
        least = least_calibration_error(truth, probs["test"])
        errors.append((calibration_error(truth, probs["test"]) / least).item())
    positives = 4000 * 0.25
    standard_error = np.sqrt(0.9 * 0.1 / positives * 2 / 30)  # of validation and of test, the mean of 30
    assert abs(np.mean(reached) - 0.9) < 2 * standard_error + 0.001  # and the step from one image to the next
    assert np.mean(errors) < 1.5


@pytest.mark.slow
def test_ensembles_built_of_files_do_what_their_files_say(tmp_path):
    """As above, but as commands build them; over folds more is found than wanted, which nothing there could tell."""
    found = simulate_ensembles(NOISES["different"], 0, tmp_path)
    sensitivity, error, least = found["ensemble of one fold"]
    positives = 0.25 * IMAGES
    assert abs(sensitivity.mean() - SENSITIVITY) < 2 * np.sqrt(0.09 / positives * 2 / len(NIH.names)) + 1 / positives
    assert (error / least).mean() < 1.5
    sensitivity, error, least = found["ensemble over folds"]
    assert 0.93 < sensitivity.mean() < 0.97
    assert 2 < (error / least).mean() < 4


def test_an_ensemble_is_a_run_like_any_other(tmp_path):
    run, other = write_run(tmp_path, "a"), write_run(tmp_path, "b", noise_seed=2)
    built = ensemble([run / f"fold{fold}" for fold in range(FOLDS)], tmp_path)
    comparison = compare([built.folder.parent, other], tmp_path, replicates=20)
    path, runs = comparison.path, comparison.runs
    assert "its validation AUC is the mean of theirs" in path.read_text()
    assert "\nensemble of 3</th>" in path.read_text()
    assert "\n3 folds</th>" in path.read_text()
    assert len(runs) == 2
    page, notes = write_report(built, replicates=20)
    assert "An ensemble over folds: no image was held out by all" in page.read_text()
    assert "a sensitivity of 0.90 came out as" in page.read_text()
    assert "AUC,\nvalidation" not in page.read_text()
    assert "mean calibrated probabilities of a/fold0, a/fold1, a/fold2" in (page.parent / "model_card.md").read_text()
    assert len(notes) == 1  # its records are not there


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda root: [write_run(root, "a", 1) / "fold0"], "two members or more"),
        (lambda root: [write_run(root, "a", 1) / "fold0"] * 2, "two members or more"),
        (
            lambda root: [write_run(root, "a", 1) / "fold0", write_run(root, "b", 1, split="nih-official") / "fold0"],
            "split name nih-official",
        ),
        (
            lambda root: [write_run(root, "a", 1) / "fold0", write_run(root, "b", 1, data_seed=2) / "fold0"],
            "records fingerprint data2",
        ),
    ],
)
def test_ensembles_that_cannot_be_are_refused(tmp_path, prepare, words):
    with pytest.raises(InputError, match=words):
        ensemble(prepare(tmp_path), tmp_path)


def test_ensembles_are_not_nested_and_average_what_is_known(tmp_path):
    run = write_run(tmp_path, "a")
    folders = [run / f"fold{fold}" for fold in range(2)]
    folder = ensemble(folders, tmp_path).folder
    with pytest.raises(InputError, match="ensemble itself"):
        ensemble([folder, folders[0]], tmp_path)
    with pytest.raises(InputError, match="logits or probabilities; got 'ranks'"):
        ensemble(folders, tmp_path, average="ranks")


def test_only_what_is_better_by_more_than_chance_is_bold(tmp_path):
    """Of a far better run all labels; of two alike none, though one of them is always the larger."""
    better, worse = write_run(tmp_path, "better", gap=3.0), write_run(tmp_path, "worse", gap=0.3, noise_seed=3)
    page = compare([better, worse], tmp_path, replicates=200).path
    markdown = page.with_suffix(".md").read_text()
    validation, test = markdown.split("## AUC on test")
    assert "**" not in validation
    assert test.split("##")[0].count("**") == 2 * 16
    alike = write_run(tmp_path, "alike", gap=3.0, noise_seed=5)
    page = compare([better, alike], tmp_path, replicates=200).path
    assert page.with_suffix(".md").read_text().count("**") <= 2 * 2  # one label in twenty by chance


def test_a_collapsed_label_counts_as_chance_and_is_named(tmp_path):
    """Nearly constant logits that rank perfectly would have an AUC of 1, and a mean without them would be too good."""
    run, other = write_run(tmp_path, "a"), write_run(tmp_path, "b", noise_seed=4)
    for fold in range(FOLDS):
        for part in ("validation", "test"):
            path = run / f"fold{fold}" / f"predictions_{part}.csv"
            predictions = load_predictions(path, NIH)
            logits = predictions.logits.copy()
            logits[:, 0] = -3 + 1e-7 * predictions.truth[:, 0]
            save_predictions(path, replace(predictions, logits=logits))
    assert (stack_aucs(open_run(run), "test")[:, 0] == 0.5).all()
    assert count_collapsed(open_run(run), "test") == {"Atelectasis": FOLDS}
    comparison = compare([run, other], tmp_path, replicates=50)
    page = comparison.path
    counts = pd.read_csv(page.with_suffix(".csv")).set_index(["run", "part", "label"])["collapsed"]
    assert counts["a", "test", MEAN] == counts["a", "validation", "Atelectasis"] == FOLDS
    assert counts["a"].sum() == 4 * FOLDS
    assert not counts["b"].any()
    assert page.read_text().count(f"({FOLDS} collapsed)") == 4  # the mean and the label, on validation and test
    console = Console(width=150, record=True, file=io.StringIO())
    print_comparison(console, comparison)
    assert console.export_text().count(f"({FOLDS} collapsed)") == 2
    assert "a: the network gives nearly the same logit to all images for Atelectasis" in page.read_text()
    report, notes = write_report(Fold(run / "fold0"), replicates=50)
    assert any("nearly the same logit to all images for Atelectasis" in note for note in notes)
    table = pd.read_csv(report.parent / "scores.csv").query("part == 'test' and label == 'Atelectasis'").iloc[0]
    assert (table["auc"], table["auc_low"], table["auc_high"]) == (0.5, 0.5, 0.5)
    assert table["note"].startswith("collapsed")
