"""Kills, several devices and determinism, each in separate processes."""

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
from cxrkeras.training import callback
from cxrkeras.progress import Progress
from cxrkeras.training.fit import train_fold
callback.SAVE_SECONDS = 0.5  # several saves within an epoch
settings, root = json.loads(sys.argv[1]), Path(sys.argv[2])
class PrintedProgress(Progress):
    def say(self, sentence):
        print(sentence, flush=True)
print(train_fold(load_experiment(settings=settings), root=root, progress=PrintedProgress()).fold.folder)
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


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(small_experiment, tmp_path):
    settings = {
        "data": small_experiment.data.model_dump(),
        "model": {"name": "resnet18", "weights": "none", "head": {"dropout": 0.2}},
        "training": {"deterministic": True, "phases": [{"layers": "all", "epochs": 3}, {"layers": 1, "epochs": 2}]},
        "optimiser": {"learning_rate": 1e-3, "average": 0.9},
        "sampling": {"name": "balanced"},
    }
    _, history, predictions = finish(settings, tmp_path / "uninterrupted")
    assert len(history) == 5
    _, repeated, repeated_predictions = finish(settings, tmp_path / "repeated")
    pd.testing.assert_frame_equal(repeated, history, check_exact=True)
    pd.testing.assert_frame_equal(repeated_predictions, predictions, check_exact=True)
    for number, delay in enumerate(np.random.default_rng(0).uniform(0, 4, 3)):
        root = tmp_path / f"killed{number}"
        process = start(settings, root)
        for line in process.stdout:
            if line.startswith(f"epoch {number + 1}/5"):
                break
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        output, resumed, resumed_predictions = finish(settings, root)
        assert "resuming after epoch" in output
        pd.testing.assert_frame_equal(resumed, history, rtol=1e-6, atol=1e-6)
        pd.testing.assert_frame_equal(resumed_predictions, predictions, rtol=1e-6, atol=1e-6)


DEVICES = """
import sys
import keras, numpy as np, tensorflow as tf
count, path, is_masked = int(sys.argv[1]), sys.argv[2], sys.argv[3] == "masked"
if count > 1:
    devices = [tf.config.LogicalDeviceConfiguration()] * count
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
from cxrkeras.config import load_experiment
from cxrkeras.labels import NIH
from cxrkeras.training.losses import TargetCounts
from cxrkeras.training.training_state import TrainingState
settings = {"model": {"name": "resnet18", "weights": path, "size": 64}}
overrides = "training.precision=float32 training.batch_size=16 augmentation.flip=0 augmentation.rotation=0 "
overrides += "optimiser.name=sgd optimiser.learning_rate=1e-4"
num_images = 31 if is_masked else 32  # an odd number gives one device fewer images of the last batch
counts = TargetCounts(num_images, np.ones(15), np.full(15, num_images), 9.0 if is_masked else 15.0)
experiment = load_experiment(settings=settings, overrides=overrides)
state = TrainingState(experiment, NIH, counts)
assert state.strategy.num_replicas_in_sync == count
state.start_phase(0)
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (num_images, 8, 8, 1), np.uint8).repeat(8, 1).repeat(8, 2)
targets = (rng.random((num_images, 15)) < 0.2).astype(np.float32)
if is_masked:
    targets[rng.random(targets.shape) < 0.4] = np.nan
    targets[:10] = np.nan  # so that the devices have different numbers of known targets
batches = tf.data.Dataset.from_tensor_slices((images, targets)).batch(16)
for step in range(3):
    state.model.fit(batches, verbose=0)
print(*state.network.get_layer("logits").kernel.numpy()[:40].ravel())
"""


@pytest.mark.parametrize("kind", ["whole", "masked"])
def test_two_devices_learn_the_same_as_one(tmp_path, kind):
    import keras

    from cxrkeras.models.classifier import build_classifier

    keras.utils.set_random_seed(0)
    build_classifier("resnet18", 64, 15).save(tmp_path / "start.keras")
    results = []
    for count in (1, 2):
        command = [sys.executable, "-c", DEVICES, str(count), str(tmp_path / "start.keras"), kind]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=300)
        results.append(np.array(done.stdout.splitlines()[-1].split(), float))
    start = keras.models.load_model(tmp_path / "start.keras").get_layer("logits").kernel.numpy()[:40].ravel()
    moved = np.abs(results[0] - start).max()
    assert moved > 1e-5
    assert np.abs(results[0] - results[1]).max() < 0.01 * moved


def test_an_extended_run_equals_one_of_that_length(small_experiment, tmp_path):
    settings = {
        "data": small_experiment.data.model_dump(),
        "model": {"name": "resnet18", "weights": "none"},
        "training": {"deterministic": True, "epochs": 2, "keep_state": True},
        "optimiser": {"learning_rate": 1e-3, "average": 0.9},
    }
    finish(settings, tmp_path / "extended")
    settings["training"] |= {"epochs": 3, "keep_state": False}
    output, history, predictions = finish(settings, tmp_path / "extended")
    assert "after epoch 2" in output
    _, whole, whole_predictions = finish(settings, tmp_path / "whole")
    pd.testing.assert_frame_equal(history, whole, rtol=1e-6)
    pd.testing.assert_frame_equal(predictions, whole_predictions, rtol=1e-6)
