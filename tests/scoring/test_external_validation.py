"""A run on records that it was not trained on."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from cxrkeras.data.readers import read_dataset
from cxrkeras.data.reading import Reading
from cxrkeras.errors import InputError
from cxrkeras.labels import LabelSet
from cxrkeras.models.past import UNKNOWN, save_past
from cxrkeras.phantoms.writing import write_phantoms
from cxrkeras.records.folder import open_records
from cxrkeras.records.write import write_records
from cxrkeras.scoring.ensemble import build_ensemble
from cxrkeras.scoring.evaluations import is_evaluation, open_evaluation
from cxrkeras.scoring.external_validation import (
    Choice,
    tabulate_drift,
    validate_run,
)
from cxrkeras.scoring.run import Fold
from cxrkeras.scoring.run_files import TRAINED_ON
from cxrkeras.scoring.second_truth import _match_images, share_labels, tabulate_agreement
from tests.support.shell import run_here

REPLICATES = 50


@pytest.fixture(scope="module")
def fold(trained, tmp_path_factory):
    """A copy of the shared fold, which is given evaluations."""
    folder = tmp_path_factory.mktemp("external") / "runs" / trained.folder.parent.name / trained.folder.name
    shutil.copytree(trained.folder, folder)
    return Fold(folder)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Phantoms of other patients with rarer findings, and no split of their own."""
    folder = tmp_path_factory.mktemp("others") / "elsewhere"
    write_phantoms(folder, num_images=120, size=64, prevalence="nih", seed=5)
    for name in ("train_val_list.txt", "test_list.txt"):
        (folder / name).unlink()
    write_records(read_dataset(folder), folder.parent / "records", size=32)
    return open_records(folder.parent / "records")


@pytest.fixture(scope="module")
def validated(fold, others):
    return validate_run(fold, others, Choice())


def test_the_own_test_set_gets_the_same_predictions(fold):
    found = validate_run(fold, fold.records, Choice(split="test"))
    own = fold.predictions["test"]
    aligned = found.predictions.align(own)
    assert np.abs(aligned.logits - own.logits).max() < 1e-5
    assert found.config["split"] == "test"
    assert any("none of the" in note for note in found.notes)


@pytest.mark.parametrize("split", ["train_val", "all"])
def test_patients_of_the_training_are_refused(fold, split):
    with pytest.raises(
        InputError, match=r"it was trained on \d+, and its epoch, calibration and thresholds were chosen"
    ):
        validate_run(fold, fold.records, Choice(split=split))


def test_a_network_without_a_past_is_refused_until_one_accepts_it(trained, others, tmp_path):
    folder = tmp_path / "run" / "fold0"
    shutil.copytree(trained.folder, folder)
    save_past(folder / TRAINED_ON, UNKNOWN)
    with pytest.raises(InputError, match=r"does not record whom it was trained on.*allow=unknown-patients"):
        validate_run(Fold(folder), others, Choice())
    found = validate_run(Fold(folder), others, Choice(allow="unknown-patients"))
    assert any("the scores biased" in note for note in found.notes)


def test_all_images_are_scored_where_the_split_was_chosen_here(validated, others):
    assert validated.config["split"] == "all"
    assert len(validated.predictions) == 120
    assert validated.config["views"] == others.index["view"].value_counts().to_dict()
    assert set(validated.warnings) == set(others.index["image_id"])


def test_an_ensemble_averages_its_members_as_it_was_built(fold, validated, others, tmp_path):
    root = tmp_path / "runs"
    names = [f"a/{fold.folder.name}", f"b/{fold.folder.name}"]
    for name in names:
        shutil.copytree(fold.folder, root / name)
    ensemble = build_ensemble([Fold(root / name) for name in names], root=root)
    found = validate_run(ensemble, others, Choice())
    assert np.allclose(found.predictions.logits, validated.predictions.logits, atol=1e-5)  # the mean of two equal ones
    assert found.warnings is None
    assert ensemble.config.sources == fold.config.sources
    drift = tabulate_drift(ensemble, found)
    assert drift["auc_here"].to_numpy() == pytest.approx(tabulate_drift(fold, validated)["auc_here"], nan_ok=True)
    shutil.rmtree(root / "b")
    with pytest.raises(InputError, match="no run"):
        validate_run(ensemble, others, Choice())


def test_drift_equals_what_a_reader_computes(fold, validated, others):
    drift = tabulate_drift(fold, validated)
    table = others.index.set_index("image_id").loc[validated.predictions.image_ids]
    points = fold.operating_points
    probs = points.calibration.apply(validated.predictions.logits, fold.labels)
    for k, label in enumerate(fold.labels):
        truth = table[label].to_numpy() == 1
        row = drift.loc[label]
        assert row["prevalence_here"] == pytest.approx(truth.mean())
        assert row["mean_probability_here"] == pytest.approx(probs[:, k].mean())
        assert row["bias"] == pytest.approx(probs[:, k].mean() - truth.mean())
        assert row["bias_low"] <= row["bias"] <= row["bias_high"]
        threshold = points.thresholds.values[label]
        if truth.any() and threshold is not None:
            assert row["auc_here"] == pytest.approx(roc_auc_score(truth, validated.predictions.logits[:, k]))
            assert row["sensitivity_here"] == pytest.approx((probs[truth, k] >= threshold).mean())
    own = fold.predictions["validation"]
    assert drift["prevalence_validation"].to_numpy() == pytest.approx((own.truth == 1).mean(axis=0))
    rarer = [label for label in fold.labels.findings if drift.loc[label, "prevalence_here"] < 0.05]
    assert (drift.loc[rarer, "bias"] > 0).all()  # calibrated where each finding has 15 %


def test_a_recalibration_takes_patients_out_of_the_scores(fold, others, validated):
    found = validate_run(fold, others, Choice(recalibrate=0.4))
    assert 0 < found.predictions.num_patients < validated.predictions.num_patients
    assert found.points.thresholds.fitted_on.part == "recalibration"
    patients = found.points.calibration.fitted_on.patients + found.predictions.num_patients
    assert patients == validated.predictions.num_patients
    bias = {name: tabulate_drift(fold, of_run)["bias"].abs().mean() for name, of_run in
            (("own", validated), ("refitted", found))}  # fmt: skip
    assert bias["refitted"] < bias["own"]
    with pytest.raises(InputError, match="leaves none to fit on or none to score"):
        validate_run(fold, others, Choice(recalibrate=1e-9))


def test_another_truth_for_the_same_images(fold, others, validated, tmp_path):
    table = others.index[["image_id", "patient_id", "Effusion", "Mass"]].iloc[:80].copy()
    rng = np.random.default_rng(0)
    table["Effusion"] = np.where(rng.random(80) < 0.8, table["Effusion"], 1 - table["Effusion"])
    path = tmp_path / "readers.csv"
    renamed = table.rename(columns={"image_id": "image", "patient_id": "patient", "Effusion": "effusion"})
    pd.concat([renamed, renamed.iloc[:1].assign(image="gone.png")]).to_csv(path, index=False)
    found = validate_run(fold, others, Choice(truth=path))
    other = found.truths["readers.csv"]
    assert len(other) == 80
    assert set(other.labels) == {"Effusion", "Mass"}
    agreement = tabulate_agreement(found.predictions, other, replicates=REPLICATES)
    mined = others.index.set_index("image_id").loc[other.image_ids, "Effusion"].to_numpy()
    given = table.set_index("image_id").loc[other.image_ids, "Effusion"].to_numpy()
    row = agreement.loc["Effusion"]
    assert row["kappa"] == pytest.approx(cohen_kappa_score(mined, given))
    assert (row["both"], row["mined_only"], row["other_only"]) == (
        (mined & given).sum(), (mined > given).sum(), (given > mined).sum())  # fmt: skip
    logits = other.logits[:, other.labels.index("Effusion")]
    assert (row["auc_mined"], row["auc_other"]) == pytest.approx(
        (roc_auc_score(mined, logits), roc_auc_score(given, logits))
    )
    assert agreement.loc["Mass", "kappa"] == 1
    path.write_text("image,patient,Effusion\nnobody.png,1,1\nnone.png,2,0\n")
    with pytest.raises(InputError, match="names none of the 120 images evaluated"):
        validate_run(fold, others, Choice(truth=path))


def test_images_of_another_truth_are_matched_by_as_much_of_their_path_as_both_give():
    ids = ["a/p1/s1/view1.jpg", "a/p1/s2/view1.jpg", "00000001_000.png"]
    names = ["p1/s2/view1.png", "images/00000001_000.png", "/data/a/p1/s1/view1.jpg", "p9/s1/view1.jpg"]
    found = _match_images(pd.Series(names), ids, Path("truth.csv"))
    assert found.tolist()[:3] == [1, 2, 0]
    assert np.isnan(found[3])  # another patient
    with pytest.raises(InputError, match=r"view1\.png may be a/p1/s1/view1\.jpg or a/p1/s2/view1\.jpg"):
        _match_images(pd.Series(["view1.png"]), ids, Path("truth.csv"))


def test_labels_are_shared_in_the_order_of_the_network():
    notes = []
    network = LabelSet(("Mass", "Effusion", "No Finding"), "No Finding")
    shared = share_labels(network, LabelSet(("effusion", "Fracture", "No Finding"), "No Finding"), "x", notes)
    assert shared == LabelSet(("Effusion", "No Finding"), "No Finding")
    assert notes == [
        "not scored, as x does not have them: Mass",
        "labels that x has and the network does not know: Fracture",
        "No Finding means in each set that none of its own findings is there, which are not the same",
    ]
    with pytest.raises(InputError, match="x has none of the network's findings"):
        share_labels(network, LabelSet(("Fracture", "No Finding"), "No Finding"), "x", [])


def test_other_sizes_and_values_are_refused(fold, others, tmp_path):
    write_phantoms(tmp_path / "data", num_images=50, size=64)
    write_records(read_dataset(tmp_path / "data", Reading()), tmp_path / "records", size=16, num_folds=2)
    with pytest.raises(InputError, match=r"takes images of 32 px, and .* has 16"):
        validate_run(fold, open_records(tmp_path / "records"), Choice())
    for settings, words in (
        ({"split": "training"}, "split must be all, test, train_val"),
        ({"recalibrate": 1.0}, "recalibrate must be a share"),
        ({"allow": "all"}, "allow must be unknown-patients"),
    ):
        with pytest.raises(InputError, match=words):
            Choice(**settings)


def digest(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def test_the_command_writes_a_page_and_leaves_the_run_as_it_is(fold, others):
    before = digest(fold.folder)
    done = run_here("evaluate", "--run", fold.folder, "--records", others.folder, "--recalibrate", "0.3")
    assert done.returncode == 0, done.stdout
    assert digest(fold.folder) == before
    (folder,) = (fold.folder / "evaluations").iterdir()
    assert {path.name for path in folder.iterdir() if path.suffix != ".png"} == {
        "config.json", "predictions.csv", "metrics.json", "drift.csv", "groups.csv", "evaluation.html",
        "calibration.json", "thresholds.json",
    }  # fmt: skip
    page = (folder / "evaluation.html").read_text()
    for words in ("on data of others", "What the run promised", "Images unlike those of the training", "fitted again"):
        assert words in page
    assert is_evaluation(folder)
    assert not is_evaluation(fold.folder)
    found = open_evaluation(folder)
    assert found.fold.folder.resolve() == fold.folder.resolve()
    scores = pd.read_csv(folder / "predictions.csv")
    known = scores["Effusion"] == 1
    if known.any():
        assert found.score("Effusion")[0] == pytest.approx(roc_auc_score(known, scores["logit_Effusion"]))
    compared = run_here("compare", folder)
    assert compared.returncode == 0, compared.stdout
    (path,) = [line.removeprefix("comparison: ") for line in compared.stdout.splitlines() if "comparison: " in line]
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert "External validation" in text
    assert f"on {others.name}" in text
    assert "AUC on validation" not in text  # nothing is ranked
    with_run = run_here("compare", fold.folder, folder)
    assert with_run.returncode == 0, with_run.stdout
    shutil.rmtree(path.rpartition("/")[0])
    (path,) = [line.removeprefix("comparison: ") for line in with_run.stdout.splitlines() if "comparison: " in line]
    with open(path, encoding="utf-8") as file:
        text = file.read()
    assert text.index("AUC on validation") < text.index("External validation")
    shutil.rmtree(path.rpartition("/")[0])
    gone = run_here("compare", fold.folder / "evaluations" / "gone-12345678")
    assert gone.returncode == 2
    assert "no finished evaluation" in gone.stdout
