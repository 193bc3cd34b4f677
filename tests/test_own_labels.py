"""Data sets with custom labels, some uncertain and some unknown, from a CSV file to predictions."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

import cxrkeras
from cxrkeras.config import format_experiment, load_experiment
from cxrkeras.data.readers import read_dataset
from cxrkeras.errors import InputError
from cxrkeras.explain.sheet import SheetWriter
from cxrkeras.labels import NOT_KNOWN, UNCERTAIN, LabelSet
from cxrkeras.models.network_file import read_label_names
from cxrkeras.records.folder import open_records
from cxrkeras.records.write import write_records
from cxrkeras.reports.explore import write_exploration
from cxrkeras.reports.report import write_report
from cxrkeras.scoring.calibration import brier_score
from cxrkeras.scoring.evaluation import MEAN, evaluate
from cxrkeras.scoring.intervals import Ranking
from cxrkeras.training.fit import train_fold
from cxrkeras.training.resolve import resolve_experiment
from tests.support.notes import NotedProgress

OWN = LabelSet(("Opacity/left", "TB", "normal"), "normal")


@pytest.fixture(scope="module")
def own_folder(phantom_folder, tmp_path_factory):
    """Phantoms with custom labels: a slash in a name, uncertain and unknown values, and a label for no finding."""
    folder = tmp_path_factory.mktemp("own") / "mine"
    folder.mkdir()
    table = read_dataset(phantom_folder).table
    rng = np.random.default_rng(0)
    values = {
        "Opacity/left": table[["Mass", "Nodule", "Consolidation"]].max(axis=1).astype(object),
        "TB": table[["Effusion", "Infiltration"]].max(axis=1).astype(object),
    }
    nothing = ((values["Opacity/left"] == 0) & (values["TB"] == 0)).astype(int).astype(object)
    for column in values.values():
        column[rng.random(len(column)) < 0.15] = -1
        column[rng.random(len(column)) < 0.15] = ""
    own = pd.DataFrame({"image": table["path"], "patient": table["patient_id"], "age": table["age"], **values})
    own.assign(normal=nothing).to_csv(folder / "mine.csv", index=False)
    return folder


@pytest.fixture(scope="module")
def own_records(own_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own-records") / "mine-32"
    write_records(read_dataset(own_folder), folder, size=32, num_folds=3)
    return folder


def build_experiment(records, overrides=""):
    settings = {
        "data": {"records": str(records)},
        "model": {"name": "resnet18", "weights": "none"},
        "training": {"epochs": 1},
    }
    return load_experiment(settings=settings, overrides=overrides)


@pytest.fixture(scope="module")
def own_fold(own_records, tmp_path_factory):
    root = tmp_path_factory.mktemp("own-runs")
    experiment = build_experiment(own_records, "labels.uncertain=positive labels.uncertain_by_label.TB=ignore")
    return train_fold(experiment, root=root).fold


def test_records_keep_all_four_values(own_folder, own_records):
    table, records = read_dataset(own_folder).table.set_index("image_id"), open_records(own_records)
    records.verify()
    assert records.labels == OWN
    index = records.index.set_index("image_id")
    assert set(index["TB"]) == {1, 0, UNCERTAIN, NOT_KNOWN}
    assert index[list(OWN)].equals(table.loc[index.index, list(OWN)])
    (images, values, ids, _) = next(iter(records.evaluation_batches("test", batch_size=9, labels=OWN.choose(["TB"]))))
    assert values.numpy()[:, 0].tolist() == index.loc[[name.decode() for name in ids.numpy()], "TB"].tolist()
    assert images.shape == (9, 32, 32, 1)


def test_a_run_counts_known_labels_and_its_files_keep_unknown_ones(own_fold, own_records):
    assert own_fold.labels == OWN
    assert read_label_names(own_fold.folder / "model.keras") == OWN.names
    index = open_records(own_records).index.set_index("image_id")
    for name, predictions in own_fold.predictions.items():
        rows = index.loc[predictions.image_ids]
        assert np.array_equal(predictions.values, rows[list(OWN)])
        for k, label in enumerate(OWN):
            truth, logits = rows[label].to_numpy(), predictions.logits[:, k]
            known = truth >= 0
            scores = own_fold.metrics.sets[name].labels[k]
            assert (scores.positives, scores.known) == ((truth == 1).sum(), known.sum())
            assert scores.auc == roc_auc_score(truth[known], logits[known])
            assert scores.average_precision == pytest.approx(average_precision_score(truth[known], logits[known]))
    training = index[(index["split"] == "train_val") & (index["fold"] != 0)]
    counts = own_fold.config.parts["training"]
    assert counts.known["TB"] == (training["TB"] >= 0).sum()
    assert counts.positives["TB"] == (training["TB"] == 1).sum()


def test_uncertain_labels_affect_only_the_training_loss(own_records):
    index = open_records(own_records).index
    training = index[(index["split"] == "train_val") & (index["fold"] != 0)]
    uncertain = {label: (training[label] == UNCERTAIN).sum() for label in OWN}
    found = {}
    for choice in ("ignore", "positive", "negative"):
        setup = resolve_experiment(build_experiment(own_records, f"labels.uncertain={choice}"))
        batches = setup.records.training_batches(0, setup.targets, batch_size=1000, seed=0, epoch=0)
        (targets,) = (batch.numpy() for _, batch in batches)
        found[choice] = targets
        assert setup.counts.targets_per_image == pytest.approx(np.isfinite(targets).sum() / len(targets))
        assert setup.counts.known.tolist() == [(training[label] >= 0).sum() for label in OWN]
    for k, label in enumerate(OWN):
        sums = {
            choice: (np.nansum(targets[:, k]), np.isfinite(targets[:, k]).sum()) for choice, targets in found.items()
        }
        positives, known = sums["ignore"]
        assert sums["positive"] == (positives + uncertain[label], known + uncertain[label])
        assert sums["negative"] == (positives, known + uncertain[label])


def test_a_subset_of_labels_in_a_chosen_order_is_learned(own_records, tmp_path):
    experiment = build_experiment(own_records, 'labels.use=["tb","Opacity/left"] sampling.name=balanced')
    assert load_experiment(str(write_toml(experiment, tmp_path))) == experiment
    fold = train_fold(experiment, root=tmp_path).fold
    assert fold.labels == LabelSet(("TB", "Opacity/left"))
    assert fold.metrics.test.mean_auc_findings == 2
    table = pd.read_csv(fold.folder / "predictions_test.csv")
    assert list(table.columns[2:]) == ["TB", "logit_TB", "Opacity/left", "logit_Opacity/left"]


def write_toml(experiment, folder):
    path = folder / "mine.toml"
    path.write_text(format_experiment(experiment))
    return path


def test_reports_and_sheets_for_labels_with_slashes(own_fold, own_records, own_folder):
    path, notes = write_report(own_fold, replicates=20)
    assert not notes
    text = path.read_text()
    scores = pd.read_csv(path.parent / "scores.csv").set_index(["part", "label"]).loc["test"]
    known = int(scores.loc["TB", "known"])
    assert known < scores.loc["TB", "images"]
    assert f"<td>{int(scores.loc['TB', 'positives'])} of {known}</td>" in text
    image = Path(read_dataset(own_folder).table["path"][0])
    sheet = SheetWriter(own_fold).write(image, "opacity/LEFT")
    assert sheet.paths[0].name.endswith("-Opacity_left.png")
    assert "normal" not in SheetWriter(own_fold).write(image).shown
    explored = write_exploration(open_records(own_records))
    frequencies = pd.read_csv(explored.parent / "frequencies.csv").set_index("label")
    assert frequencies.loc["TB", "all_uncertain"] == (open_records(own_records).index["TB"] == UNCERTAIN).sum()


def test_the_python_interface_uses_the_labels_of_the_run(own_fold, own_folder):
    run = cxrkeras.open_run(str(own_fold.folder.parent))
    table = read_dataset(own_folder).table
    first = table[table["split"] == "test"].iloc[0]
    path = first["path"]
    prediction = run.predict(path)
    assert list(prediction.probs) == list(OWN)
    assert prediction.thresholds.keys() == prediction.probs.keys()
    assert prediction.warnings == ()
    test = own_fold.predictions["test"]
    (row,) = np.flatnonzero(test.image_ids == first["image_id"])
    calibrated = own_fold.operating_points.calibration.apply(test.logits[[row]], OWN)[0]
    assert list(prediction.probs.values()) == pytest.approx(calibrated, abs=1e-5)
    maps = run.explain(path, ["tb"])
    assert list(maps) == ["TB"]
    assert (maps["TB"].shape, maps["TB"].dtype) == ((64, 64), np.float32)
    with pytest.raises(InputError, match="no image file nowhere"):
        run.predict("nowhere.png")
    with pytest.raises(InputError, match="unknown label 'Mass'"):
        run.explain(path, ["Mass"])


def test_starting_from_a_network_of_other_labels_names_the_new_outputs(own_fold, records, tmp_path):
    overrides = f"model.weights={own_fold.folder / 'model.keras'} optimiser.learning_rate=1e-12"
    noted = NotedProgress()
    train_fold(build_experiment(records, overrides), root=tmp_path, progress=noted)
    assert any("was trained for other labels: the outputs for Atelectasis" in sentence for sentence in noted.said)


def test_every_score_of_an_evaluation_counts_known_labels_only(own_fold):
    test = own_fold.predictions["test"]
    evaluation = evaluate(test, points=own_fold.operating_points, replicates=30)
    for k, label in enumerate(OWN):
        known = test.values[:, k] >= 0
        truth, probs, row = test.values[known, k], evaluation.probs[known, k], evaluation.scores.loc[label]
        assert row["brier"] == pytest.approx(np.mean((probs - truth) ** 2))
        assert brier_score(test.truth[:, [k]], evaluation.probs[:, [k]])[0] == pytest.approx(row["brier"])
        outcomes = row[["tp", "fp", "fn", "tn"]]
        assert outcomes.isna().all() or outcomes.sum() == known.sum()
        weights = np.ones((len(test), 1), np.float32)
        auc, precision = Ranking(test.truth[:, k], test.logits[:, k]).score(weights)
        assert auc[0] == pytest.approx(row["auc"])
        assert precision[0] == pytest.approx(row["average_precision"])
    assert evaluation.scores.loc[MEAN, "note"] == "2 of 2"


@pytest.mark.parametrize("num_labels", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_data_sets_of_one_and_forty_labels(phantom_folder, tmp_path, num_labels):
    """A single finding without a label for no finding, and forty labels of which most are rare."""
    table = read_dataset(phantom_folder).table
    rng = np.random.default_rng(1)
    folder = tmp_path / "mine"
    folder.mkdir()
    own = pd.DataFrame({"image": table["path"], "patient": table["patient_id"]})
    columns = {f"finding {k}": (rng.random(len(table)) < 0.3 / (k + 1)).astype(int) for k in range(num_labels)}
    pd.concat([own, pd.DataFrame(columns, own.index)], axis=1).to_csv(folder / "mine.csv", index=False)
    write_records(read_dataset(folder), tmp_path / "records", size=32, num_folds=2)
    fold = train_fold(build_experiment(tmp_path / "records"), root=tmp_path / "runs").fold
    assert len(fold.labels.findings) == num_labels
    path, _ = write_report(fold, replicates=10)
    assert path.is_file()
    images = SheetWriter(fold).write(Path(table["path"][0]), "all").paths
    assert len(images) == (2 if num_labels == 40 else 1)
    config = json.loads((fold.folder / "config.json").read_text())
    assert config["labels"] == list(columns)
    assert write_exploration(open_records(tmp_path / "records")).is_file()


@pytest.mark.parametrize(
    ("blank_fold", "message"),
    [(0, "no label of the validation set .* is known: no epoch"), (1, "no label of the training set .* is known")],
)
def test_a_training_with_nothing_to_learn_or_to_choose_by_is_refused(own_folder, tmp_path, blank_fold, message):
    folder = tmp_path / "mine-32"
    dataset = read_dataset(own_folder)
    write_records(dataset, tmp_path / "all", size=32, num_folds=2)
    folds = open_records(str(tmp_path / "all")).index.set_index("image_id")["fold"]
    dataset.table.loc[dataset.table["image_id"].map(folds) == blank_fold, list(OWN)] = NOT_KNOWN
    write_records(dataset, folder, size=32, num_folds=2)
    with pytest.raises(InputError, match=message):
        train_fold(build_experiment(folder), root=tmp_path)


def test_a_column_of_labels_that_holds_numbers_is_refused(tmp_path):
    (tmp_path / "own.csv").write_text("image,patient,labels\na.png,1,1\nb.png,2,0\n")
    with pytest.raises(InputError, match="the column labels holds 1, 0 and no names"):
        read_dataset(tmp_path)


def test_two_spellings_of_one_label_may_not_contradict_each_other(own_records):
    overrides = 'labels.uncertain_by_label={TB="positive",tb="negative"}'
    with pytest.raises(InputError, match="TB as positive and as negative"):
        resolve_experiment(build_experiment(own_records, overrides))
