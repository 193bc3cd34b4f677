"""Measure training: `make bench-training`, images a second, the records, augmentation and step of cxrkeras beside
the same step on a constant batch in memory, and beside PyTorch, fed from a float32 array on disk as the original was.

All take turns, and the best round counts; deterministic operations, which are a process's for good, have one of their
own. Then the memory of a training of 20 epochs. The tables stand in `benchmarks/README.md` afterwards.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import psutil
import tensorflow as tf

from benchmarks.networks import TORCH_NAMES
from benchmarks.pytorch import import_torchvision
from benchmarks.table import Tables, time_in_turn
from cxrkeras.config import load_experiment
from cxrkeras.data.release import read_release
from cxrkeras.labels import LABELS
from cxrkeras.phantoms.writing import write_phantoms
from cxrkeras.records.batches import build_training_batches
from cxrkeras.records.write import write_records
from cxrkeras.training.fit import Monitor, train_fold
from cxrkeras.training.resolve import choose_precision
from cxrkeras.training.training_state import Trainer

CASES = {"resnet18": (128, 32), "efficientnetb0": (224, 16), "resnet50": (224, 16)}  # pixels, batch
STEPS = 8
AUGMENTED = "records, augmentation"
MEMORY_EPOCHS, MEMORY_IMAGES, MEMORY_BATCH = 20, 120, 32


def build_jobs(name: str, size: int, batch_size: int, folder: Path, is_deterministic: bool) -> dict:
    if is_deterministic:
        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(0)
    write_phantoms(folder / "data", num_images=2 * STEPS * batch_size, size=size)
    records = folder / "records"
    write_records(read_release(folder / "data"), records, size=size)
    trainers = {}
    for is_augmented in (True, False):
        settings = {
            "model": {"name": name, "weights": "none", "size": size},
            "training": {"precision": choose_precision("auto")},
            "augmentation": {} if is_augmented else {"flip": 0.0, "rotation": 0.0},
        }
        trainers[is_augmented] = Trainer(load_experiment(settings=settings))
        trainers[is_augmented].start_phase(0)

    def fit(is_augmented: bool, batches: tf.data.Dataset):
        return lambda: trainers[is_augmented].model.fit(batches, verbose=0, shuffle=False)

    batches = build_training_batches(records, 0, batch_size=batch_size, seed=0, epoch=0).take(STEPS)
    constant = tf.data.Dataset.from_tensors(next(iter(batches))).repeat(STEPS)
    jobs = {
        f"{AUGMENTED}, deterministic" if is_deterministic else AUGMENTED: fit(True, batches),
        "constant batch, no augmentation": fit(False, constant),
        "records, no augmentation": fit(False, batches),
        "constant batch, augmentation": fit(True, constant),
    }
    if is_deterministic:
        jobs = dict([next(iter(jobs.items()))])
    elif import_torchvision():
        images = np.concatenate([images.numpy() for images, _ in batches])
        truth = np.concatenate([truth.numpy() for _, truth in batches])
        jobs["PyTorch, float32 array, augmentation"] = build_torch_job(name, images, truth, batch_size, folder)
    for job in jobs.values():
        job()
    return jobs


def build_torch_job(name: str, images: np.ndarray, truth: np.ndarray, batch_size: int, folder: Path):
    import torch
    from torchvision.transforms import InterpolationMode, v2

    shape = (len(images), 3, *images.shape[1:3])
    array = np.memmap(folder / "floats", np.float32, "w+", shape=shape)
    array[:] = images.transpose(0, 3, 1, 2) / 255
    array.flush()
    augment = v2.Compose([v2.RandomHorizontalFlip(0.25), v2.RandomRotation(7, InterpolationMode.BILINEAR)])

    class Stored(torch.utils.data.Dataset):
        def __len__(self):
            return len(array)

        def __getitem__(self, number):
            return augment(torch.from_numpy(np.array(array[number]))), truth[number]

    torch.set_num_threads(os.cpu_count())
    network = getattr(import_torchvision().models, TORCH_NAMES.get(name, name))(num_classes=len(LABELS))
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    loader = torch.utils.data.DataLoader(Stored(), batch_size, shuffle=True)

    def train():
        for part, wanted in loader:
            optimiser.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(network(part), wanted).backward()
            optimiser.step()

    return train


def measure_memory(folder: Path) -> dict[str, float]:
    """MB that the process holds after the second and the last of 20 epochs, and the most it held."""
    write_phantoms(folder / "data", num_images=MEMORY_IMAGES, size=224)
    write_records(read_release(folder / "data"), folder / "records", size=224, num_folds=3)
    settings = {
        "data": {"records": str(folder / "records")},
        "model": {"name": "resnet18", "weights": "none"},
        "training": {"epochs": MEMORY_EPOCHS, "batch_size": MEMORY_BATCH},
    }
    held = {}

    def note(epoch: int) -> None:
        if epoch in (2, MEMORY_EPOCHS):
            held[f"after epoch {epoch}"] = psutil.Process().memory_info().rss / 1e6

    train_fold(load_experiment(settings=settings), root=folder / "runs", monitor=Monitor(epoch=note))
    return held | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def run_alone(*arguments: str) -> dict[str, float]:
    """The figures that this module prints in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.training", *arguments]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; by default all")
    parser.add_argument("--alone", choices=["rates", "deterministic", "memory"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.names or list(CASES)
    if arguments.alone:
        with tempfile.TemporaryDirectory() as folder:
            if arguments.alone == "memory":
                figures = measure_memory(Path(folder))
            else:
                size, batch_size = CASES[names[0]]
                jobs = build_jobs(names[0], size, batch_size, Path(folder), arguments.alone == "deterministic")
                figures = {job: STEPS * batch_size / value for job, value in time_in_turn(jobs).items()}
        print(json.dumps(figures))
        return
    tables = Tables("Training", "make bench-training")
    for name in names:
        rates = run_alone(name, "--alone", "rates") | run_alone(name, "--alone", "deterministic")
        reference = rates["constant batch, no augmentation"]
        rows = [(job, f"{rate:.1f}", f"{rate / reference:.2f}") for job, rate in rates.items()]
        size, batch_size = CASES[name]
        tables.add(f"{name} at {size} px, batch {batch_size}", ["", "images/s", "ratio"], rows)
    held = run_alone("--alone", "memory")
    title = f"memory of resnet18 at 224 px, batch {MEMORY_BATCH}, {MEMORY_EPOCHS} epochs"
    tables.add(title, ["", "MB"], [(moment, f"{megabytes:,.0f}") for moment, megabytes in held.items()])
    tables.save()


if __name__ == "__main__":
    main()
