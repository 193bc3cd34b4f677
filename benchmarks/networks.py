"""Measure the networks of the original at 224 px, beside PyTorch where it is installed: `make bench-models`.

Build time, time to the end of the first training step, inference with 1 and 8 images, training with 16. Ours and
PyTorch's take turns, and the best round counts. The tables stand in `benchmarks/README.md` afterwards.
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
from cxrkeras.config import Augmentation as Settings
from cxrkeras.config import Experiment
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.compiled import compile_network
from cxrkeras.training.augment import Augmentation
from cxrkeras.training.resolve import choose_precision
from cxrkeras.training.training_state import Trainer

NETWORKS = ["resnet18", "resnet34", "resnet50", "densenet161", "efficientnetb0", "efficientnetb7", "googlenet"]
TORCH_NAMES = {"efficientnetb0": "efficientnet_b0", "efficientnetb7": "efficientnet_b7"}
SIZE, BATCH, NUM_LABELS = 224, 16, 15


def draw_batch(count: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, SIZE, SIZE, 1), np.uint8)
    return images, rng.integers(0, 2, (count, NUM_LABELS)).astype(np.float32)


def measure_here(name: str) -> tuple[dict[str, float], dict]:
    """Seconds to build and to the end of the first step; jobs to be timed."""
    model, training = {"name": name, "weights": "none", "size": SIZE}, {"precision": choose_precision("auto")}
    experiment = Experiment(model=model, training=training)
    started = time.perf_counter()
    build_classifier(name, SIZE)
    built = time.perf_counter() - started
    started = time.perf_counter()
    trainer = Trainer(experiment)
    trainer.start_phase(0)
    batch = tf.data.Dataset.from_tensors(draw_batch(BATCH))
    trainer.model.fit(batch, verbose=0)
    first = time.perf_counter() - started
    forward = compile_network(trainer.saved)
    jobs = {"training, batch 16": lambda: trainer.model.fit(batch, verbose=0)}
    for count in (1, 8):
        images = tf.constant(draw_batch(count)[0])
        forward(images)
        jobs[f"inference, batch {count}"] = lambda x=images: forward(x).numpy()
    return {"build": built, "first step": first}, jobs


def time_plain_start(name: str) -> float:
    """Seconds to build and to the end of the first step with Keras' own Adam and BatchNormalization."""
    started = time.perf_counter()
    network = build_classifier(name, SIZE)
    images = keras.Input(network.input_shape[1:])
    model = keras.Model(images, network(Augmentation(Settings())(images)))
    model.compile(keras.optimizers.Adam(1e-4), keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(tf.data.Dataset.from_tensors(draw_batch(BATCH)), verbose=0)
    return time.perf_counter() - started


def measure_torch(name: str) -> dict:
    """The same of torchvision's network, with its default memory layout."""
    import torch

    torchvision = import_torchvision()
    torch.set_num_threads(os.cpu_count())
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    network = getattr(torchvision.models, TORCH_NAMES.get(name, name))(num_classes=NUM_LABELS, **options)
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
    """Seconds of the start, and rows of the table of ours and PyTorch's, for one network."""
    times, jobs = measure_here(name)
    others = measure_torch(name) if import_torchvision() else {}
    rows = []
    for kind, job in jobs.items():
        pair = {"ours": job, **({"PyTorch": others[kind]} if others else {})}
        seconds = time_in_turn(pair)
        count = int(kind.rpartition(" ")[2])
        figures = [f"{1000 * value / count:.1f}" for value in seconds.values()]
        ratio = [f"{seconds['ours'] / seconds['PyTorch']:.2f}"] if others else []
        rows.append([name, kind, *figures, *ratio])
    return times, rows


def run_alone(*options: str):
    """What a process of its own measures; None if it fails. Together the networks do not fit into 24 GB."""
    command = [sys.executable, "-m", "benchmarks.networks", *options]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    if done.returncode:
        print(f"{' '.join(options)}: ended with {done.returncode}, of too little memory if that is -9", flush=True)
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
    columns = ["", "building alone", "ours", "plain Keras", "ratio"]
    tables.add("seconds to the end of the first training step, building included", columns, starts)
    columns = ["network", "", "ours, ms an image", *(["PyTorch, ms an image", "ratio"] if has_torch else [])]
    tables.add(f"networks at {SIZE} px", columns, rows)
    tables.save()


if __name__ == "__main__":
    main()
