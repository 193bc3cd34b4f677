"""Measure training in images per second: `make bench-training`.

Records, augmentation and training step of cxrkeras are compared with the same step on a constant batch in memory, and
with PyTorch, fed from a float32 array on disk as the original was. All run alternately, and the best round counts;
deterministic operations, which cannot be switched off again, are measured in a separate process. Then the memory of a
training of 20 epochs is measured. The tables are saved in `benchmarks/README.md`.
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
from cxrkeras.data.readers import read_dataset
from cxrkeras.phantoms.writing import write_phantoms
from cxrkeras.progress import Progress
from cxrkeras.records.batches import build_targets
from cxrkeras.records.folder import open_records
from cxrkeras.records.write import write_records
from cxrkeras.training.fit import train_fold
from cxrkeras.training.resolve import choose_precision
from cxrkeras.training.training_state import TrainingState

CASES = {"resnet18": (128, 32), "efficientnetb0": (224, 16), "resnet50": (224, 16)}  # pixels, batch
STEPS = 8
AUGMENTED = "records, augmentation"
MEMORY_EPOCHS, MEMORY_IMAGES, MEMORY_BATCH = 20, 120, 32


def build_jobs(name: str, size: int, batch_size: int, folder: Path, is_deterministic: bool) -> dict:
    """Trainings of STEPS steps by name, each run once; with deterministic operations only the first of them."""
    if is_deterministic:
        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(0)
    write_phantoms(folder / "data", num_images=2 * STEPS * batch_size, size=size)
    write_records(read_dataset(folder / "data"), folder / "records", size=size)
    records = open_records(folder / "records")
    states = {}
    for is_augmented in (True, False):
        settings = {
            "model": {"name": name, "weights": "none", "size": size},
            "training": {"precision": choose_precision("auto")},
            "augmentation": {} if is_augmented else {"flip": 0.0, "rotation": 0.0},
        }
        states[is_augmented] = TrainingState(load_experiment(settings=settings), records.labels)
        states[is_augmented].start_phase(0)

    def fit(is_augmented: bool, batches: tf.data.Dataset):
        return lambda: states[is_augmented].model.fit(batches, verbose=0, shuffle=False)

    targets = build_targets(records.labels, records.labels, {})
    batches = records.training_batches(0, targets, batch_size=batch_size, seed=0, epoch=0).take(STEPS)
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
    network = getattr(import_torchvision().models, TORCH_NAMES.get(name, name))(num_classes=truth.shape[1])
    optimiser = torch.optim.Adam(network.parameters(), 1e-4)
    loader = torch.utils.data.DataLoader(Stored(), batch_size, shuffle=True)

    def train():
        for batch, targets in loader:
            optimiser.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(network(batch), targets).backward()
            optimiser.step()

    return train


class MemoryMeter(Progress):
    """Notes the memory of this process after the second and the last epoch, in MB."""

    def __init__(self) -> None:
        self.held = {}

    def end_epoch(self, done: int) -> None:
        if done in (2, MEMORY_EPOCHS):
            self.held[f"after epoch {done}"] = psutil.Process().memory_info().rss / 1e6


def measure_memory(folder: Path) -> dict[str, float]:
    """MB that the process holds after the second and the last of 20 epochs, and its peak."""
    write_phantoms(folder / "data", num_images=MEMORY_IMAGES, size=224)
    write_records(read_dataset(folder / "data"), folder / "records", size=224, num_folds=3)
    settings = {
        "data": {"records": str(folder / "records")},
        "model": {"name": "resnet18", "weights": "none"},
        "training": {"epochs": MEMORY_EPOCHS, "batch_size": MEMORY_BATCH},
    }
    meter = MemoryMeter()
    train_fold(load_experiment(settings=settings), root=folder / "runs", progress=meter)
    return meter.held | {"peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def run_alone(*arguments: str) -> dict[str, float]:
    """What this module measures in a separate process."""
    command = [sys.executable, "-m", "benchmarks.training", *arguments]
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"networks, of {', '.join(CASES)}; by default all")
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
