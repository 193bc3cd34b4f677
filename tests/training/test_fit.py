import fcntl
import json
import os
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cxrkeras.config import load_experiment
from cxrkeras.data.identity import hash_patients
from cxrkeras.errors import InputError
from cxrkeras.labels import NIH
from cxrkeras.models.past import encode_past, read_past
from cxrkeras.models.registry import NETWORKS
from cxrkeras.records.find_records import find_records
from cxrkeras.records.folder import open_records
from cxrkeras.records.manifest import load_manifest
from cxrkeras.records.write import write_records
from cxrkeras.scoring.find_runs import find_fold, find_run
from cxrkeras.scoring.run_files import RUNS_ROOT
from cxrkeras.scoring.scores import mean_auc, score_labels
from cxrkeras.training.backup import Position, load_backup, save_backup
from cxrkeras.training.continuation import continue_shorter
from cxrkeras.training.fit import train_fold
from cxrkeras.training.losses import TargetCounts
from cxrkeras.training.resolve import choose_precision, describe_run, resolve_experiment
from cxrkeras.training.start import check_start
from cxrkeras.training.training_state import TrainingState
from tests.support.notes import NotedProgress

FILES = {
    "config.json",
    "model.keras",
    "history.csv",
    "predictions_validation.csv",
    "predictions_test.csv",
    "metrics.json",
    "tensorboard",
    "input_check.npz",
    "calibration.json",
    "thresholds.json",
    "trained_on.json",
}


def with_settings(experiment, overrides):
    settings = json.loads(experiment.model_dump_json(exclude_none=True, exclude_unset=True))
    return load_experiment(settings=settings, overrides=overrides)


def test_a_real_run_of_two_epochs_fills_its_folder(trained, records):
    folder = trained.folder
    assert {path.name for path in folder.iterdir()} - {"gradcam"} == FILES
    config = json.loads((folder / "config.json").read_text())
    index = open_records(records).index
    manifest = load_manifest(records)
    assert config["experiment"]["model"]["size"] == 32
    assert config["experiment"]["training"]["precision"] == "float32"
    assert config["records_fingerprint"] == manifest.fingerprint
    assert config["is_synthetic"]
    training = index[(index["split"] == "train_val") & (index["fold"] != 0)]
    assert config["parts"]["training"]["positives"]["Mass"] == training["Mass"].sum()
    assert sum(counts["images"] for counts in config["parts"].values()) == 200

    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert history["learning rate"].tolist() == pytest.approx([1e-3, 5e-4])
    assert history["loss/train"].is_monotonic_decreasing

    metrics = json.loads((folder / "metrics.json").read_text())
    network = keras.models.load_model(folder / "model.keras")
    for name, rows in (
        ("validation", index[index["fold"] == 0]),
        ("test", index[index["split"] == "test"]),
    ):
        table = pd.read_csv(folder / f"predictions_{name}.csv", dtype={"image_id": str, "patient_id": str})
        assert table["image_id"].tolist() == rows["image_id"].tolist()
        assert list(table.columns[2:6]) == ["Atelectasis", "logit_Atelectasis", "Cardiomegaly", "logit_Cardiomegaly"]
        truth = table[list(NIH.names)].to_numpy()
        logits = table[[f"logit_{label}" for label in NIH.names]].to_numpy()
        assert np.array_equal(truth, rows[list(NIH.names)])
        scores = score_labels(truth, logits, NIH.names)
        assert metrics[name]["mean_auc"] == pytest.approx(mean_auc(scores, NIH)[0], abs=1e-6)
        assert (metrics[name]["images"], metrics[name]["patients"]) == (len(rows), rows["patient_id"].nunique())
        assert metrics[name]["labels"][0]["positives"] == rows["Atelectasis"].sum()
    # The saved network is that of the best epoch.
    assert metrics["validation"]["mean_auc"] == pytest.approx(history["auc/mean"].max(), abs=1e-6)
    assert metrics["best_epoch"] == history["epoch"][history["auc/mean"].idxmax()]
    assert (metrics["fold"], metrics["is_partial"], metrics["records"]) == (0, False, str(records))
    assert network.count_params() > 11e6


def test_operating_points_record_their_validation_set(trained, records):
    index = open_records(records).index
    rows = index[index["fold"] == 0]
    for name in ("calibration.json", "thresholds.json"):
        origin = json.loads((trained.folder / name).read_text())["fitted_on"]
        assert origin == {
            "part": "validation",
            "fold": 0,
            "split_name": load_manifest(records).split_name,
            "images": len(rows),
            "patients": rows["patient_id"].nunique(),
        }


def test_augmented_inputs_and_curves_reach_tensorboard(trained):
    events = EventAccumulator(str(trained.folder / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"loss/train", "loss/validation", "learning rate", "images per second", "auc/mean"} <= set(tags)
    assert {f"auc/{label}" for label in NIH.findings} & set(tags)
    assert "augmented inputs (synthetic phantoms)" in tags


def test_a_finished_run_is_not_trained_again(trained, small_experiment):
    before = (trained.folder / "metrics.json").stat().st_mtime_ns
    noted = NotedProgress()
    repeated = train_fold(small_experiment, root=trained.folder.parents[1], progress=noted)
    assert not repeated.is_new
    assert repeated.fold.metrics == trained.metrics
    assert noted.said[0].startswith(f"already done: {trained.folder}. For more epochs")
    assert (trained.folder / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("content", ["", "{}", "[1]", "{"])
def test_damaged_results_are_reported(trained, small_experiment, tmp_path, content):
    root = shutil.copytree(trained.folder.parents[1], tmp_path / "runs")
    metrics = root / trained.folder.parent.name / "fold0" / "metrics.json"
    metrics.write_text(content)
    with pytest.raises(InputError, match=r"metrics\.json is damaged"):
        train_fold(small_experiment, root=root).fold.metrics  # noqa: B018


def test_an_interrupted_run_resumes(trained, small_experiment, tmp_path):
    """SIGTERM during the second epoch, then the same call again."""

    class Killer(NotedProgress):
        def start(self, phase, total=0):
            advance, calls = super().start(phase, total), []

            def advance_and_kill(count=1):
                advance(count)
                calls.append(count)
                if phase == "epoch 2/2" and len(calls) == 3:  # the first call reports where the epoch begins
                    os.kill(os.getpid(), signal.SIGTERM)

            return advance_and_kill

    killer, handler = Killer(), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train_fold(small_experiment, root=tmp_path, progress=killer)
    assert killer.said[-1] == "stopping after this step"
    assert signal.getsignal(signal.SIGTERM) is handler
    (best,) = tmp_path.glob("*/fold0/model.keras")
    best.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="the best epoch so far, is missing"):
        train_fold(small_experiment, root=tmp_path)
    (tmp_path / "elsewhere").rename(best)
    noted = NotedProgress()
    result = train_fold(small_experiment, root=tmp_path, progress=noted)
    (resuming,) = [sentence for sentence in noted.said if sentence.startswith("resuming after epoch 1 and ")]
    assert int(resuming.split()[5]) in (2, 3)
    assert not any(sentence.startswith("epoch 1/2") for sentence in noted.said)
    uninterrupted = pd.read_csv(trained.folder / "history.csv").drop(columns=["images per second", "waiting for input"])
    resumed = pd.read_csv(result.fold.folder / "history.csv").drop(columns=["images per second", "waiting for input"])
    pd.testing.assert_frame_equal(resumed, uninterrupted, rtol=1e-3, atol=2e-2)
    assert {path.name for path in result.fold.folder.iterdir()} == FILES


def test_a_recipe_with_many_settings_runs_and_is_recorded(small_experiment, tmp_path):
    phases = [{"layers": "head", "epochs": 1, "learning_rate": 1e-2}, {"layers": 2, "epochs": 1}]
    settings = {
        "data": small_experiment.data.model_dump(),
        "model": small_experiment.model.model_dump(),
        "training": {"phases": phases, "gradcam": 3},
        "loss": {"name": "asymmetric"},
        "optimiser": {"name": "adamw", "learning_rate": 1e-3, "average": 0.9, "clip_norm": 1.0},
        "schedule": {"name": "cosine", "warm_up": 0.5},
        "sampling": {"name": "balanced", "most": 5.0},
    }
    result = train_fold(load_experiment(settings=settings), root=tmp_path)
    history = pd.read_csv(result.fold.folder / "history.csv")
    assert history["phase"].tolist() == [1, 2]
    # The last step of a phase is at the end of the cosine, which restarts in the next phase.
    assert 0 < history["learning rate"][0] <= 5e-3
    assert history["learning rate"][1] == pytest.approx(history["learning rate"][0] / 10)
    assert history["waiting for input"].between(0, 1).all()
    events = EventAccumulator(str(result.fold.folder / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    assert "Grad-CAM of validation images (synthetic phantoms)" in events.Tags()["tensors"]
    assert any(
        "hparams" in tag for tag in events.SummaryMetadata(tag_of_hparams(events)).plugin_data.plugin_name.split()
    )
    # The saved network is the average, whose scores are in the history.
    metrics = json.loads((result.fold.folder / "metrics.json").read_text())
    assert metrics["validation"]["mean_auc"] == pytest.approx(history["auc/mean"].max(), abs=1e-6)


def tag_of_hparams(events):
    return next(tag for tag in events.Tags()["tensors"] if tag.startswith("_hparams_"))


def test_a_fold_cannot_be_trained_twice_at_once(small_experiment, tmp_path):
    with (tmp_path / f".{resolve_experiment(small_experiment).name_run('resnet18')}-fold0.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is training in"):
            train_fold(small_experiment, root=tmp_path)


def test_running_out_of_memory_suggests_a_batch_size(small_experiment, tmp_path, monkeypatch):
    """TensorFlow's own error, from a tensor that fits no machine."""
    monkeypatch.setattr("cxrkeras.training.fit.TrainingState", lambda *arguments: tf.zeros([2**20, 2**20, 2**10]))
    with pytest.raises(InputError, match=r"out of memory .*: try training\.batch_size=16"):
        train_fold(small_experiment, root=tmp_path)


def test_a_backup_from_before_phases_were_counted(tmp_path):
    history = [{"epoch": epoch, "phase": phase} for epoch, phase in enumerate((1, 1, 2, 2, 2), 1)]
    save_backup(tmp_path, [], Position(epochs_done=5, best_quality=0.7, best_epoch=4, history=history))
    path = tmp_path / "backup" / "state.npz"
    with np.load(path) as saved:
        content = json.loads(str(saved["progress"]))
    for name in ("phase", "phase_began", "phase_quality", "phase_best_epoch", "stopped"):
        del content[name]
    np.savez(path, progress=json.dumps(content))
    position = load_backup(tmp_path, [])
    assert (position.phase, position.phase_began, position.phase_best_epoch) == (1, 2, 4)
    assert position.phase_quality == 0.7
    assert position.is_phase_over(epochs=3, patience=0)
    assert not position.is_phase_over(epochs=4, patience=0)


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"text"])
def test_a_damaged_backup_is_reported(tmp_path, damage):
    variables = [keras.Variable(np.arange(6.0)), keras.Variable(np.ones((2, 3)))]
    save_backup(tmp_path, variables, Position(epochs_done=3, history=[{"epoch": 1}]))
    restored = [keras.Variable(np.zeros(6)), keras.Variable(np.zeros((2, 3)))]
    assert load_backup(tmp_path, restored).epochs_done == 3
    assert np.array_equal(restored[0], np.arange(6.0))
    path = tmp_path / "backup" / "state.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="train again"):
        load_backup(tmp_path, restored)


def test_names_depend_on_settings_and_data_but_not_on_the_fold(small_experiment):
    def name(overrides):
        return resolve_experiment(with_settings(small_experiment, overrides)).name_run("mine")

    assert name("") == name("data.fold=3")
    assert len({name(""), name("training.epochs=3"), name("training.seed=1")}) == 3


def test_batch_size_and_bias_come_from_network_and_data(small_experiment):
    assert small_experiment.training.batch_size is None
    setup = resolve_experiment(with_settings(small_experiment, "model.head.prevalence_bias=true"))
    assert setup.experiment.training.batch_size == NETWORKS["resnet18"].batch
    known = np.full(15, 40) + np.arange(15) % 2
    state = TrainingState(setup.experiment, NIH, TargetCounts(60, np.arange(15), known, 12.0))
    for network in (state.network, state.saved):
        bias = network.get_layer("logits").get_weights()[1]
        assert np.allclose(bias, np.log((np.arange(15) + 0.5) / (known + 0.5 - np.arange(15))), atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("model.size=64", ["64", "32"]),
        ("data.fold=5", ["data.fold is 5", "0 to 4"]),
        ("model.name=resnet19", ["resnet19", "resnet18"]),
        ("data.records=nowhere", ["nowhere"]),
        ("loss.name=weighted_bce loss.weights=[1,2]", ["loss.weights has 2 numbers", "15 labels"]),
        ('labels.use=["Mas"]', ["[labels] does not fit", "did you mean Mass"]),
        ("labels.uncertain_by_label.Cough=positive", ["[labels] does not fit", "unknown label 'Cough'"]),
        ("model.weights=nowhere.keras", ["nowhere.keras"]),
        ("model.weights=imagenet", ["no ImageNet weights for resnet18"]),
    ],
)
def test_settings_that_do_not_fit_are_refused(small_experiment, tmp_path, monkeypatch, overrides, words):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError) as caught:
        train_fold(with_settings(small_experiment, overrides), root=tmp_path)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not list(tmp_path.glob("[!.]*-*"))  # no folder of a run that never started


def test_a_loss_that_is_not_finite_stops_the_run(small_experiment, tmp_path):
    experiment = with_settings(small_experiment, "optimiser.learning_rate=10 training.epochs=5 schedule.name=constant")
    network = save_nan_network(tmp_path)
    experiment = with_settings(experiment, f"model.weights={network}")
    with pytest.raises(InputError, match="epoch 1: the loss is nan from batch 1 "):
        train_fold(experiment, root=tmp_path)


def save_nan_network(folder):
    from cxrkeras.models.classifier import build_classifier

    network = build_classifier("resnet18", 32, 15)
    head = network.get_layer("logits")
    head.set_weights([np.full_like(weight, np.nan) for weight in head.get_weights()])
    network.save(folder / "nan.keras")
    return folder / "nan.keras"


def follow(qualities, phases, patience):
    """Find the phase of each epoch with these qualities, and the position at the end."""
    position, phase_of_epoch, remaining = Position(), [], iter(qualities)
    while True:
        while position.phase < len(phases) and position.is_phase_over(phases[position.phase], patience):
            position.end_phase(phases[position.phase])
        if position.phase == len(phases):
            return phase_of_epoch, position
        phase_of_epoch.append(position.phase)
        position.note_epoch(next(remaining))
        position = Position(**json.loads(json.dumps(asdict(position))))  # as it is saved and read between epochs


@pytest.mark.parametrize(
    ("qualities", "phases", "patience", "expected", "best", "stopped"),
    [
        ([0.6, 0.7, 0.65, 0.7], [6], 2, [0] * 4, 2, [{"phase": 1, "epoch": 4}]),
        ([0.6, 0.7, 0.8], [3], 2, [0] * 3, 3, []),
        ([0.6, 0.5, 0.4, 0.45, 0.7], [3, 3], 1, [0, 0, 1, 1, 1], 5, [{"phase": 1, "epoch": 2}]),
        ([0.6, 0.5, 0.4, 0.3], [3, 3], 1, [0, 0, 1, 1], 1, [{"phase": 1, "epoch": 2}, {"phase": 2, "epoch": 4}]),
        ([0.6, 0.5, 0.4], [3], 0, [0] * 3, 1, []),
    ],
)
def test_early_stopping_ends_a_phase_and_restarts_in_the_next(qualities, phases, patience, expected, best, stopped):
    found, position = follow(qualities, phases, patience)
    assert (found, position.best_epoch, position.stopped) == (expected, best, stopped)


def test_a_phase_that_stops_early_does_not_change_the_next(small_experiment, tmp_path):
    """A head that does not learn ends its phase after two epochs; the whole network then trains for up to two."""
    settings = json.loads(small_experiment.model_dump_json(exclude_none=True, exclude_unset=True))
    settings["training"] = {"batch_size": 128, "early_stopping": 1, "keep_state": True, "phases": [
        {"layers": "head", "epochs": 3, "learning_rate": 1e-12}, {"layers": "all", "epochs": 2, "learning_rate": 1e-3},
    ]}  # fmt: skip
    noted = NotedProgress()
    result = train_fold(load_experiment(settings=settings), root=tmp_path, progress=noted)
    history = pd.read_csv(result.fold.folder / "history.csv")
    assert history["phase"].tolist()[:3] == [1, 1, 2]
    assert history["learning rate"].tolist()[:3] == pytest.approx([1e-12, 5e-13, 1e-3])  # the learning rate restarts
    assert {"phase": 1, "epoch": 2} in result.fold.metrics.stopped_early
    assert any(sentence.startswith("phase 1 of 2 ends early, after epoch 2: no better") for sentence in noted.said)
    assert "the last state is kept in" in noted.said[-1]
    assert (result.fold.folder / "backup" / "state.npz").is_file()
    # A longer run of the same settings resumes from there.
    settings["training"]["phases"][1]["epochs"] = 3
    settings["training"]["early_stopping"] = 1
    noted = NotedProgress()
    longer = train_fold(load_experiment(settings=settings), root=tmp_path, progress=noted)
    assert longer.fold.folder != result.fold.folder
    assert f"resuming from {result.fold.folder.parent.name}/fold0 after epoch {len(history)}" in noted.said
    extended = pd.read_csv(longer.fold.folder / "history.csv")
    assert extended.iloc[: len(history)].equals(history)
    noted = NotedProgress()
    assert not train_fold(load_experiment(settings=settings), root=tmp_path, progress=noted).is_new
    assert "For more epochs raise the epochs of the last phase" in noted.said[0]


def test_a_longer_run_explains_why_it_starts_at_the_first_epoch(trained, small_experiment, tmp_path):
    shutil.copytree(trained.folder.parents[1], tmp_path / "runs")

    def prepare(overrides):
        setup, noted = resolve_experiment(with_settings(small_experiment, overrides)), NotedProgress()
        continue_shorter(tmp_path / "runs" / setup.name_run("resnet18") / "fold0", setup, noted)
        return noted.said

    assert "its state was not kept (training.keep_state = true): starting at epoch 1" in prepare("training.epochs=3")[0]
    assert prepare("training.epochs=1") == prepare("training.epochs=3 training.seed=7") == []
    setup = resolve_experiment(with_settings(small_experiment, "training.keep_state=true"))
    assert setup.name_run("resnet18") == trained.folder.parent.name  # not part of the name
    finished = tmp_path / "runs" / trained.folder.parent.name / "fold0"
    config = json.loads((finished / "config.json").read_text())
    config["experiment"]["schedule"] = {"name": "cosine", "warm_up": 1.0}
    shorter = resolve_experiment(with_settings(small_experiment, "schedule.name=cosine"))
    moved = tmp_path / "runs" / shorter.name_run("resnet18") / "fold0"
    shutil.copytree(finished, moved)
    (moved / "config.json").write_text(json.dumps(config))
    (sentence,) = prepare("training.epochs=3 schedule.name=cosine")
    assert "the cosine schedule depends on their number: starting at epoch 1" in sentence


def test_starting_from_a_run(trained, small_experiment, tmp_path):
    """With a vanishing learning rate the start weights are saved."""
    overrides = f"model.weights={trained.folder / 'model.keras'} training.epochs=1 optimiser.learning_rate=1e-12"
    result = train_fold(with_settings(small_experiment, overrides), root=tmp_path)
    kept = keras.models.load_model(result.fold.folder / "model.keras")
    start = keras.models.load_model(trained.folder / "model.keras")
    assert np.allclose(kept.get_layer("conv1").kernel, start.get_layer("conv1").kernel, atol=1e-6)


def count_held_out(records, fold):
    index = open_records(records).index
    return index[index["fold"] == fold]["patient_id"].nunique(), index[index["split"] == "test"]["patient_id"].nunique()


def test_start_weights_trained_on_held_out_patients_are_refused(trained, small_experiment, tmp_path, dataset):
    """Also from a copy of the network, and for records with an edited label or a moved patient."""
    weights = shutil.copy(trained.folder / "model.keras", tmp_path / "copy.keras")
    overrides = f"model.weights={weights} training.epochs=1"
    validation, test = count_held_out(Path(small_experiment.data.records), 1)
    words = f"{validation} of the {validation} patients held out in fold 1 and 0 of the {test} patients in the test set"
    with pytest.raises(InputError, match=words):
        train_fold(with_settings(small_experiment, f"{overrides} data.fold=1"), root=tmp_path)
    table = dataset.table.copy()
    table.loc[0, "Mass"] = 1 - table.loc[0, "Mass"]
    index = open_records(Path(small_experiment.data.records)).index
    moved = index.query("split == 'train_val' and fold != 0")["patient_id"].iloc[0]
    table["split"] = table["split"].where(table["patient_id"] != moved, "test")
    write_records(replace(dataset, table=table, split_name="custom-1"), tmp_path / "records", size=32)
    edited = with_settings(small_experiment, f"{overrides} data.records={tmp_path / 'records'}")
    with pytest.raises(InputError, match=r" patients held out in fold 0 and 1 of the \d+ patients in the test set"):
        train_fold(edited, root=tmp_path)
    others = replace(dataset, namespace="others")
    write_records(others, tmp_path / "others", size=32)
    setup = resolve_experiment(
        with_settings(small_experiment, f"{overrides} data.records={tmp_path / 'others'} data.fold=1")
    )
    noted = NotedProgress()
    past = check_start(setup, noted)  # different patients with the same ids
    assert past.is_known
    assert not noted.said


def test_start_weights_without_a_past_are_reported_as_unchecked(trained, small_experiment, tmp_path, monkeypatch):
    network = keras.models.load_model(trained.folder / "model.keras")
    network.save(tmp_path / "bare.keras")
    network.save_weights(tmp_path / "bare.weights.h5")
    for name in ("bare.keras", "bare.weights.h5"):
        noted = NotedProgress()
        setup = resolve_experiment(with_settings(small_experiment, f"model.weights={tmp_path / name} data.fold=1"))
        past = check_start(setup, noted)
        assert not past.is_known
        assert [sentence for sentence in noted.said if "cannot be checked" in sentence]
    config = describe_run(setup, None, is_past_known=past.is_known)
    assert config["is_past_known"] is False


def test_a_network_file_contains_hashes_of_its_training_patients(trained, small_experiment, records):
    past, index = read_past(trained.folder / "model.keras"), open_records(records).index
    manifest = load_manifest(records)
    assert past.is_known
    assert json.loads((trained.folder / "trained_on.json").read_text()) == encode_past(past)
    found = past.find(index["patient_id"], open_records(records).hash_patients)
    assert found == set(index.query("split == 'train_val' and fold != 0")["patient_id"])
    hash_again = lambda ids, salt, rounds: hash_patients(manifest.namespace, ids, salt, rounds)  # noqa: E731
    assert past.find(index["patient_id"], hash_again) == found
    assert keras.models.load_model(trained.folder / "model.keras").count_params() > 11e6


def test_the_name_of_a_run_depends_on_the_content_of_its_start_weights(trained, small_experiment, tmp_path):
    shutil.copy(trained.folder / "model.keras", tmp_path / "a.keras")
    shutil.copy(trained.folder / "model.keras", tmp_path / "b.keras")

    def name(file):
        return resolve_experiment(with_settings(small_experiment, f"model.weights={tmp_path / file}")).name_run("mine")

    assert name("a.keras") == name("b.keras")
    with (tmp_path / "b.keras").open("ab") as file:
        file.write(b"more")
    assert name("a.keras") != name("b.keras")


def test_precision_depends_on_the_device(monkeypatch):
    assert choose_precision("mixed_float16") == "mixed_float16"
    patch = monkeypatch.setattr
    for gpus, capability, expected in (
        ([], None, "float32"),
        (["gpu"], (7, 5), "mixed_float16"),
        (["gpu"], (9, 0), "mixed_bfloat16"),
    ):
        patch("tensorflow.config.list_physical_devices", lambda kind=None, found=gpus: found)
        details = {"compute_capability": capability}
        patch("tensorflow.config.experimental.get_device_details", lambda gpu, found=details: found)
        assert choose_precision("auto") == expected


def test_finding_runs_and_records(trained, records, tmp_path, monkeypatch):
    shutil.copytree(trained.folder.parents[1], tmp_path / "experiments" / "runs")
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "mine").symlink_to(records)
    monkeypatch.chdir(tmp_path)
    run = trained.folder.parent.name
    for given in (None, run, f"{run}/fold0", f"experiments/runs/{run}", str(RUNS_ROOT.resolve() / run)):
        assert find_fold(given).resolve() == (tmp_path / "experiments" / "runs" / run / "fold0").resolve()
    experiment = run[:-9]
    for given in (experiment, f"{experiment}/fold0"):
        assert find_fold(given).name == "fold0"
    assert find_run(experiment) == RUNS_ROOT / run
    assert find_run(f"{run}/fold0") == RUNS_ROOT / run / "fold0"
    (RUNS_ROOT / f"{experiment}-00000000").mkdir()
    with pytest.raises(InputError, match=f"no run '{experiment}'"):  # two runs have that name
        find_run(experiment)
    with pytest.raises(InputError, match=run):
        find_fold("other")
    assert find_records("mine") == find_records(None)
    with pytest.raises(InputError, match="mine"):
        find_records("other")
