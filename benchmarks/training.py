"""Measure training: `make bench-training`, images a second, the records, augmentation and step of cxrkeras beside
the same step on a constant batch in memory, and beside PyTorch, fed from a float32 array on disk as the original was.

All take turns, and the best round counts. The tables stand in `benchmarks/README.md` afterwards.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from benchmarks.networks import TORCH_NAMES
from benchmarks.pytorch import import_torchvision
from benchmarks.table import Tables, time_in_turn
from cxrkeras.config import load_experiment
from cxrkeras.data.phantom import write_phantoms
from cxrkeras.data.release import read_release
from cxrkeras.labels import LABELS
from cxrkeras.records.pipeline import build_training_batches
from cxrkeras.records.write import write_records
from cxrkeras.training.plan import choose_precision
from cxrkeras.training.trainer import Trainer

CASES = {"resnet18": (128, 32), "efficientnetb0": (224, 16), "resnet50": (224, 16)}  # pixels, batch
STEPS = 8


def build_jobs(name: str, size: int, batch_size: int, folder: Path) -> dict:
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
        "constant batch, no augmentation": fit(False, constant),
        "records, no augmentation": fit(False, batches),
        "constant batch, augmentation": fit(True, constant),
        "records, augmentation": fit(True, batches),
    }
    if import_torchvision():
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(CASES)}; by default all")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = arguments.names or list(CASES)
    if arguments.alone:
        size, batch_size = CASES[names[0]]
        with tempfile.TemporaryDirectory() as folder:
            seconds = time_in_turn(build_jobs(names[0], size, batch_size, Path(folder)))
        print(json.dumps({job: STEPS * batch_size / value for job, value in seconds.items()}))
        return
    tables = Tables("Training", "make bench-training")
    for name in names:
        command = [sys.executable, "-m", "benchmarks.training", "--alone", name]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        rates = json.loads(done.stdout.splitlines()[-1])
        reference = rates["constant batch, no augmentation"]
        rows = [(job, f"{rate:.1f}", f"{rate / reference:.2f}") for job, rate in rates.items()]
        size, batch_size = CASES[name]
        tables.add(f"{name} at {size} px, batch {batch_size}", ["", "images/s", "ratio"], rows)
    tables.save()


if __name__ == "__main__":
    main()
