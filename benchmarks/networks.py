"""Measure the networks of the original at 224 px, compared with PyTorch where it is installed: `make bench-models`.

Time to build, time to the end of the first training step, inference with batches of 1 and 8, training with batches of
16. Ours and PyTorch's run alternately, and the best round counts. The tables are saved in `benchmarks/README.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

from benchmarks.pytorch import import_torchvision
from benchmarks.table import Tables, time_in_turn
from cxrkeras.config import Augmentation as AugmentationSettings
from cxrkeras.config import Experiment
from cxrkeras.labels import NIH
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.compiled import compile_network
from cxrkeras.training.augment import Augmentation
from cxrkeras.training.resolve import choose_precision
from cxrkeras.training.training_state import TrainingState

NETWORKS = ["resnet18", "resnet34", "resnet50", "densenet161", "efficientnetb0", "efficientnetb7", "googlenet"]
TORCH_NAMES = {"efficientnetb0": "efficientnet_b0", "efficientnetb7": "efficientnet_b7"}
SIZE, BATCH = 224, 16


def draw_batch(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, 224, 224, 1), and targets, float32 (N, 15)."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 1), np.uint8)
    return images, rng.integers(0, 2, (count, len(NIH))).astype(np.float32)


def measure_keras(name: str) -> tuple[dict[str, float], dict]:
    """Seconds to build and to the end of the first training step; jobs to be timed."""
    model, training = {"name": name, "weights": "none", "size": SIZE}, {"precision": choose_precision("auto")}
    experiment = Experiment(model=model, training=training)
    started = time.perf_counter()
    build_classifier(name, SIZE, len(NIH))
    built = time.perf_counter() - started
    started = time.perf_counter()
    state = TrainingState(experiment, NIH)
    state.start_phase(0)
    batch = tf.data.Dataset.from_tensors(draw_batch(BATCH))
    state.model.fit(batch, verbose=0)
    first = time.perf_counter() - started
    forward = compile_network(state.saved)
    jobs = {"training, batch 16": lambda: state.model.fit(batch, verbose=0)}
    for count in (1, 8):
        images = tf.constant(draw_batch(count)[0])
        forward(images)
        jobs[f"inference, batch {count}"] = lambda x=images: forward(x).numpy()
    return {"build": built, "first step": first}, jobs


def time_plain_start(name: str) -> float:
    """Seconds to build and to the end of the first training step with Keras' own Adam and BatchNormalization."""
    started = time.perf_counter()
    network = build_classifier(name, SIZE, len(NIH))
    images = keras.Input(network.input_shape[1:])
    model = keras.Model(images, network(Augmentation(AugmentationSettings())(images)))
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(tf.data.Dataset.from_tensors(draw_batch(BATCH)), verbose=0)
    return time.perf_counter() - started


def measure_torch(name: str) -> dict:
    """The same jobs with torchvision's network, in its default memory layout."""
    import torch

    torchvision = import_torchvision()
    torch.set_num_threads(os.cpu_count())
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    network = getattr(torchvision.models, TORCH_NAMES.get(name, name))(num_classes=len(NIH), **options)
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    images, truth = draw_batch(BATCH)
    images = torch.from_numpy(images.astype(np.float32).repeat(3, -1).transpose(0, 3, 1, 2) / 255)
    truth = torch.from_numpy(truth)

    def train():
        network.train()
        optimiser.zero_grad()
        torch.nn.functional.binary_cross_entropy_with_logits(network(images), truth).backward()
        optimiser.step()

    def infer(count):
        network.eval()
        with torch.inference_mode():
            network(images[:count])

    jobs = {"training, batch 16": train}
    for count in (1, 8):
        jobs[f"inference, batch {count}"] = lambda n=count: infer(n)
    for job in jobs.values():
        job()
    return jobs


def measure(name: str) -> tuple[dict, list]:
    """Start-up seconds, and rows of the table that compares ours with PyTorch's, of one network."""
    times, jobs = measure_keras(name)
    torch_jobs = measure_torch(name) if import_torchvision() else {}
    rows = []
    for kind, job in jobs.items():
        pair = {"ours": job, **({"PyTorch": torch_jobs[kind]} if torch_jobs else {})}
        seconds = time_in_turn(pair)
        count = int(kind.rpartition(" ")[2])
        figures = [f"{1000 * value / count:.1f}" for value in seconds.values()]
        ratio = [f"{seconds['ours'] / seconds['PyTorch']:.2f}"] if torch_jobs else []
        rows.append([name, kind, *figures, *ratio])
    return times, rows


def run_alone(*options: str):
    """What this module measures in a separate process; None if that fails. All networks do not fit into 24 GB."""
    command = [sys.executable, "-m", "benchmarks.networks", *options]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode:
        print(f"{' '.join(options)}: ended with {done.returncode}; -9 means out of memory", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="networks; by default those of the original")
    parser.add_argument("--alone", choices=["ours", "plain"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        measured = (measure if arguments.alone == "ours" else time_plain_start)(arguments.names[0])
        print(json.dumps(measured))
        return
    has_torch = import_torchvision() is not None
    starts, rows = [], []
    for name in arguments.names or NETWORKS:
        measured, plain = run_alone(name, "--alone", "ours"), run_alone(name, "--alone", "plain")
        if measured:
            times, more = measured
            rows += more
        if measured and plain:
            ratio = f"{times['first step'] / plain:.2f}"
            starts.append([name, f"{times['build']:.1f}", f"{times['first step']:.1f}", f"{plain:.1f}", ratio])
        print(f"{name}: done", flush=True)
    tables = Tables("Networks", "make bench-models")
    columns = ["network", "ours, building alone", "ours", "plain Keras", "ratio"]
    tables.add("seconds to the end of the first training step, building included", columns, starts)
    columns = ["network", "", "ours, ms per image", *(["PyTorch, ms per image", "ratio"] if has_torch else [])]
    tables.add(f"networks at {SIZE} px", columns, rows)
    tables.save()


if __name__ == "__main__":
    main()
