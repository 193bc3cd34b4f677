"""Kills, several devices and determinism, each in processes of their own."""

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

pytestmark = pytest.mark.slow

TRAIN = """
import json, sys
from pathlib import Path
from cxrkeras.config import load_experiment
from cxrkeras.training import callback as steps
from cxrkeras.training.fit import Monitor, train_fold
steps.SAVE_SECONDS = 0.5  # so that kills fall between saves within an epoch
settings, root = json.loads(sys.argv[1]), Path(sys.argv[2])
said = lambda sentence: print(sentence, flush=True)
print(train_fold(load_experiment(settings=settings), root=root, monitor=Monitor(say=said)).folder)
"""


def start(settings, root):
    command = [sys.executable, "-c", TRAIN, json.dumps(settings), str(root)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(settings, root):
    process = start(settings, root)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    folder = output.splitlines()[-1]
    history = pd.read_csv(f"{folder}/history.csv").drop(columns="images per second")
    return output, history, pd.read_csv(f"{folder}/predictions_test.csv")


def test_a_killed_run_ends_as_an_unbroken_one(small_experiment, tmp_path):
    settings = {
        "data": small_experiment.data.model_dump(),
        "model": {"name": "resnet18", "weights": "none", "head": {"dropout": 0.2}},
        "training": {"deterministic": True, "phases": [{"layers": "all", "epochs": 3}, {"layers": 1, "epochs": 2}]},
        "optimiser": {"learning_rate": 1e-3, "average": 0.9},
        "sampling": {"name": "balanced"},
    }
    _, history, predictions = finish(settings, tmp_path / "unbroken")
    assert len(history) == 5
    _, again, same = finish(settings, tmp_path / "again")
    pd.testing.assert_frame_equal(again, history, check_exact=True)
    pd.testing.assert_frame_equal(same, predictions, check_exact=True)
    for number, delay in enumerate(np.random.default_rng(0).uniform(0, 4, 3)):
        root = tmp_path / f"killed{number}"
        process = start(settings, root)
        for line in process.stdout:
            if line.startswith(f"epoch {number + 1}/5"):
                break
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        output, resumed, got = finish(settings, root)
        assert "going on after epoch" in output
        pd.testing.assert_frame_equal(resumed, history, rtol=1e-6, atol=1e-6)
        pd.testing.assert_frame_equal(got, predictions, rtol=1e-6, atol=1e-6)


DEVICES = """
import sys
import keras, numpy as np, tensorflow as tf
count, path = int(sys.argv[1]), sys.argv[2]
if count > 1:
    parts = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
from cxrkeras.config import load_experiment
from cxrkeras.training.training_state import Trainer
settings = {"model": {"name": "resnet18", "weights": path, "size": 64}}
overrides = "training.precision=float32 augmentation.flip=0 augmentation.rotation=0 optimiser.name=sgd"
trainer = Trainer(load_experiment(settings=settings, overrides=overrides + " optimiser.learning_rate=1e-4"))
assert trainer.strategy.num_replicas_in_sync == count
trainer.start_phase(0)
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (32, 8, 8, 1), np.uint8).repeat(8, 1).repeat(8, 2)
batch = tf.data.Dataset.from_tensors((images, (rng.random((32, 15)) < 0.2).astype(np.float32)))
for step in range(6):
    print(trainer.model.fit(batch, verbose=0).history["loss"][0])
"""


def test_two_devices_learn_as_one_does(tmp_path):
    import keras

    from cxrkeras.models.classifier import build_classifier

    keras.utils.set_random_seed(0)
    build_classifier("resnet18", 64).save(tmp_path / "start.keras")
    losses = []
    for count in (1, 2):
        command = [sys.executable, "-c", DEVICES, str(count), str(tmp_path / "start.keras")]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
        losses.append(np.array(done.stdout.split(), float))
    assert losses[0][0] - losses[0][-1] > 0.01
    assert np.abs(losses[0] - losses[1]).max() < 1e-4


def test_a_longer_run_equals_one_of_that_length_from_the_start(small_experiment, tmp_path):
    settings = {
        "data": small_experiment.data.model_dump(),
        "model": {"name": "resnet18", "weights": "none"},
        "training": {"deterministic": True, "epochs": 2, "keep_state": True},
        "optimiser": {"learning_rate": 1e-3, "average": 0.9},
    }
    finish(settings, tmp_path / "grown")
    settings["training"] |= {"epochs": 3, "keep_state": False}
    output, history, predictions = finish(settings, tmp_path / "grown")
    assert "after epoch 2" in output
    _, whole, same = finish(settings, tmp_path / "whole")
    pd.testing.assert_frame_equal(history, whole, rtol=1e-6)
    pd.testing.assert_frame_equal(predictions, same, rtol=1e-6)
