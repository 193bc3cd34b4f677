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
from cxrkeras.labels import FINDINGS, LABELS
from cxrkeras.models.past import encode_past, read_past
from cxrkeras.models.registry import NETWORKS
from cxrkeras.records.find_records import find_records
from cxrkeras.records.manifest import build_hasher, load_index, load_manifest
from cxrkeras.records.write import write_records
from cxrkeras.scoring.find_runs import RUNS_ROOT, find_fold, find_run
from cxrkeras.scoring.scores import mean_auc, score_labels
from cxrkeras.training.backup import Progress, load_backup, save_backup
from cxrkeras.training.continuation import continue_shorter
from cxrkeras.training.fit import Monitor, train_fold
from cxrkeras.training.resolve import choose_precision, describe_run, name_run, resolve_experiment
from cxrkeras.training.start import check_start
from cxrkeras.training.training_state import Trainer

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
    index = load_index(records)
    manifest = load_manifest(records)
    assert config["experiment"]["model"]["size"] == 32
    assert config["experiment"]["training"]["precision"] == "float32"
    assert config["records_fingerprint"] == manifest.fingerprint
    assert config["is_synthetic"]
    training = index[(index["split"] == "train_val") & (index["fold"] != 0)]
    assert config["parts"]["training"]["positives"]["Mass"] == training["Mass"].sum()
    assert sum(part["images"] for part in config["parts"].values()) == 200

    history = pd.read_csv(folder / "history.csv")
    assert history["epoch"].tolist() == [1, 2]
    assert history["learning rate"].tolist() == pytest.approx([1e-3, 5e-4])
    assert history["loss/train"].is_monotonic_decreasing

    metrics = json.loads((folder / "metrics.json").read_text())
    network = keras.models.load_model(folder / "model.keras")
    for part, rows in (
        ("validation", index[index["fold"] == 0]),
        ("test", index[index["split"] == "test"]),
    ):
        table = pd.read_csv(folder / f"predictions_{part}.csv", dtype={"image_id": str, "patient_id": str})
        assert table["image_id"].tolist() == rows["image_id"].tolist()
        assert list(table.columns[2:6]) == ["Atelectasis", "logit_Atelectasis", "Cardiomegaly", "logit_Cardiomegaly"]
        truth = table[list(LABELS)].to_numpy()
        logits = table[[f"logit_{label}" for label in LABELS]].to_numpy()
        assert np.array_equal(truth, rows[list(LABELS)])
        scores = score_labels(truth, logits)
        assert metrics[part]["mean_auc"] == pytest.approx(mean_auc(scores)[0], abs=1e-6)
        assert (metrics[part]["images"], metrics[part]["patients"]) == (len(rows), rows["patient_id"].nunique())
        assert metrics[part]["labels"][0]["positives"] == rows["Atelectasis"].sum()
    for name in ("calibration.json", "thresholds.json"):
        origin = json.loads((folder / name).read_text())["fitted_on"]
        rows = index[index["fold"] == 0]
        assert origin == {
            "part": "validation",
            "fold": 0,
            "split_name": manifest.split_name,
            "images": len(rows),
            "patients": rows["patient_id"].nunique(),
        }
    # The kept network is that of the best epoch.
    assert metrics["validation"]["mean_auc"] == pytest.approx(history["auc/mean"].max(), abs=1e-6)
    assert metrics["best_epoch"] == history["epoch"][history["auc/mean"].idxmax()]
    assert (metrics["fold"], metrics["is_partial"], metrics["records"]) == (0, False, str(records))
    assert network.count_params() > 11e6


def test_augmented_inputs_and_curves_reach_tensorboard(trained):
    events = EventAccumulator(str(trained.folder / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    tags = events.Tags()["tensors"]
    assert {"loss/train", "loss/validation", "learning rate", "images per second", "auc/mean"} <= set(tags)
    assert {f"auc/{label}" for label in FINDINGS} & set(tags)
    assert "augmented inputs (synthetic phantoms)" in tags


def test_the_same_command_again_is_already_done(trained, small_experiment):
    before = (trained.folder / "metrics.json").stat().st_mtime_ns
    said = []
    again = train_fold(small_experiment, root=trained.folder.parents[1], monitor=Monitor(say=said.append))
    assert not again.is_new
    assert again.metrics == trained.metrics
    assert said[0].startswith(f"already done: {trained.folder}. For more epochs")
    assert (trained.folder / "metrics.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("content", ["", "{}", "[1]", "{"])
def test_damaged_results_are_named(trained, small_experiment, tmp_path, content):
    root = shutil.copytree(trained.folder.parents[1], tmp_path / "runs")
    metrics = root / trained.folder.parent.name / "fold0" / "metrics.json"
    metrics.write_text(content)
    with pytest.raises(InputError, match=r"metrics\.json is damaged"):
        train_fold(small_experiment, root=root)


def test_an_interrupted_run_goes_on_where_it_was(trained, small_experiment, tmp_path):
    """SIGTERM in the middle of the second epoch; then the same call again."""
    said, phases, steps = [], [], []

    def count(number):
        if phases[-1] == "epoch 2/2":
            steps.append(number)
            if len(steps) == 3:  # the first call says where the epoch begins
                os.kill(os.getpid(), signal.SIGTERM)

    monitor = Monitor(start=lambda phase, total: phases.append(phase), advance=count, say=said.append)
    with pytest.raises(KeyboardInterrupt):
        train_fold(small_experiment, root=tmp_path, monitor=monitor)
    assert said[-1] == "stopping after this step"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    (best,) = tmp_path.glob("*/fold0/model.keras")
    best.rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="the best epoch so far, is gone"):
        train_fold(small_experiment, root=tmp_path)
    (tmp_path / "elsewhere").rename(best)
    said.clear()
    result = train_fold(small_experiment, root=tmp_path, monitor=Monitor(say=said.append))
    (going_on,) = [sentence for sentence in said if sentence.startswith("going on after epoch 1 and ")]
    assert int(going_on.split()[6]) in (2, 3)
    assert not any(sentence.startswith("epoch 1/2") for sentence in said)
    unbroken = pd.read_csv(trained.folder / "history.csv").drop(columns=["images per second", "waiting for input"])
    resumed = pd.read_csv(result.folder / "history.csv").drop(columns=["images per second", "waiting for input"])
    pd.testing.assert_frame_equal(resumed, unbroken, rtol=1e-3, atol=2e-2)
    assert {path.name for path in result.folder.iterdir()} == FILES


def test_a_regime_of_many_parts_runs_and_is_noted(small_experiment, tmp_path):
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
    history = pd.read_csv(result.folder / "history.csv")
    assert history["phase"].tolist() == [1, 2]
    # The last step of a phase stands at the end of the cosine, which begins anew in the next one.
    assert 0 < history["learning rate"][0] <= 5e-3
    assert history["learning rate"][1] == pytest.approx(history["learning rate"][0] / 10)
    assert history["waiting for input"].between(0, 1).all()
    events = EventAccumulator(str(result.folder / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    assert "Grad-CAM of validation images (synthetic phantoms)" in events.Tags()["tensors"]
    assert any(
        "hparams" in tag for tag in events.SummaryMetadata(tag_of_hparams(events)).plugin_data.plugin_name.split()
    )
    # What is saved is the average, which scored what the history says.
    metrics = json.loads((result.folder / "metrics.json").read_text())
    assert metrics["validation"]["mean_auc"] == pytest.approx(history["auc/mean"].max(), abs=1e-6)


def tag_of_hparams(events):
    return next(tag for tag in events.Tags()["tensors"] if tag.startswith("_hparams_"))


def test_two_trainings_of_the_same_do_not_meet(small_experiment, tmp_path):
    resolved, _, manifest = resolve_experiment(small_experiment)
    with (tmp_path / f".{name_run('resnet18', resolved, manifest)}-fold0.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another process is training in"):
            train_fold(small_experiment, root=tmp_path)


def test_too_little_memory_says_what_to_try(small_experiment, tmp_path, monkeypatch):
    """TensorFlow's own error, of a tensor that no machine holds."""
    monkeypatch.setattr("cxrkeras.training.fit.Trainer", lambda *arguments: tf.zeros([2**20, 2**20, 2**10]))
    with pytest.raises(InputError, match=r'out of memory .*: try SET="training.batch_size=16"'):
        train_fold(small_experiment, root=tmp_path)


def test_a_backup_from_before_phases_were_counted(tmp_path):
    history = [{"epoch": epoch, "phase": phase} for epoch, phase in enumerate((1, 1, 2, 2, 2), 1)]
    save_backup(tmp_path, [], Progress(epochs_done=5, best_quality=0.7, best_epoch=4, history=history))
    path = tmp_path / "backup" / "state.npz"
    with np.load(path) as saved:
        content = json.loads(str(saved["progress"]))
    for name in ("phase", "phase_began", "phase_quality", "phase_best_epoch", "stopped"):
        del content[name]
    np.savez(path, progress=json.dumps(content))
    progress = load_backup(tmp_path, [])
    assert (progress.phase, progress.phase_began, progress.phase_best_epoch) == (1, 2, 4)
    assert progress.phase_quality == 0.7
    assert progress.is_phase_over(epochs=3, patience=0)
    assert not progress.is_phase_over(epochs=4, patience=0)


@pytest.mark.parametrize("damage", [lambda whole: b"", lambda whole: whole[: len(whole) // 2], lambda whole: b"text"])
def test_a_damaged_backup_is_told(tmp_path, damage):
    variables = [keras.Variable(np.arange(6.0)), keras.Variable(np.ones((2, 3)))]
    save_backup(tmp_path, variables, Progress(epochs_done=3, history=[{"epoch": 1}]))
    again = [keras.Variable(np.zeros(6)), keras.Variable(np.zeros((2, 3)))]
    assert load_backup(tmp_path, again).epochs_done == 3
    assert np.array_equal(again[0], np.arange(6.0))
    path = tmp_path / "backup" / "state.npz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match="train again"):
        load_backup(tmp_path, again)


def test_names_follow_settings_and_data_but_not_the_fold(small_experiment):
    def name(overrides):
        resolved, _, manifest = resolve_experiment(with_settings(small_experiment, overrides))
        return name_run("mine", resolved, manifest)

    assert name("") == name("data.fold=3")
    assert len({name(""), name("training.epochs=3"), name("training.seed=1")}) == 3


def test_batch_size_and_bias_come_from_network_and_data(small_experiment):
    assert small_experiment.training.batch_size is None
    resolved, _, _ = resolve_experiment(with_settings(small_experiment, "model.head.prevalence_bias=true"))
    assert resolved.training.batch_size == NETWORKS["resnet18"].batch
    trainer = Trainer(resolved, None, {"positives": dict(zip(LABELS, range(15), strict=True)), "images": 40})
    for network in (trainer.network, trainer.saved):
        bias = network.get_layer("logits").get_weights()[1]
        assert np.allclose(bias, np.log((np.arange(15) + 0.5) / (40.5 - np.arange(15))), atol=1e-6)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ("model.size=64", ["64", "32"]),
        ("data.fold=5", ["data.fold is 5", "0 to 4"]),
        ("model.name=resnet19", ["resnet19", "resnet18"]),
        ("data.records=nowhere", ["nowhere"]),
        ("model.weights=nowhere.keras", ["nowhere.keras"]),
        ("model.weights=imagenet", ["no ImageNet weights for resnet18"]),
    ],
)
def test_settings_that_do_not_fit_are_refused(small_experiment, tmp_path, monkeypatch, overrides, words):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    words = [word.replace("there are ", "") for word in words]
    with pytest.raises(InputError) as caught:
        train_fold(with_settings(small_experiment, overrides), root=tmp_path)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not list(tmp_path.glob("[!.]*-*"))  # no folder of a run that never began


def test_a_loss_that_is_not_finite_stops_the_run(small_experiment, tmp_path):
    experiment = with_settings(small_experiment, "optimiser.learning_rate=10 training.epochs=5 schedule.name=constant")
    trained = small_network_of_nan(tmp_path)
    experiment = with_settings(experiment, f"model.weights={trained}")
    with pytest.raises(InputError, match="epoch 1: the loss is nan from batch 1 "):
        train_fold(experiment, root=tmp_path)


def small_network_of_nan(folder):
    from cxrkeras.models.classifier import build_classifier

    network = build_classifier("resnet18", 32)
    head = network.get_layer("logits")
    head.set_weights([np.full_like(weight, np.nan) for weight in head.get_weights()])
    network.save(folder / "nan.keras")
    return folder / "nan.keras"


def follow(qualities, phases, patience):
    """The phase of each epoch that these qualities lead to, and the progress."""
    progress, seen, left = Progress(), [], iter(qualities)
    while True:
        while progress.phase < len(phases) and progress.is_phase_over(phases[progress.phase], patience):
            progress.end_phase(phases[progress.phase])
        if progress.phase == len(phases):
            return seen, progress
        seen.append(progress.phase)
        progress.note_epoch(next(left))
        progress = Progress(**json.loads(json.dumps(asdict(progress))))  # as it is saved and read between epochs


@pytest.mark.parametrize(
    ("qualities", "phases", "patience", "seen", "best", "stopped"),
    [
        ([0.6, 0.7, 0.65, 0.7], [6], 2, [0] * 4, 2, [{"phase": 1, "epoch": 4}]),
        ([0.6, 0.7, 0.8], [3], 2, [0] * 3, 3, []),
        ([0.6, 0.5, 0.4, 0.45, 0.7], [3, 3], 1, [0, 0, 1, 1, 1], 5, [{"phase": 1, "epoch": 2}]),
        ([0.6, 0.5, 0.4, 0.3], [3, 3], 1, [0, 0, 1, 1], 1, [{"phase": 1, "epoch": 2}, {"phase": 2, "epoch": 4}]),
        ([0.6, 0.5, 0.4], [3], 0, [0] * 3, 1, []),
    ],
)
def test_early_stopping_ends_a_phase_and_counts_again_in_the_next(qualities, phases, patience, seen, best, stopped):
    found, progress = follow(qualities, phases, patience)
    assert (found, progress.best_epoch, progress.stopped) == (seen, best, stopped)


def test_a_phase_that_stops_early_leaves_the_next_its_epochs(small_experiment, tmp_path):
    """A head that learns nothing ends its phase after two epochs; the whole network then trains for its own two."""
    settings = json.loads(small_experiment.model_dump_json(exclude_none=True, exclude_unset=True))
    settings["training"] = {"batch_size": 128, "early_stopping": 1, "keep_state": True, "phases": [
        {"layers": "head", "epochs": 3, "learning_rate": 1e-12}, {"layers": "all", "epochs": 2, "learning_rate": 1e-3},
    ]}  # fmt: skip
    said = []
    result = train_fold(load_experiment(settings=settings), root=tmp_path, monitor=Monitor(say=said.append))
    history = pd.read_csv(result.folder / "history.csv")
    assert history["phase"].tolist()[:3] == [1, 1, 2]
    assert history["learning rate"].tolist()[:3] == pytest.approx([1e-12, 5e-13, 1e-3])  # the rate begins again
    assert {"phase": 1, "epoch": 2} in result.metrics["stopped_early"]
    assert any(sentence.startswith("phase 1 of 2 ends early, after epoch 2: no better") for sentence in said)
    assert "the last state is kept in" in said[-1]
    assert (result.folder / "backup" / "state.npz").is_file()
    # A longer run of the same settings goes on from there.
    settings["training"]["phases"][1]["epochs"] = 3
    settings["training"]["early_stopping"] = 1
    said.clear()
    longer = train_fold(load_experiment(settings=settings), root=tmp_path, monitor=Monitor(say=said.append))
    assert longer.folder != result.folder
    assert f"resuming from {result.folder.parent.name}/fold0 after epoch {len(history)}" in said
    again = pd.read_csv(longer.folder / "history.csv")
    assert again.iloc[: len(history)].equals(history)
    said.clear()
    assert not train_fold(load_experiment(settings=settings), root=tmp_path, monitor=Monitor(say=said.append)).is_new
    assert "For more epochs raise the epochs of the last phase" in said[0]


def test_a_longer_run_says_why_it_starts_at_the_first_epoch(trained, small_experiment, tmp_path):
    shutil.copytree(trained.folder.parents[1], tmp_path / "runs")

    def prepare(overrides):
        resolved, _, manifest = resolve_experiment(with_settings(small_experiment, overrides))
        folder = tmp_path / "runs" / name_run("resnet18", resolved, manifest) / "fold0"
        said = []
        continue_shorter(folder, resolved, manifest, said.append)
        return said

    assert "its state was not kept (training.keep_state = true): starting at epoch 1" in prepare("training.epochs=3")[0]
    assert prepare("training.epochs=1") == prepare("training.epochs=3 training.seed=7") == []
    resolved, _, manifest = resolve_experiment(with_settings(small_experiment, "training.keep_state=true"))
    assert name_run("resnet18", resolved, manifest) == trained.folder.parent.name  # no part of the name
    finished = tmp_path / "runs" / trained.folder.parent.name / "fold0"
    config = json.loads((finished / "config.json").read_text())
    config["experiment"]["schedule"] = {"name": "cosine", "warm_up": 1.0}
    shorter, _, _ = resolve_experiment(with_settings(small_experiment, "schedule.name=cosine"))
    moved = tmp_path / "runs" / name_run("resnet18", shorter, manifest) / "fold0"
    shutil.copytree(finished, moved)
    (moved / "config.json").write_text(json.dumps(config))
    (sentence,) = prepare("training.epochs=3 schedule.name=cosine")
    assert "the cosine schedule depends on their number: starting at epoch 1" in sentence


def test_starting_from_a_run(trained, small_experiment, tmp_path):
    """At a vanishing learning rate the start is what is kept."""
    overrides = f"model.weights={trained.folder / 'model.keras'} training.epochs=1 optimiser.learning_rate=1e-12"
    result = train_fold(with_settings(small_experiment, overrides), root=tmp_path)
    kept = keras.models.load_model(result.folder / "model.keras")
    start = keras.models.load_model(trained.folder / "model.keras")
    assert np.allclose(kept.get_layer("conv1").kernel, start.get_layer("conv1").kernel, atol=1e-6)


def count_held_out(records, fold):
    index = load_index(records)
    return index[index["fold"] == fold]["patient_id"].nunique(), index[index["split"] == "test"]["patient_id"].nunique()


def test_a_start_that_has_seen_the_patients_held_out_is_refused(trained, small_experiment, tmp_path, release):
    """A copy of the network alone, records of another size, data that have grown, a label that was edited."""
    weights = shutil.copy(trained.folder / "model.keras", tmp_path / "copy.keras")
    overrides = f"model.weights={weights} training.epochs=1"
    validation, test = count_held_out(Path(small_experiment.data.records), 1)
    words = f"{validation} of the {validation} patients held out in fold 1 and 0 of the {test} patients in the test set"
    with pytest.raises(InputError, match=words):
        train_fold(with_settings(small_experiment, f"{overrides} data.fold=1"), root=tmp_path)
    table = release.table.copy()
    table.loc[0, "Mass"] = 1 - table.loc[0, "Mass"]
    index = load_index(Path(small_experiment.data.records))
    moved = index.query("split == 'train_val' and fold != 0")["patient_id"].iloc[0]
    table["split"] = table["split"].where(table["patient_id"] != moved, "test")
    write_records(replace(release, table=table, split_name="custom-1"), tmp_path / "records", size=32)
    edited = with_settings(small_experiment, f"{overrides} data.records={tmp_path / 'records'}")
    said = []
    with pytest.raises(InputError, match=r" patients held out in fold 0 and 1 of the \d+ patients in the test set"):
        train_fold(edited, root=tmp_path, monitor=Monitor(say=said.append))
    others = replace(release, namespace="others")
    write_records(others, tmp_path / "others", size=32)
    resolved, records, manifest = resolve_experiment(
        with_settings(small_experiment, f"{overrides} data.records={tmp_path / 'others'} data.fold=1")
    )
    past = check_start(resolved, records, manifest, load_index(records), said.append)  # other people of the same names
    assert past.is_known
    assert not said


def test_a_start_without_a_past_is_said_to_be_unchecked(trained, small_experiment, tmp_path, monkeypatch):
    network = keras.models.load_model(trained.folder / "model.keras")
    network.save(tmp_path / "bare.keras")
    network.save_weights(tmp_path / "bare.weights.h5")
    for name in ("bare.keras", "bare.weights.h5"):
        said = []
        resolved, records, manifest = resolve_experiment(
            with_settings(small_experiment, f"model.weights={tmp_path / name} data.fold=1")
        )
        past = check_start(resolved, records, manifest, load_index(records), said.append)
        assert not past.is_known
        assert [sentence for sentence in said if "cannot be checked" in sentence]
    config = describe_run(resolved, None, load_index(records), manifest, is_past_known=past.is_known)
    assert config["is_past_known"] is False


def test_a_network_carries_the_patients_of_its_training_and_of_its_start(trained, small_experiment, records):
    past, index = read_past(trained.folder / "model.keras"), load_index(records)
    manifest = load_manifest(records)
    assert past.is_known
    assert json.loads((trained.folder / "trained_on.json").read_text()) == encode_past(past)
    found = past.find(index["patient_id"], build_hasher(records, manifest))
    assert found == set(index.query("split == 'train_val' and fold != 0")["patient_id"])
    slowly = lambda ids, salt, rounds: hash_patients(manifest.namespace, ids, salt, rounds)  # noqa: E731
    assert past.find(index["patient_id"], slowly) == found
    assert keras.models.load_model(trained.folder / "model.keras").count_params() > 11e6


def test_a_run_is_named_by_the_content_of_its_start(trained, small_experiment, tmp_path):
    shutil.copy(trained.folder / "model.keras", tmp_path / "a.keras")
    shutil.copy(trained.folder / "model.keras", tmp_path / "b.keras")

    def name(file):
        resolved, _, manifest = resolve_experiment(with_settings(small_experiment, f"model.weights={tmp_path / file}"))
        return name_run("mine", resolved, manifest)

    assert name("a.keras") == name("b.keras")
    with (tmp_path / "b.keras").open("ab") as file:
        file.write(b"more")
    assert name("a.keras") != name("b.keras")


def test_precision_follows_the_device(monkeypatch):
    assert choose_precision("mixed_float16") == "mixed_float16"
    devices = monkeypatch.setattr
    for gpus, capability, expected in (
        ([], None, "float32"),
        (["gpu"], (7, 5), "mixed_float16"),
        (["gpu"], (9, 0), "mixed_bfloat16"),
    ):
        devices("tensorflow.config.list_physical_devices", lambda kind=None, found=gpus: found)
        details = {"compute_capability": capability}
        devices("tensorflow.config.experimental.get_device_details", lambda gpu, found=details: found)
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
